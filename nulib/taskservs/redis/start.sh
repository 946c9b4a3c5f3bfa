#!/bin/sh
# Starts Redis, or starts it anew where it runs with other settings than those that are written.
set -eu

file=/etc/redis/taskserv.conf
# What the running server was started with.
mark=/run/taskserv-redis.conf
changed=false

# `service` speaks to systemd where that runs, and to the distribution's own script elsewhere.
is_running() { service redis-server status >/dev/null 2>&1; }

if is_running && ! cmp -s "$file" "$mark"; then
    echo "Redis runs with other settings: it is started anew"
    service redis-server stop
fi
if ! is_running; then
    service redis-server start
    cp "$file" "$mark"
    changed=true
fi
echo "::result {\"changed\": $changed}"

#!/bin/sh
# Starts Redis, or starts it anew where it runs with other settings than those that are written.
set -eu

file=/etc/redis/taskserv.conf
# What the running server was started with.
mark=/run/taskserv-redis.conf
changed=false

# `service` speaks to systemd where that runs, and to the distribution's own script elsewhere.
is_running() { service redis-server status >/dev/null 2>&1; }

is_redis() { [ "$(cat "/proc/$1/comm" 2>/dev/null)" = redis-server ]; }

# The distribution's script looks for the process by its program. In a container root may not look that up
# for a process of another user: then nothing is found, and the script says that it has stopped it.
stop() {
    pid=$(cat /run/redis/redis-server.pid 2>/dev/null || true)
    service redis-server stop
    [ -n "$pid" ] || return 0
    tries=0
    while is_redis "$pid"; do
        [ "$tries" -lt 300 ] || { echo "::fail Redis (process $pid) does not end"; exit 1; }
        kill -TERM "$pid" 2>/dev/null || true
        tries=$((tries + 1))
        sleep 0.1
    done
}

if is_running && ! cmp -s "$file" "$mark"; then
    echo "Redis runs with other settings: it is started anew"
    stop
fi
if ! is_running; then
    service redis-server start
    cp "$file" "$mark"
    changed=true
fi
echo "::result {\"changed\": $changed}"

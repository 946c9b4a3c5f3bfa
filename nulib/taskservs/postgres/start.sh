#!/bin/sh
# Starts PostgreSQL, or starts it anew where it runs with other settings than those that are written.
set -eu
# shellcheck source=cluster.sh
. ./cluster.sh

changed=false
# What the running server was started with.
mark=/run/taskserv-postgres.conf
if ! find_cluster; then
    echo "::fail permanent there is no cluster 'main': PostgreSQL is not installed"
    exit 1
fi
wanted="$(setting port) $(setting listen_addresses)"

# `pg_ctlcluster` speaks to systemd where that runs.
if is_running && [ "$(cat "$mark" 2>/dev/null)" != "$wanted" ]; then
    echo "PostgreSQL runs with other settings: it is started anew"
    pg_ctlcluster "$version" main stop --mode fast
fi
if ! is_running; then
    pg_ctlcluster "$version" main start
    printf '%s\n' "$wanted" >"$mark"
    changed=true
fi
echo "::result {\"changed\": $changed}"

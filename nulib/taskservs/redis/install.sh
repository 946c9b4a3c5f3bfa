#!/bin/sh
# Installs Redis and writes its settings. Starts nothing.
set -eu
# shellcheck source=apt.sh
. ./apt.sh

main_file=/etc/redis/redis.conf
own_file=/etc/redis/taskserv.conf
changed=false

apt_install redis-server redis-tools

# Redis takes the last of several lines, so a file that is included at the end has the last word, and
# the distribution's stays as its upgrades expect it.
if [ "$TASKSERV_PARAM_PROTECTED_MODE" = true ]; then protected_mode=yes; else protected_mode=no; fi
wanted="# Written by the taskserv redis.
port $TASKSERV_PARAM_PORT
bind $TASKSERV_PARAM_BIND
protected-mode $protected_mode"
if [ "$(cat "$own_file" 2>/dev/null)" != "$wanted" ]; then
    printf '%s\n' "$wanted" >"$own_file.new"
    chown root:redis "$own_file.new"
    chmod 640 "$own_file.new"
    mv "$own_file.new" "$own_file"
    changed=true
fi
if ! grep -qx "include $own_file" "$main_file"; then
    printf '\ninclude %s\n' "$own_file" >>"$main_file"
    changed=true
fi
echo "::result {\"changed\": $changed}"

#!/bin/sh
# Installs PostgreSQL, makes its cluster `main` where the package has not, and writes its settings.
# Starts nothing.
set -eu
# shellcheck source=apt.sh
. ./apt.sh
# shellcheck source=cluster.sh
. ./cluster.sh

changed=false
apt_install postgresql

if ! find_cluster; then
    # The package makes one; it is not there where its set-up broke off after that of the package.
    version=$(ls /usr/lib/postgresql | sort -V | tail -n 1)
    pg_createcluster --locale C.UTF-8 "$version" main
    changed=true
fi

set_to() {
    [ "$(setting "$1")" = "$2" ] && return
    pg_conftool "$version" main set "$1" "$2"
    changed=true
}
set_to port "$TASKSERV_PARAM_PORT"
set_to listen_addresses "$TASKSERV_PARAM_LISTEN_ADDRESSES"
echo "::result {\"changed\": $changed}"

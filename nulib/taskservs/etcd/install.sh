#!/bin/sh
# Installs etcd. Starts nothing, and writes no settings: they say who the other members are.
set -eu
# shellcheck source=apt.sh
. ./apt.sh

changed=false
apt_install etcd-server etcd-client
echo "::result {\"changed\": $changed}"

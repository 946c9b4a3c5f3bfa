#!/bin/sh
# Installs containerd, and the program that the image of the verification is made of. Starts nothing, and
# writes no settings: they depend on the machine that it is started on.
set -eu
# shellcheck source=apt.sh
. ./apt.sh

changed=false
apt_install containerd runc busybox-static
echo "::result {\"changed\": $changed}"

#!/bin/sh
# Whether etcd has a leader and takes what is written. As long as there is no quorum it does not.
# shellcheck source=service.sh
. ./service.sh
# shellcheck source=member.sh
. ./member.sh

if ! is_running; then
    echo "::fail etcd has ended: $(last_words)"
    exit 1
fi
answer=$(ask endpoint health 2>&1) && exit 0
echo "$answer" | tail -n 1 >&2
exit 1

#!/bin/sh
# Whether containerd answers.
# shellcheck source=service.sh
. ./service.sh
# shellcheck source=runtime.sh
. ./runtime.sh

if ! is_running; then
    echo "::fail containerd has ended: $(last_words)"
    exit 1
fi
answer=$(timeout 10 ctr version 2>&1) && exit 0
echo "$answer" | tail -n 1 >&2
exit 1

#!/bin/sh
# Whether the API is ready and knows this node.
# shellcheck source=node.sh
. ./node.sh

if [ "$TASKSERV_ROLE" = controlplane ]; then
    answer=$(ask get --raw /readyz 2>&1) || {
        echo "$answer" | tail -n 1 >&2
        exit 1
    }
fi
answer=$(ask get node "$TASKSERV_SERVER" 2>&1) && exit 0
echo "$answer" | tail -n 1 >&2
exit 1

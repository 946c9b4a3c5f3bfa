#!/bin/sh
# Whether the nodes are ready, which they are once they have a network: all of them for the control plane,
# and its own for a worker.
# shellcheck source=node.sh
. ./node.sh

list=$(nodes 2>&1) || {
    echo "$list" | tail -n 1 >&2
    exit 1
}
waiting=$(echo "$list" | not_ready)
[ -n "$list" ] && [ -z "$waiting" ] && exit 0
echo "not ready: $waiting" >&2
exit 1

#!/bin/sh
# Whether Redis answers: not while it still reads its data.
answer=$(redis-cli -p "$TASKSERV_PARAM_PORT" PING 2>&1 || true)
[ "$answer" = PONG ] && exit 0
echo "$answer" >&2
exit 1

#!/bin/sh
# Whether PostgreSQL takes connections.
answer=$(pg_isready --port "$TASKSERV_PARAM_PORT" 2>&1) && exit 0
echo "$answer" >&2
exit 1

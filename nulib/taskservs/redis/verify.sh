#!/bin/sh
# Verifies that Redis answers, and that what is written can be read back.
set -eu

ask() { redis-cli -p "$TASKSERV_PARAM_PORT" "$@" 2>&1 || true; }

fail() {
    echo "::fail permanent $*"
    exit 1
}

command -v redis-cli >/dev/null || fail "Redis is not installed"
answer=$(ask PING)
[ "$answer" = PONG ] || fail "Redis answers '$answer' to PING on port $TASKSERV_PARAM_PORT"

# The key goes by itself, should this script not get as far as to remove it.
key=taskserv:verify:$$
value=$(date +%s%N)
answer=$(ask SET "$key" "$value" EX 60)
[ "$answer" = OK ] || fail "Redis does not take a value: $answer"
answer=$(ask GET "$key")
[ "$answer" = "$value" ] || fail "Redis gives back '$answer' for '$value'"
ask DEL "$key" >/dev/null

version=$(ask INFO server | tr -d '\r' | sed -n 's/^redis_version://p')
echo "::result {\"ping\": \"PONG\", \"version\": \"$version\"}"

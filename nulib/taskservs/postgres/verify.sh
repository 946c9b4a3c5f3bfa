#!/bin/sh
# Verifies that PostgreSQL answers a query, and that what is written can be read back over another
# connection.
set -eu

fail() {
    echo "::fail permanent $*"
    exit 1
}

query() {
    # The cause only: psql repeats where it connected to.
    runuser -u postgres -- psql --port "$TASKSERV_PARAM_PORT" --no-psqlrc --quiet --tuples-only --no-align \
        --set ON_ERROR_STOP=1 --command "$1" 2>&1 | head -n 5 | tr '\n' ' ' | sed 's/ *$//'
}

command -v psql >/dev/null || fail "PostgreSQL is not installed"
cd /
answer=$(query 'SELECT 6 * 7')
[ "$answer" = 42 ] || fail "PostgreSQL answers '$answer' to SELECT 6 * 7 on port $TASKSERV_PARAM_PORT"

table=taskserv_verify_$$
value=$(date +%s%N)
drop() { query "DROP TABLE IF EXISTS $table" >/dev/null; }
trap drop EXIT
answer=$(query "CREATE TABLE $table (value text); INSERT INTO $table VALUES ('$value')")
[ -z "$answer" ] || fail "PostgreSQL does not take a value: $answer"
answer=$(query "SELECT value FROM $table")
[ "$answer" = "$value" ] || fail "PostgreSQL gives back '$answer' for '$value'"

version=$(query 'SHOW server_version')
echo "::result {\"select\": 42, \"version\": \"${version%% *}\"}"

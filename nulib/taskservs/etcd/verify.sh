#!/bin/sh
# Verifies that etcd takes a value and gives it back, which it does only with a quorum, and that all
# servers that should be are members. A member that is down is one still.
set -eu
# shellcheck source=service.sh
. ./service.sh
# shellcheck source=member.sh
. ./member.sh

# The last line of what was said. etcdctl says the cause there.
last_line() { printf '%s\n' "$1" | tail -n 1; }

command -v etcdctl >/dev/null || refuse "etcd is not installed"
is_running || refuse "etcd does not run: $(last_words)"

key=/taskserv/verify/$TASKSERV_SERVER/$$
value=$(date +%s%N)
# Where the leader has just died, nothing is written until the others have another: a few seconds.
end=$(($(date +%s) + 15))
until answer=$(ask put "$key" "$value" 2>&1); do
    [ "$(date +%s)" -lt "$end" ] || refuse "etcd does not take a value on port $TASKSERV_PARAM_PORT: $(last_line "$answer")"
    sleep 0.5
done
trap 'ask del "$key" >/dev/null 2>&1 || true' EXIT
answer=$(ask get --print-value-only "$key" 2>&1) || refuse "etcd does not give back a value: $(last_line "$answer")"
[ "$answer" = "$value" ] || refuse "etcd gives back '$answer' for '$value'"

# ID, status, name, URLs for members, URLs for clients, learner. One that never started has no name yet.
list=$(ask member list --write-out simple 2>&1) || refuse "etcd does not list its members: $(last_line "$list")"
known=$(printf '%s\n' "$list" | awk -F ', ' '{ print $4 }')
missing=$(members | while read -r name address; do
    printf '%s\n' "$known" | grep -qxF "$address" || echo "$name ($address)"
done)
[ -z "$missing" ] || refuse "not a member: $(printf '%s\n' "$missing" | paste -s -d , - | sed 's/,/, /g'). The members are $(printf '%s\n' "$known" | paste -s -d , - | sed 's/,/, /g')"

# Endpoint, ID, version, size, whether it leads, whether it learns, term, index, applied index. `up` are the
# members that answer, `behind` is how much of what the furthest of them has is not in this one's copy yet.
own=$(ask endpoint status --write-out simple)
all=$(ask endpoint status --cluster --write-out simple 2>/dev/null || true)
field() { printf '%s\n' "$own" | awk -F ', ' -v field="$1" '{ print $field }'; }
up=$(printf '%s\n' "$all" | grep -c . || true)
behind=$(printf '%s\n' "$all" | awk -F ', ' -v id="$(field 2)" '
    $9 > furthest { furthest = $9 }
    $2 == id { own = $9 }
    END { print furthest - own }')
echo "::result {\"members\": $(printf '%s\n' "$known" | wc -l), \"up\": $up, \"behind\": $behind, \"leader\": $(field 5), \"version\": \"$(field 3)\"}"

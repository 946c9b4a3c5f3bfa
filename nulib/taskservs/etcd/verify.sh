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

# Asks until there is an answer. While the members choose another leader, after one has died or come back,
# nothing is written or read: a few seconds. Leaves the answer in `answer`.
end=$(($(date +%s) + 15))
eventually() {
    until answer=$(ask "$@" 2>&1); do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.5
    done
}

key=/taskserv/verify/$TASKSERV_SERVER/$$
value=$(date +%s%N)
eventually put "$key" "$value" || refuse "etcd does not take a value on port $TASKSERV_PARAM_PORT: $(last_line "$answer")"
trap 'ask del "$key" >/dev/null 2>&1 || true' EXIT
eventually get --print-value-only "$key" || refuse "etcd does not give back a value: $(last_line "$answer")"
[ "$answer" = "$value" ] || refuse "etcd gives back '$answer' for '$value'"

# ID, status, name, URLs for members, URLs for clients, learner. One that never started has no name yet.
eventually member list --write-out simple || refuse "etcd does not list its members: $(last_line "$answer")"
list=$answer
known=$(printf '%s\n' "$list" | awk -F ', ' '{ print $4 }')
missing=$(members | while read -r name address; do
    printf '%s\n' "$known" | grep -qxF "$address" || echo "$name ($address)"
done)
[ -z "$missing" ] || refuse "not a member: $(printf '%s\n' "$missing" | paste -s -d , - | sed 's/,/, /g'). The members are $(printf '%s\n' "$known" | paste -s -d , - | sed 's/,/, /g')"

# Endpoint, ID, version, size, whether it leads, whether it learns, term, index, applied index. `up` are the
# members that answer, `behind` is how much of what the furthest of them has is not in this one's copy yet.
eventually endpoint status --write-out simple || refuse "etcd does not say how it is: $(last_line "$answer")"
own=$answer
all=$(ask endpoint status --cluster --write-out simple 2>/dev/null || true)
field() { printf '%s\n' "$own" | awk -F ', ' -v field="$1" '{ print $field }'; }
up=$(printf '%s\n' "$all" | grep -c . || true)
behind=$(printf '%s\n' "$all" | awk -F ', ' -v id="$(field 2)" '
    $9 > furthest { furthest = $9 }
    $2 == id { own = $9 }
    END { print furthest - own }')
echo "::result {\"members\": $(printf '%s\n' "$known" | wc -l), \"up\": $up, \"behind\": $behind, \"leader\": $(field 5), \"version\": \"$(field 3)\"}"

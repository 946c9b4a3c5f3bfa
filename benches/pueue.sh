#!/bin/sh
# How adding slows down as the queue grows, beside pueue: adds a second for each 250, up to 2 000 queued.
# Each add is a process of its own on pueue's side (`pueue add`), and on ours a process that talks to the
# engine (`nu` with the plugin, one submit each).
#
#     PUEUE_BIN=DIR_WITH_PUEUE_AND_PUEUED TARGET=DIR_WITH_THE_RELEASE_BUILD NU=nu benches/pueue.sh
set -eu
scratch=$(mktemp -d)
export XDG_RUNTIME_DIR="$scratch/run" XDG_CONFIG_HOME="$scratch/config" XDG_DATA_HOME="$scratch/share" HOME="$scratch"
mkdir -p "$XDG_RUNTIME_DIR" && chmod 700 "$XDG_RUNTIME_DIR"
printf 'def main [] {}\n' >"$scratch/empty.nu"
cd "$scratch"

now() { date +%s%N; }
rates() { # rates COMMAND...: runs it 250 times, eight times over
    for _ in 1 2 3 4 5 6 7 8; do
        start=$(now)
        i=0
        while [ $i -lt 250 ]; do
            "$@" >/dev/null
            i=$((i + 1))
        done
        printf ' %s' $((250 * 1000000000 / ($(now) - start)))
    done
    printf '\n'
}

"$PUEUE_BIN/pueued" >"$scratch/pueued.log" 2>&1 &
daemon=$!
until "$PUEUE_BIN/pueue" status >/dev/null 2>&1; do :; done
"$PUEUE_BIN/pueue" pause --all >/dev/null
printf 'pueue add:'
rates "$PUEUE_BIN/pueue" add -- true
kill $daemon

"$TARGET/orchestrator" --no-http --data-dir "$scratch/data" --socket "$scratch/socket" 2>"$scratch/engine.log" &
engine=$!
export ORCHESTRATOR_SOCKET="$scratch/socket"
until [ -S "$scratch/socket" ]; do :; done
ours() { "$NU" -n --no-std-lib --plugins "$TARGET/nu_plugin_orchestrator" -c "$1"; }
ours 'orchestrator task pause' >/dev/null
printf 'orchestrator task submit:'
rates ours 'orchestrator task submit empty.nu'
printf 'the same, 250 submits in one nu:'
for _ in 1 2 3 4 5 6 7 8; do
    start=$(now)
    ours 'for _ in 1..250 { orchestrator task submit empty.nu | ignore }'
    printf ' %s' $((250 * 1000000000 / ($(now) - start)))
done
printf '\n'
kill $engine
wait 2>/dev/null || true
rm -rf "$scratch"

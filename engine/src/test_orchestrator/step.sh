#!/bin/sh
# Runs scripts on a node of a test environment, for the engine.
#
#     sh step.sh run MARK ID LIMIT_S WITHIN_S FOLDER COMMAND…
#     sh step.sh cancel ID
#     sh step.sh settle
#
# What a step prints and how it ended are in files of /var/lib/orchestrator/steps/ID, written by a
# process that does not need the engine. An engine that is started anew asks for the same step again: it
# is then told about the one that runs, or that has succeeded, from its first line on.
#
# Lines that begin with MARK are for the engine: `began` or `taken-over` at first, and one of `exit N`,
# `timed-out`, `cancelled`, `not-ready` and `broken WHY` at last. All else is the script's own output.
set -u

BASE=/var/lib/orchestrator

# How often new output is looked for, in seconds.
BETWEEN_LOOKS_S=0.1

# How long processes have to end when they are told to, in tenths of a second.
GRACE_DS=100

# How long what a script has left behind has to go away by itself. A service becomes a session of its own
# a moment after the program that starts it has ended: one that is told to end in between never runs.
LEAVE_DS=20

# How long the rest has to end when it is told to.
LEFTOVER_GRACE_DS=20

run() {
    mark=$1 dir=$BASE/steps/$2 limit=$3 within=$4 folder=$5
    shift 5
    umask 077
    mkdir -p "$BASE"
    arrive
    mkdir -p "$dir" || last "broken $dir cannot be made"
    # Whoever carries the step out holds this lock until it has ended.
    exec 9>"$dir/lock"
    if ! flock -n 9 || [ "$(cat "$dir/status" 2>/dev/null)" = "exit 0" ]; then
        echo "$mark taken-over"
    else
        rm -rf "$dir/files" "$dir/status" "$dir/ended" "$dir/session"
        : >"$dir/out" && : >"$dir/err" && mkdir "$dir/files" && cp -a "$folder/." "$dir/files" ||
            last "broken $folder could not be copied to $dir"
        setsid sh "$0" hold "$dir" "$limit" "$within" "$@" </dev/null >/dev/null 2>&1 &
        echo "$mark began"
    fi
    exec 9>&-
    follow
}

# Says the last word.
last() {
    echo "$mark $1"
    exit 0
}

# Passes on what is printed until the step has ended.
follow() {
    is_over=false seen_out=0 seen_err=0
    trap 'is_over=true' TERM
    { flock "$dir/lock" true; kill -s TERM "$$"; } >/dev/null 2>&1 &
    while :; do
        was_over=$is_over
        pass "$dir/out" "$seen_out" && seen_out=$size
        pass "$dir/err" "$seen_err" >&2 && seen_err=$size
        "$was_over" && break
        sleep "$BETWEEN_LOOKS_S" &
        wait "$!"
    done
    # The last word stands on a line of its own.
    [ -z "$(tail -c 1 "$dir/out")" ] || echo
    last "$(cat "$dir/status" 2>/dev/null || echo 'broken what carried the script out was ended')"
}

# Prints what is in a file from a place on. Sets `size` to the place behind it.
pass() {
    size=$(wc -c <"$1")
    [ "$size" -le "$2" ] || tail -c "+$(($2 + 1))" "$1" | head -c "$((size - $2))"
}

# Carries a step out. The lock comes with descriptor 9, and is let go with this process.
hold() {
    dir=$1 limit=$2 within=$3
    shift 3
    cd "$dir/files" || exit 1
    # What the script makes is for the machine, unlike what this makes.
    umask 022
    if [ "$within" = - ]; then
        once "$dir/out" "$dir/err" "$@"
    else
        until_ready "$@"
    fi
    rm -rf "$dir/files"
    echo "$status" >"$dir/status.new"
    mv "$dir/status.new" "$dir/status"
}

# Runs the script in a session of its own until nothing is left of that. Sets `status`.
once() {
    out=$1 err=$2
    shift 2
    # Held while the script runs, and let go with this process at the latest.
    exec 7>"$dir/running"
    flock 7
    setsid "$@" </dev/null >>"$out" 2>>"$err" 7>&- 9>&- &
    session=$!
    echo "$session" >"$dir/session"
    (
        exec 7>&- 9>&-
        see_out "$session"
    ) >/dev/null 2>&1 &
    keeper=$!
    wait "$session"
    status="exit $?"
    exec 7>&-
    wait "$keeper"
    [ ! -e "$dir/ended" ] || status=$(cat "$dir/ended")
}

# Ends a session when its time is over, and what is left of it when its script has ended. The clock waits
# for the script's lock and so ends with it: one that has to be ended can be missed as it starts.
see_out() {
    if ! timeout "$limit" flock "$dir/running" true; then
        echo timed-out >"$dir/ended"
        # A script that has not become a session yet is found the next time.
        until flock -n "$dir/running" true; do
            sweep "$1" "$GRACE_DS"
            sleep 0.1
        done
    fi
    left=$LEAVE_DS
    while [ "$left" -gt 0 ] && [ ! -e "$dir/ended" ] && session_has "$1"; do
        left=$((left - 1))
        sleep 0.1
    done
    sweep "$1" "$LEFTOVER_GRACE_DS"
}

# Runs a script again and again until it succeeds, and keeps what it has printed last.
until_ready() {
    end=$(($(date +%s) + within)) tries=0
    while :; do
        : >"$dir/try.out"
        : >"$dir/try.err"
        once "$dir/try.out" "$dir/try.err" "$@"
        tries=$((tries + 1))
        # One that hangs may answer the next time.
        if [ "$status" = timed-out ]; then rm -f "$dir/ended"; fi
        case $status in "exit 0" | cancelled) break ;; esac
        if grep -q '^::fail' "$dir/try.out" "$dir/try.err"; then break; fi
        if [ "$(date +%s)" -ge "$end" ]; then
            status=not-ready
            break
        fi
        if [ "$tries" -lt 20 ]; then sleep 0.1; else sleep 0.5; fi
    done
    cat "$dir/try.out" >>"$dir/out"
    cat "$dir/try.err" >>"$dir/err"
}

# Whether a session has processes: with SIGNAL, sends it to them. Those that have ended do not count.
session_has() {
    wanted=$1 signal=${2:-} found=false
    for stat in /proc/[0-9]*/stat; do
        { read -r line <"$stat"; } 2>/dev/null || continue
        pid=${line%% *}
        # After the name, which may hold anything: state, parent, group, session.
        # shellcheck disable=SC2086 # They are words.
        set -- ${line##*) }
        if [ "$4" = "$wanted" ] && [ "$1" != Z ]; then
            found=true
            if [ -n "$signal" ]; then kill -s "$signal" "$pid" 2>/dev/null; fi
        fi
    done
    "$found"
}

# Ends all of a session: kindly at first, then not.
sweep() {
    session_has "$1" TERM || return 0
    left=$2
    while session_has "$1"; do
        if [ "$left" -le 0 ]; then session_has "$1" KILL; fi
        left=$((left - 1))
        sleep 0.1
    done
}

# Calls a step off, and returns when nothing of it runs any more.
cancel() {
    dir=$BASE/steps/$1
    [ -d "$dir" ] || exit 0
    until flock -n "$dir/lock" true; do
        echo cancelled >"$dir/ended"
        if [ -e "$dir/session" ]; then sweep "$(cat "$dir/session")" "$GRACE_DS"; fi
        sleep 0.1
    done
}

# Does once after each start of the node what a machine does when it boots.
arrive() {
    read -r line </proc/1/stat
    # shellcheck disable=SC2086 # They are words.
    set -- ${line##*) }
    # The time at which the first process was started.
    shift 19
    (
        flock 8
        [ "$(cat "$BASE/booted" 2>/dev/null)" != "$1" ] || exit 0
        # What was done was about processes that are gone, as are the files in /run.
        rm -rf "$BASE/steps"
        if [ -d /run/systemd/system ]; then
            await_systemd
        else
            find /run -xdev \( -type f -o -type s -o -type p \) -delete
        fi
        if [ ! -s /etc/machine-id ]; then
            head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >/etc/machine-id
            echo >>/etc/machine-id
            chmod 444 /etc/machine-id
        fi
        if command -v ssh-keygen >/dev/null && [ -d /etc/ssh ]; then ssh-keygen -A; fi
        echo "$1" >"$BASE/booted"
    ) 8>"$BASE/booting" >/dev/null 2>&1
}

# Waits until systemd has started everything, or has failed to, for at most 90 s.
await_systemd() {
    end=$(($(date +%s) + 90))
    until systemctl is-active --quiet multi-user.target || [ "$(date +%s)" -ge "$end" ]; do sleep 0.2; done
}

# Makes a node fit to be the image of others: nothing runs, and what must differ between machines is gone.
settle() {
    signal=TERM left=50
    while others "$signal"; do
        left=$((left - 1))
        if [ "$left" -le 0 ]; then signal=KILL; else signal=; fi
        sleep 0.1
    done
    find /run -xdev \( -type f -o -type s -o -type p \) -delete
    if [ -e /etc/machine-id ]; then : >/etc/machine-id; fi
    rm -f /var/lib/dbus/machine-id /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb
    rm -rf "$BASE/steps" "$BASE/booted" "$BASE/booting"
}

# Whether anything but this, the node's own process and what keeps that runs. Sends it a signal.
others() {
    signal=$1 found=false
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        { read -r line <"$process/stat"; } 2>/dev/null || continue
        # shellcheck disable=SC2086 # They are words.
        set -- ${line##*) }
        command=$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null)
        if [ "$1" = Z ] || [ "$pid" = 1 ] || [ "$pid" = "$$" ] || [ "$2" = "$$" ]; then continue; fi
        # Threads of the kernel have no command line, where they can be seen.
        if [ -z "$command" ] || [ "$command" = "sleep infinity " ]; then continue; fi
        found=true
        if [ -n "$signal" ]; then kill -s "$signal" "$pid" 2>/dev/null; fi
    done
    "$found"
}

"$@"

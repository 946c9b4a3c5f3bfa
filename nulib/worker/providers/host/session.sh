# Runs one script on a machine, as root, for whoever is at the other end of standard input.
#
#     sh session.sh session MARK DIRECTORY FILES HEADER
#
# Standard input holds, one after the other: the files as a tar archive (FILES blocks of 10240 bytes),
# the header (HEADER blocks of 512 bytes), and then a dot every few seconds for as long as there is
# somebody at the other end. The header is shell text that sets `name`, `script`, `environment` and
# `complete`. What it holds is never an argument of a process and never on a disk.
#
# Every line that begins with MARK is for the provider: `lacks TOOL`, `broken WHAT`, `begin`, and
# `exit STATUS` at the end. All else is the script's own output.
set -u

# Longer than this without a dot, and the other end is gone.
SILENCE_S=30

# How long the script has to end when it is told to.
GRACE_S=10

# How long what the script has left in the pipes may take when the script itself has ended. A daemon
# that keeps the script's output open must not keep the session open.
DRAIN_S=3

# Where the locks are. Only root can write there, so nobody else can hold one.
LOCKS=/run/orchestrator

session() {
    mark=$1 dir=$2
    trap 'rm -rf "$dir"' EXIT
    for tool in dd flock mkfifo setsid tar timeout; do
        command -v "$tool" >/dev/null 2>&1 || end "lacks $tool"
    done
    { mkdir "$dir/files" && dd bs=10240 count="$3" iflag=fullblock 2>/dev/null | tar -xof - -C "$dir/files"; } ||
        end "broken the files could not be unpacked in $dir"
    header=$(dd bs=512 count="$4" iflag=fullblock 2>/dev/null)
    # A header that was cut short must not be read as shell text.
    case $header in *"complete=yes") ;; *) end "broken the connection ended before everything had arrived" ;; esac
    { mkdir -p -m 700 "$LOCKS" && mkfifo -m 600 "$dir/out" "$dir/err"; } || end "broken the lock could not be made in $LOCKS"

    # The shell gives a background process no standard input unless it is told to.
    exec 3<&0
    cat <"$dir/out" 3<&- &
    out=$!
    cat <"$dir/err" >&2 3<&- &
    err=$!
    printf '%s\n' "$header" | setsid sh "$dir/session.sh" hold "$mark" "$dir" "$LOCKS" >"$dir/out" 2>"$dir/err" 3<&- &
    group=$!
    watch "$group" <&3 >/dev/null 2>&1 &
    watcher=$!
    wait "$group" 2>/dev/null
    status=$?
    { sleep "$DRAIN_S" && kill "$out" "$err"; } >/dev/null 2>&1 3<&- &
    drain=$!
    wait "$out" "$err" 2>/dev/null
    kill "$drain" "$watcher" 2>/dev/null
    if [ -e "$dir/ended" ]; then end "broken the script was ended because nobody was at the other end any more"; fi
    end "exit $status"
}

# Says the last word and ends. Where nobody listens any more the directory has to go all the same.
end() {
    trap '' PIPE
    printf '%s %s\n' "$mark" "$1"
    exit 0
}

# Waits for the other end to go away, and ends the script then.
watch() {
    while [ "$(timeout "$SILENCE_S" dd bs=1 count=1 2>/dev/null)" = . ]; do :; done
    : >"$dir/ended"
    kill -s TERM -- "-$1"
    waited=0
    while [ "$waited" -lt "$GRACE_S" ] && kill -s 0 -- "-$1"; do
        sleep 1
        waited=$((waited + 1))
    done
    kill -s KILL -- "-$1"
}

# Holds the lock of what is run, and runs it. This is the head of a process group: whoever ends the
# script ends the group.
hold() {
    mark=$1 dir=$2 locks=$3
    eval "$(cat)"
    exec </dev/null
    # The lock is let go when the script is gone, not before.
    trap : TERM
    exec 9>"$locks/$name.lock"
    if ! flock -n 9; then
        echo "waiting: '$name' is being run on this machine already"
        flock 9 || exit 1
    fi
    cd "$dir/files" || exit 1
    # What the script makes is for the machine, unlike what this session makes.
    umask 022
    printf '%s begin\n' "$mark"
    # The lock is not handed on: a daemon that the script starts would keep it.
    (
        eval "$environment"
        exec sh "./$script"
    ) 9>&-
    exit
}

"$@"

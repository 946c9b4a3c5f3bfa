# Runs a command that speaks to session.sh, and feeds it what session.sh reads.
#
#     sh feed.sh DIRECTORY COMMAND…
#
# DIRECTORY holds the files `session` and `files`; the header is standard input, so that it never is in a
# file. The dots after them say that this end is still there.
dir=$1
shift
mkfifo -m 600 "$dir/in" || exit 1
# The shell gives a background process no standard input unless it is told to.
exec 3<&0
{
    cat "$dir/session" "$dir/files" - <&3
    while printf .; do sleep 2; done
} >"$dir/in" 2>/dev/null </dev/null &
feeder=$!
"$@" <"$dir/in" 3<&-
kill "$feeder" 2>/dev/null
exit 0

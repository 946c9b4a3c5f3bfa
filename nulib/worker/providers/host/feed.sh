# Runs a command that speaks to session.sh, and feeds it what session.sh reads.
#
#     sh feed.sh DIRECTORY COMMAND…
#
# DIRECTORY holds the files `session`, `files` and `header`. The dots after them say that this end is
# still there. The exit status of the command is written to the file `status`.
dir=$1
shift
mkfifo -m 600 "$dir/in" || exit 1
{
    cat "$dir/session" "$dir/files" "$dir/header"
    while printf .; do sleep 2; done
} >"$dir/in" 2>/dev/null </dev/null &
feeder=$!
"$@" <"$dir/in"
echo $? >"$dir/status"
kill "$feeder" 2>/dev/null
exit 0

# Makes cgroups usable for containers in a container, for a script that reads this file with `.`. On a
# machine of its own, and where systemd runs, there is nothing to do.

# Whether a mount is read-only.
is_read_only() { findmnt --noheadings --output OPTIONS "$1" | grep -qE '(^|,)ro(,|$)'; }

prepare_cgroups() {
    [ ! -d /run/systemd/system ] || return 0
    # A container that has the right to mount, but is not called privileged, has them read-only.
    for mount in /sys/fs/cgroup $(findmnt --noheadings --list --output TARGET --types cgroup); do
        if mountpoint -q "$mount" && is_read_only "$mount"; then
            mount -o remount,bind,rw "$mount" || return 1
        fi
    done
    # With cgroup v2 a group that has processes cannot hand out controllers. Ours is the root of what
    # is seen here, so its processes move into one of their own.
    root=/sys/fs/cgroup
    if [ "$(cat "$root/cgroup.type" 2>/dev/null)" = domain ] && [ -n "$(cat "$root/cgroup.controllers")" ] &&
        [ -z "$(cat "$root/cgroup.subtree_control")" ]; then
        mkdir -p "$root/taskserv"
        # Others may begin in between: then it is done once more.
        for _ in 1 2 3 4 5; do
            while read -r process; do
                # One that has ended meanwhile need not be moved.
                echo "$process" >"$root/taskserv/cgroup.procs" || true
            done <"$root/cgroup.procs" 2>/dev/null
            sed 's/ / +/g; s/^/+/' "$root/cgroup.controllers" 2>/dev/null >"$root/cgroup.subtree_control" && return 0
        done
        return 1
    fi
}

# What the scripts know of containerd, for those that read this file with `.`.

# shellcheck disable=SC2034 # Read by service.sh and by the scripts.
service=containerd
# shellcheck disable=SC2034
program=/usr/bin/containerd
# Where containerd keeps images and what is unpacked of them.
state=/var/lib/containerd

# Fails for good: trying again would not help.
refuse() {
    echo "::fail permanent $*"
    exit 1
}

# Whether the kernel lays directories on top of each other where containerd keeps its own. It does not
# on top of what is laid so itself, such as the file system of most containers.
overlay_works() {
    mkdir -p "$state"
    probe=$(mktemp -d "$state/overlay-probe-XXXXXX")
    mkdir "$probe/lower" "$probe/upper" "$probe/work" "$probe/merged"
    works=1
    if mount -t overlay overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" "$probe/merged" 2>/dev/null; then
        umount "$probe/merged"
        works=0
    fi
    rm -rf "$probe"
    return "$works"
}

# The snapshotter that is asked for, or the best that works here.
snapshotter() {
    if [ "$TASKSERV_PARAM_SNAPSHOTTER" != auto ]; then
        echo "$TASKSERV_PARAM_SNAPSHOTTER"
    elif overlay_works; then
        echo overlayfs
    else
        echo native
    fi
}

#!/bin/sh
# Verifies that containerd runs a container: of an image that is made on the spot, so that no registry is
# needed, in a namespace of its own, of which nothing stays.
set -eu
# shellcheck source=service.sh
. ./service.sh
# shellcheck source=runtime.sh
. ./runtime.sh

# The last line of what was said: ctr says the cause there.
last_line() { printf '%s\n' "$1" | tail -n 1; }

command -v ctr >/dev/null || refuse "containerd is not installed"
[ -x /bin/busybox ] || refuse "busybox-static, which the image is made of, is not installed"
is_running || refuse "containerd does not run: $(last_words)"

name=taskserv-verify-$$
image=taskserv.local/verify:$$
snapshotter=$(snapshotter)
work=$(mktemp -d)

ask() { timeout 30 ctr --namespace "$name" "$@"; }

clear_away() {
    {
        ask tasks delete --force "$name"
        ask containers delete "$name"
        ask snapshots --snapshotter "$snapshotter" delete "$name"
        ask images delete --sync "$image"
        ctr namespaces remove "$name"
    } >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap clear_away EXIT

# An archive as `docker save` writes it: a layer with one program, and what they are.
architecture=$(dpkg --print-architecture)
[ "$architecture" != armhf ] || architecture=arm
mkdir -p "$work/root/bin"
cp /bin/busybox "$work/root/bin/"
tar -C "$work/root" -cf "$work/layer.tar" bin
digest=$(sha256sum "$work/layer.tar")
cat >"$work/config.json" <<END
{"architecture": "$architecture", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:${digest%% *}"]}}
END
cat >"$work/manifest.json" <<END
[{"Config": "config.json", "RepoTags": ["$image"], "Layers": ["layer.tar"]}]
END
tar -C "$work" -cf "$work/image.tar" manifest.json config.json layer.tar
answer=$(ask images import --snapshotter "$snapshotter" "$work/image.tar" 2>&1) || refuse "containerd does not take an image: $(last_line "$answer")"

# What it prints, as which process, and what it sees of the file system: its own.
value=$(date +%s%N)
# shellcheck disable=SC2016 # For the shell inside.
answer=$(ask run --rm --snapshotter "$snapshotter" "$image" "$name" \
    /bin/busybox sh -c 'echo "$1 $$ $(/bin/busybox ls /bin)"' sh "$value" 2>&1) || refuse "containerd does not run a container: $(last_line "$answer")"
[ "$answer" = "$value 1 busybox" ] || refuse "the container says '$answer', not '$value 1 busybox'"

version=$(ctr version | sed -n '/^Server/,$s/ *Version: *//p')
echo "::result {\"ran\": \"$image\", \"snapshotter\": \"$snapshotter\", \"version\": \"$version\"}"

# What is installed without a network, for scripts that read this file with `.`, after apt.sh: a bundle,
# which is a directory on the server. What must be in it is in docs/user/taskservs.md.

# The value of a parameter; nothing where it is `none`.
given() { [ "$1" = none ] || echo "$1"; }

# Refuses a bundle that is not there, is not whole, or has what nobody vouches for.
check_bundle() {
    [ -d "$1" ] || refuse "there is no bundle $1 on this server"
    sums=$1/SHA256SUMS
    [ -f "$sums" ] || refuse "the bundle $1 has no SHA256SUMS"
    ! grep -qvE '^[0-9a-f]{64} [ *][A-Za-z0-9._+~:%@=-][A-Za-z0-9._+~:%@=/-]*$' "$sums" || refuse "$sums is not what sha256sum prints of files of the bundle"
    ! grep -qE '(^|[ */])\.\.(/|$)' "$sums" || refuse "$sums names a file outside of the bundle"
    listed=$(sed 's/^[0-9a-f]* [ *]//; s,^\./,,' "$sums" | sort)
    there=$(cd "$1" && find . -type f ! -path ./SHA256SUMS | sed 's,^\./,,' | sort)
    for file in $listed; do
        [ -f "$1/$file" ] || refuse "the bundle $1 has no $file, which its SHA256SUMS names"
    done
    extra=$(printf '%s\n' "$there" | grep -vxF -e "$listed" | head -n 1 || true)
    [ -z "$extra" ] || refuse "the bundle $1 has $extra, which its SHA256SUMS does not name"
    wrong=$({ cd "$1" && sha256sum --check --quiet SHA256SUMS 2>/dev/null; } | head -n 1)
    [ -z "$wrong" ] || refuse "the bundle $1 is damaged: ${wrong%%: *} is not what its SHA256SUMS says"
}

# Gives the images of a bundle to containerd, once. Sets `changed` to `true` where it did something.
import_images() {
    # Beside the images, so that it goes with them.
    done_file=/var/lib/containerd/taskserv-$TASKSERV_NAME-images
    sum=$(sha256sum "$1/SHA256SUMS")
    [ "$(cat "$done_file" 2>/dev/null)" != "${sum%% *}" ] || return 0
    # It may be another than that which was checked when it was installed.
    check_bundle "$1"
    for archive in "$1"/images/*.tar; do
        [ -e "$archive" ] || continue
        answer=$(ctr --namespace k8s.io images import "$archive" 2>&1) ||
            refuse "containerd does not take ${archive##*/}: $(printf '%s\n' "$answer" | tail -n 1)"
    done
    echo "${sum%% *}" >"$done_file"
    # shellcheck disable=SC2034 # The scripts say it.
    changed=true
}

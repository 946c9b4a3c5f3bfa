#!/bin/sh
# Installs kubeadm, kubelet and kubectl: from a bundle, or from pkgs.k8s.io. Sets nothing up.
set -eu
# shellcheck source=apt.sh
. ./apt.sh
# shellcheck source=bundle.sh
. ./bundle.sh
# shellcheck source=upstream.sh
. ./upstream.sh

packages="kubeadm kubelet kubectl kubernetes-cni cri-tools"
wanted=$TASKSERV_PARAM_VERSION
bundle=$(given "$TASKSERV_PARAM_BUNDLE")
changed=false

# The version of an installed package; nothing where it is not.
version_of() {
    ! is_installed "$1" || dpkg-query --show --showformat '${Version}' "$1"
}

echo "$wanted" | grep -qxE '1\.[0-9]{1,3}' || refuse "version must be a minor version such as 1.32, not '$wanted'"
if [ -n "$bundle" ]; then
    check_bundle "$bundle"
    architecture=$(dpkg --print-architecture)
    for name in $packages; do
        version=
        for file in "$bundle"/packages/*.deb; do
            [ -e "$file" ] || continue
            # shellcheck disable=SC2016 # A format of dpkg-deb's.
            about=$(dpkg-deb --show --showformat '${Package} ${Architecture} ${Version}' "$file") || refuse "$file is no package"
            case $about in
            "$name $architecture "* | "$name all "*) version=${about##* } ;;
            esac
        done
        [ -n "$version" ] || refuse "the bundle $bundle has no package $name for $architecture in packages/"
        [ "$name" != kubeadm ] || wanted=$(echo "$version" | cut -d. -f1,2)
    done
    ls "$bundle"/images/*.tar >/dev/null 2>&1 || refuse "the bundle $bundle has no images/*.tar"
fi
is_here=$(version_of kubeadm)
case $is_here in
'' | "$wanted".*) ;;
*) refuse "Kubernetes $is_here is here, and $wanted is asked for: upgrade it as its documentation says" ;;
esac

missing=
for name in $packages; do is_installed "$name" || missing="$missing $name"; done
if [ -n "$missing" ] && [ -n "$bundle" ]; then
    # What they depend on comes from the bundle too, or from the distribution.
    files=$(cd "$bundle" && find "$PWD/packages" -name '*.deb')
    # shellcheck disable=SC2086 # Names of packages and files are words.
    { apt_install conntrack iptables && apt install --no-install-recommends $files; } || {
        echo "::fail the packages of the bundle cannot be installed"
        exit 1
    }
    changed=true
elif [ -n "$missing" ]; then
    find_upstream pkgs.k8s.io
    apt_install ca-certificates
    key=/etc/apt/keyrings/taskserv-kubernetes.asc
    list=/etc/apt/sources.list.d/taskserv-kubernetes.list
    source=https://pkgs.k8s.io/core:/stable:/v$wanted/deb/
    mkdir -p "${key%/*}"
    fetch "${source}Release.key" "$key.new" 15 || refuse_upstream "${source}Release.key"
    mv "$key.new" "$key"
    chmod 644 "$key"
    echo "deb [signed-by=$key] $source /" >"$list"
    apt update
    # shellcheck disable=SC2086
    apt_install conntrack iptables $packages
    changed=true
fi
# An upgrade of everything else must not upgrade a cluster by the way.
apt-mark hold kubeadm kubelet kubectl >/dev/null
echo "::result {\"changed\": $changed}"

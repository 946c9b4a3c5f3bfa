#!/bin/sh
# Gets what brings Cilium to the cluster: checks the bundle, or fetches the program `cilium`. A worker has
# nothing to get: the control plane brings it there.
set -eu
# shellcheck source=apt.sh
. ./apt.sh
# shellcheck source=bundle.sh
. ./bundle.sh
# shellcheck source=upstream.sh
. ./upstream.sh

bundle=$(given "$TASKSERV_PARAM_BUNDLE")
program=/usr/local/bin/cilium
changed=false

if [ -n "$bundle" ]; then
    check_bundle "$bundle"
    ls "$bundle"/images/*.tar >/dev/null 2>&1 || refuse "the bundle $bundle has no images/*.tar"
    [ "$TASKSERV_ROLE" = worker ] || [ -s "$bundle/cilium.yaml" ] || refuse "the bundle $bundle has no cilium.yaml"
elif [ "$TASKSERV_ROLE" = controlplane ]; then
    for value in "$TASKSERV_PARAM_VERSION" "$TASKSERV_PARAM_CLI_VERSION"; do
        echo "$value" | grep -qxE '[0-9]+\.[0-9]+\.[0-9]+' || refuse "'$value' is no version such as 1.16.5"
    done
    if ! "$program" version --client 2>/dev/null | grep -q "v$TASKSERV_PARAM_CLI_VERSION "; then
        find_upstream github.com
        # From there it comes later.
        find_upstream helm.cilium.io
        apt_install ca-certificates
        archive=cilium-linux-$(dpkg --print-architecture).tar.gz
        source=https://github.com/cilium/cilium-cli/releases/download/v$TASKSERV_PARAM_CLI_VERSION
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        fetch "$source/$archive.sha256sum" "$work/$archive.sha256sum" 15 || refuse_upstream "$source/$archive.sha256sum"
        fetch "$source/$archive" "$work/$archive" 500 || refuse_upstream "$source/$archive"
        (cd "$work" && sha256sum --check --quiet "$archive.sha256sum") || refuse "$archive is not what its makers have published"
        tar -C "$work" -xzf "$work/$archive" cilium
        install -m 755 "$work/cilium" "$program"
        changed=true
    fi
fi
echo "::result {\"changed\": $changed}"

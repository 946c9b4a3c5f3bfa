#!/bin/sh
# Brings Cilium to the cluster, or gives a worker the images of the bundle.
set -eu
# shellcheck source=bundle.sh
. ./bundle.sh
# shellcheck source=node.sh
. ./node.sh

bundle=$(given "$TASKSERV_PARAM_BUNDLE")
changed=false

require_node
[ -z "$bundle" ] || import_images "$bundle"
if [ "$TASKSERV_ROLE" = controlplane ] && [ -n "$bundle" ]; then
    check_bundle "$bundle"
    # 0: it is as described, 1: it is not, others: it cannot be said.
    status=0
    ask diff --filename "$bundle/cilium.yaml" >/dev/null 2>&1 || status=$?
    if [ "$status" != 0 ]; then
        ask apply --filename "$bundle/cilium.yaml"
        changed=true
    fi
elif [ "$TASKSERV_ROLE" = controlplane ]; then
    image=$(ask --namespace kube-system get daemonset cilium --ignore-not-found --output 'jsonpath={.spec.template.spec.containers[0].image}')
    case $image in
    *:v"$TASKSERV_PARAM_VERSION"*) ;;
    *)
        if [ -z "$image" ]; then action=install; else action=upgrade; fi
        # Pods get addresses from the range that Kubernetes was set up with.
        cilium "$action" --version "$TASKSERV_PARAM_VERSION" --set ipam.mode=kubernetes
        changed=true
        ;;
    esac
fi
echo "::result {\"changed\": $changed}"

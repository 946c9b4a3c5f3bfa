#!/bin/sh
# Verifies that this node is part of the cluster and that its kubelet reports; on the control plane, that
# all its parts run and that the API keeps what it is given. That pods reach each other is for their
# network to verify: until there is one, a node that lacks nothing else is good enough.
set -eu
# shellcheck source=node.sh
. ./node.sh

last_line() { printf '%s\n' "$1" | tail -n 1; }

command -v kubectl >/dev/null || refuse "Kubernetes is not installed"
[ -e "$finished" ] || refuse "this server is not part of a cluster that this taskserv has set up"

if [ "$TASKSERV_ROLE" = controlplane ]; then
    answer=$(ask get --raw /readyz 2>&1) || refuse "the API is not ready: $(last_line "$answer")"
    for part in etcd kube-apiserver kube-controller-manager kube-scheduler; do
        phase=$(ask --namespace kube-system get pod "$part-$TASKSERV_SERVER" --output 'jsonpath={.status.phase}' 2>&1) || refuse "$part does not run: $(last_line "$phase")"
        [ "$phase" = Running ] || refuse "$part does not run: it is $phase"
    done
    name=taskserv-verify-$$
    value=$(date +%s%N)
    trap 'ask --namespace default delete configmap "$name" >/dev/null 2>&1 || true' EXIT
    answer=$(ask --namespace default create configmap "$name" --from-literal "value=$value" 2>&1) || refuse "the API does not take a value: $(last_line "$answer")"
    answer=$(ask --namespace default get configmap "$name" --output 'jsonpath={.data.value}' 2>&1) || refuse "the API does not give back a value: $(last_line "$answer")"
    [ "$answer" = "$value" ] || refuse "the API gives back '$answer' for '$value'"
fi

ready=$(ask get node "$TASKSERV_SERVER" --output 'jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.nodeInfo.kubeletVersion} {.status.conditions[?(@.type=="Ready")].message}' 2>&1) ||
    refuse "the cluster does not know this node: $(last_line "$ready")"
case $ready in
'True v'*) is_ready=true ;;
'False v'*etwork*lugin*not*) is_ready=false ;;
*) refuse "this node is not ready: $ready" ;;
esac
echo "::result {\"role\": \"$TASKSERV_ROLE\", \"version\": \"$(echo "$ready" | awk '{ print $2 }')\", \"node_ready\": $is_ready}"

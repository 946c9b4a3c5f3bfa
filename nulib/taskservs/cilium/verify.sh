#!/bin/sh
# Verifies that nodes have a network: every node is ready, its agent says that all is well with it, and
# the cluster's DNS runs, whose pods need addresses and the API to do so. A worker verifies its own node.
set -eu
# shellcheck source=node.sh
. ./node.sh

last_line() { printf '%s\n' "$1" | tail -n 1; }

require_node
list=$(nodes 2>&1) || refuse "the API does not list its nodes: $(last_line "$list")"
[ -n "$list" ] || refuse "the cluster has no nodes"
waiting=$(echo "$list" | not_ready)
[ -z "$waiting" ] || refuse "without a network: $waiting"
if [ "$TASKSERV_ROLE" = worker ]; then
    echo "::result {\"role\": \"worker\", \"node_ready\": true}"
    exit 0
fi

agents=$(ask --namespace kube-system get pods --selector k8s-app=cilium --field-selector status.phase=Running --output 'jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}' 2>&1) || refuse "the API does not list Cilium's agents: $(last_line "$agents")"
count=$(echo "$list" | wc -l)
running=$(echo "$agents" | grep -c . || true)
[ "$running" = "$count" ] || refuse "Cilium's agent runs on $running of $count nodes"
for agent in $agents; do
    answer=$(ask --namespace kube-system exec "$agent" --container cilium-agent -- cilium-dbg status --brief 2>&1) || refuse "$agent is not well: $(last_line "$answer")"
done
answer=$(kubectl --namespace kube-system rollout status deployment/coredns --timeout 90s 2>&1) || refuse "the cluster's DNS does not run: $(last_line "$answer")"
image=$(ask --namespace kube-system get daemonset cilium --output 'jsonpath={.spec.template.spec.containers[0].image}')
image=${image%%@*}
echo "::result {\"role\": \"controlplane\", \"nodes\": $count, \"version\": \"${image##*:}\"}"

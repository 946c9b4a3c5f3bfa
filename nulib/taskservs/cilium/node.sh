# What is known of this node, for scripts that read this file with `.`.

# Fails for good: trying again would not help.
refuse() {
    echo "::fail permanent $*"
    exit 1
}

# Asks the API, with what this node has to do so.
if [ "$TASKSERV_ROLE" = controlplane ]; then config=admin.conf; else config=kubelet.conf; fi
export KUBECONFIG=/etc/kubernetes/$config
ask() { kubectl --request-timeout 10s "$@"; }

# What makes this node part of a cluster.
require_node() {
    command -v kubectl >/dev/null || refuse "Kubernetes is not installed"
    [ -e "$KUBECONFIG" ] || refuse "this server is no $TASKSERV_ROLE of a Kubernetes"
}

# The nodes and whether they are ready, one a line: NAME STATUS. A worker may ask for its own only.
nodes() {
    line='{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}'
    if [ "$TASKSERV_ROLE" = controlplane ]; then
        ask get nodes --output "jsonpath={range .items[*]}$line{\"\\n\"}{end}"
    else
        ask get node "$TASKSERV_SERVER" --output "jsonpath=$line"
    fi
}

# Which of such lines are of nodes that are not ready, with blanks between them.
not_ready() { awk '$2 != "True" { print $1 }' | paste -s -d ' ' -; }

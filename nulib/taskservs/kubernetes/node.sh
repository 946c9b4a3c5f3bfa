# What is known of this node, for scripts that read this file with `.`.

# What the scripts have set up here: begun, and done. Nothing of anybody else's is touched.
# shellcheck disable=SC2034 # Read by the scripts.
begun=/etc/kubernetes/taskserv-begun
# shellcheck disable=SC2034
finished=/etc/kubernetes/taskserv-finished
# shellcheck disable=SC2034
socket=unix:///run/containerd/containerd.sock

# Fails for good: trying again would not help.
refuse() {
    echo "::fail permanent $*"
    exit 1
}

# The peers with a role, one a line: NAME ADDRESS ROLE.
peers_with_role() {
    echo "$TASKSERV_PEERS" | awk -v role="$1" '$3 == role'
}

# Asks the API, with what this node has to do so.
ask() {
    if [ "$TASKSERV_ROLE" = controlplane ]; then config=admin.conf; else config=kubelet.conf; fi
    kubectl --kubeconfig "/etc/kubernetes/$config" --request-timeout 10s "$@"
}

# An IPv4 address of this server that others can use; nothing where only the loopback one is known.
own_ip() {
    timeout 5 getent ahostsv4 "${TASKSERV_ADDRESS:-$TASKSERV_SERVER}" | awk '$1 !~ /^127\./ { print $1; exit }'
}

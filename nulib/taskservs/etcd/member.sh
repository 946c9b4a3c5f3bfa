# What is known of this member, for scripts that read this file with `.`.

# shellcheck disable=SC2034 # Read by service.sh and by the scripts.
service=etcd
# shellcheck disable=SC2034
program=/usr/bin/etcd
# The package starts a cluster of one in its own directory where it may: ours is another.
# shellcheck disable=SC2034
data=/var/lib/etcd/taskserv
export ETCDCTL_API=3

# Fails for good: trying again would not help.
refuse() {
    echo "::fail permanent $*"
    exit 1
}

# The address at which others reach this server.
own_address=${TASKSERV_ADDRESS:-$TASKSERV_SERVER}

# A URL of an address and a port.
url() {
    case $1 in
    *:*) echo "http://[$1]:$2" ;;
    *) echo "http://$1:$2" ;;
    esac
}

# All members that there should be, one a line: NAME URL. The first is this one.
members() {
    echo "$TASKSERV_SERVER $(url "$own_address" "$TASKSERV_PARAM_PEER_PORT")"
    echo "$TASKSERV_PEERS" | while read -r name address _; do
        [ -z "$name" ] || echo "$name $(url "$address" "$TASKSERV_PARAM_PEER_PORT")"
    done
}

# Asks this member, and nobody else.
ask() {
    etcdctl --endpoints "http://127.0.0.1:$TASKSERV_PARAM_PORT" --dial-timeout 2s --command-timeout 4s "$@"
}

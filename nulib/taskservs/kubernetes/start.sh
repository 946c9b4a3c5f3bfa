#!/bin/sh
# Makes this server the control plane, or has it join the one that it is told of.
#
# Nothing is handed from one server to another: the token that workers join with is a parameter, the
# same on all of them, and the control plane's address is known from the settings. A worker that comes
# first waits.
set -eu
# shellcheck source=bundle.sh
. ./bundle.sh
# shellcheck source=node.sh
. ./node.sh

token=$(given "$TASKSERV_PARAM_TOKEN")
ca_cert_hash=$(given "$TASKSERV_PARAM_CA_CERT_HASH")
bundle=$(given "$TASKSERV_PARAM_BUNDLE")
changed=false

command -v kubeadm >/dev/null || refuse "Kubernetes is not installed"
[ -d /run/systemd/system ] || refuse "Kubernetes needs systemd, which does not run here"
[ -S "${socket#unix://}" ] || refuse "containerd does not run"
if [ -n "$token" ]; then
    # Not in logs, not even where kubeadm prints it.
    echo "::mask $token"
    echo "$token" | grep -qxE '[a-z0-9]{6}\.[a-z0-9]{16}' || refuse "token must be 6 letters or digits, a dot, and 16 more"
fi
masters=$(peers_with_role controlplane)
workers=$(peers_with_role worker)
if [ "$TASKSERV_ROLE" = controlplane ]; then
    [ -z "$masters" ] || refuse "$TASKSERV_SERVER and ${masters%% *} both have the role controlplane: there can be one"
    [ -z "$workers" ] || [ -n "$token" ] || refuse "there are workers: \`token\` must say what they join with"
else
    [ "$(echo "$masters" | grep -c .)" = 1 ] || refuse "a worker needs one other server with the role controlplane, and there are $(echo "$masters" | grep -c .)"
    [ -n "$token" ] || refuse "\`token\` must say what a worker joins with: the same as on the control plane"
fi

[ -z "$bundle" ] || import_images "$bundle"

# What kubeadm looks for. A module that is built into the kernel, or that was loaded for a container from
# outside, need not be loaded.
modprobe br_netfilter 2>/dev/null || true
for name in ipv4/ip_forward bridge/bridge-nf-call-iptables; do
    [ ! -e "/proc/sys/net/$name" ] || [ "$(cat "/proc/sys/net/$name")" = 1 ] || echo 1 >"/proc/sys/net/$name"
done
printf '%s\n' "# Written by the taskserv kubernetes." "net.ipv4.ip_forward = 1" >/etc/sysctl.d/90-taskserv-kubernetes.conf

ip=$(own_ip)
wanted="# Written by the taskserv kubernetes.
KUBELET_EXTRA_ARGS=--fail-swap-on=false${ip:+ --node-ip=$ip}"
if [ "$(cat /etc/default/kubelet 2>/dev/null)" != "$wanted" ]; then
    printf '%s\n' "$wanted" >/etc/default/kubelet
    systemctl try-restart kubelet
    changed=true
fi

if [ ! -e "$finished" ]; then
    if [ -e "$begun" ]; then
        echo "beginning again what was broken off"
        kubeadm reset --force --cri-socket "$socket"
    elif [ -e /etc/kubernetes/kubelet.conf ] || [ -e /etc/kubernetes/admin.conf ]; then
        refuse "this server is part of a Kubernetes that others have set up: it is left alone"
    fi
    mkdir -p "${begun%/*}"
    touch "$begun"
    # A container cannot say how its kernel was built, and swap is dealt with above.
    set -- --cri-socket "$socket" --node-name "$TASKSERV_SERVER" --ignore-preflight-errors Swap,SystemVerification
    if [ "$TASKSERV_ROLE" = controlplane ]; then
        # The version is said so that kubeadm does not ask the network for the newest.
        kubeadm init "$@" --kubernetes-version "$(kubeadm version --output short)" \
            --pod-network-cidr "$TASKSERV_PARAM_POD_NETWORK" \
            --apiserver-cert-extra-sans "${TASKSERV_ADDRESS:-$TASKSERV_SERVER}" \
            ${ip:+--apiserver-advertise-address "$ip"} ${token:+--token "$token"}
    else
        if [ -n "$ca_cert_hash" ]; then
            set -- "$@" --discovery-token-ca-cert-hash "$ca_cert_hash"
        else
            set -- "$@" --discovery-token-unsafe-skip-ca-verification
        fi
        address=$(echo "$masters" | awk '{ print $2 }')
        kubeadm join "$address:6443" "$@" --token "$token"
    fi
    touch "$finished"
    changed=true
fi

if ! systemctl --quiet is-active kubelet; then
    systemctl start kubelet
    changed=true
fi
if [ "$TASKSERV_ROLE" = controlplane ]; then
    # Tokens expire, and a worker may come after that.
    if [ -n "$workers" ] && ! kubeadm --kubeconfig /etc/kubernetes/admin.conf token list | grep -qF "$token"; then
        kubeadm --kubeconfig /etc/kubernetes/admin.conf token create "$token" >/dev/null
    fi
    # Alone, it runs what others would.
    [ -n "$workers" ] || ask taint nodes "$TASKSERV_SERVER" node-role.kubernetes.io/control-plane:NoSchedule- >/dev/null 2>&1 || true
fi
echo "::result {\"changed\": $changed}"

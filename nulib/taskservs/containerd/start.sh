#!/bin/sh
# Writes the settings of containerd and starts it, or starts it anew where it runs with others.
# Containers that run go on meanwhile.
set -eu
# shellcheck source=service.sh
. ./service.sh
# shellcheck source=runtime.sh
. ./runtime.sh
# shellcheck source=cgroups.sh
. ./cgroups.sh

settings=/etc/containerd/config.toml
# What the running one was started with.
mark=/run/taskserv-containerd.conf
changed=false

[ -x "$program" ] || refuse "containerd is not installed"
unshare --mount true 2>/dev/null || refuse "containers cannot be run here: this server may not mount anything. If it is a container itself, it must be a privileged one, or have the capability SYS_ADMIN and no profile of seccomp or AppArmor that forbids its use"
prepare_cgroups || refuse "containers cannot be run here: the cgroups cannot be written"
case $TASKSERV_PARAM_SANDBOX_IMAGE in
*[!A-Za-z0-9._/:@-]* | '') refuse "sandbox_image must be the name of an image, not '$TASKSERV_PARAM_SANDBOX_IMAGE'" ;;
esac

if has_systemd; then systemd=true; else systemd=false; fi
# /opt/cni/bin is where Kubernetes and its networks put their programs.
cri='plugins."io.containerd.grpc.v1.cri"'
wanted="# Written by the taskserv containerd.
version = 2

[$cri]
  sandbox_image = \"$TASKSERV_PARAM_SANDBOX_IMAGE\"

[$cri.containerd]
  snapshotter = \"$(snapshotter)\"

[$cri.containerd.runtimes.runc]
  runtime_type = \"io.containerd.runc.v2\"

[$cri.containerd.runtimes.runc.options]
  SystemdCgroup = $systemd

[$cri.cni]
  bin_dir = \"/opt/cni/bin\"
  conf_dir = \"/etc/cni/net.d\"

[plugins.\"io.containerd.internal.v1.opt\"]
  path = \"$state/opt\""
if [ "$(cat "$settings" 2>/dev/null)" != "$wanted" ]; then
    mkdir -p "${settings%/*}"
    # Somebody else's is kept.
    if [ -e "$settings" ] && ! grep -q '^# Written by the taskserv' "$settings"; then
        mv "$settings" "$settings.before-taskserv"
    fi
    printf '%s\n' "$wanted" >"$settings.new"
    mv "$settings.new" "$settings"
    changed=true
fi

if is_running && ! cmp -s "$settings" "$mark"; then
    echo "containerd runs with other settings: it is started anew"
    stop_it
fi
if ! is_running; then
    start_it root
    cp "$settings" "$mark"
    changed=true
fi
echo "::result {\"changed\": $changed}"

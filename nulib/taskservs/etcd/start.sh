#!/bin/sh
# Writes the settings of this member and starts it, or starts it anew where it runs with others.
#
# All members are given the same list of members at their first start, and need nobody to find each
# other. A member that has data knows its cluster from there, and joins it again.
set -eu
# shellcheck source=service.sh
. ./service.sh
# shellcheck source=member.sh
. ./member.sh

# Always in force, and at the first start only.
settings=/etc/default/etcd-taskserv
first=/etc/default/etcd-taskserv-first
# What the running member was started with.
mark=/run/taskserv-etcd.conf
changed=false

[ -x "$program" ] || refuse "etcd is not installed"

port=$TASKSERV_PARAM_PORT
clients=$(url 127.0.0.1 "$port")
advertised=$clients
case $TASKSERV_PARAM_LISTEN in
127.*) ;;
0.0.0.0) clients=$(url "$TASKSERV_PARAM_LISTEN" "$port") advertised=$(url "$own_address" "$port") ;;
*) clients="$clients,$(url "$TASKSERV_PARAM_LISTEN" "$port")" advertised=$(url "$own_address" "$port") ;;
esac
# Alone it has nobody to listen to.
if [ -n "$TASKSERV_PEERS" ]; then peers_at=0.0.0.0; else peers_at=127.0.0.1; fi
wanted="# Written by the taskserv etcd.
ETCD_NAME=$TASKSERV_SERVER
ETCD_DATA_DIR=$data
ETCD_LISTEN_CLIENT_URLS=$clients
ETCD_ADVERTISE_CLIENT_URLS=$advertised
ETCD_LISTEN_PEER_URLS=$(url "$peers_at" "$TASKSERV_PARAM_PEER_PORT")"
case $(dpkg --print-architecture) in
amd64) ;;
# etcd wants to hear that one knows that it is less tested there.
*) wanted="$wanted
ETCD_UNSUPPORTED_ARCH=$(dpkg --print-architecture)" ;;
esac
if [ "$(cat "$settings" 2>/dev/null)" != "$wanted" ]; then
    printf '%s\n' "$wanted" >"$settings.new"
    mv "$settings.new" "$settings"
    changed=true
fi

own_url=$(members | sed -n '1s/.* //p')
if [ ! -d "$data/member" ]; then
    install -d -o etcd -g etcd -m 700 "$data"
    cat >"$first" <<END
# Written by the taskserv etcd.
ETCD_INITIAL_ADVERTISE_PEER_URLS=$own_url
ETCD_INITIAL_CLUSTER=$(members | sort | tr ' ' '=' | paste -s -d , -)
ETCD_INITIAL_CLUSTER_STATE=$TASKSERV_PARAM_CLUSTER_STATE
ETCD_INITIAL_CLUSTER_TOKEN=$TASKSERV_INFRA
END
elif ! grep -qxF "ETCD_INITIAL_ADVERTISE_PEER_URLS=$own_url" "$first"; then
    refuse "the other members know this one as $(sed -n 's/^ETCD_INITIAL_ADVERTISE_PEER_URLS=//p' "$first"), not as $own_url: change it with 'etcdctl member update', and in $first"
fi

if has_systemd; then
    drop_in=/etc/systemd/system/etcd.service.d/taskserv.conf
    mkdir -p "${drop_in%/*}"
    printf '%s\n' "# Written by the taskserv etcd." "[Service]" "EnvironmentFile=$settings" "EnvironmentFile=$first" >"$drop_in"
fi

if is_running && ! cmp -s "$settings" "$mark"; then
    echo "etcd runs with other settings: it is started anew"
    stop_it
fi
if ! is_running; then
    set -a
    # shellcheck disable=SC1090 # Made by this script.
    . "$settings"
    # shellcheck disable=SC1090
    . "$first"
    set +a
    start_it etcd
    cp "$settings" "$mark"
    changed=true
fi
echo "::result {\"changed\": $changed}"

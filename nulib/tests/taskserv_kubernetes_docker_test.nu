# The taskservs kubernetes and cilium, as far as they go without Kubernetes: a made-up bundle, whose
# packages hold scripts that say what they were called with. containerd is real, and takes the images.

use bench.nu *
use check.nu
use machine.nu *

const TOKEN = "abcdef.0123456789abcdef"

# Makes the bundle /bundle, and a systemctl that does nothing. The programs in it write down how they were
# called, and `kubectl` answers from files of the directory /api, by its words.
const MAKE = r##'
mkdir -p /api /bundle/packages /bundle/images /run/systemd/system
printf '#!/bin/sh\nexit 0\n' >/usr/local/bin/systemctl
chmod 755 /usr/local/bin/systemctl
package() {
    mkdir -p /build/$1/DEBIAN /build/$1/usr/bin
    printf 'Package: %s\nVersion: 1.30.4-1.1\nArchitecture: %s\nMaintainer: nobody <nobody@example.org>\nDescription: made up\n' "$1" "$(dpkg --print-architecture)" >/build/$1/DEBIAN/control
    printf '#!/bin/sh\necho "%s $*" >>/calls\n%s\n' "$1" "$2" >/build/$1/usr/bin/$1
    chmod 755 /build/$1/usr/bin/$1
    dpkg-deb --build /build/$1 /bundle/packages/$1.deb >/dev/null
}
package kubeadm '
case $* in
version*) echo v1.30.4 ;;
init*) touch /etc/kubernetes/admin.conf; [ ! -e /broken ] || exit 1 ;;
join*) touch /etc/kubernetes/kubelet.conf ;;
reset*) rm -f /etc/kubernetes/*.conf ;;
esac'
package kubectl '
case $* in
*diff*) [ -e /api/applied ] ;;
*apply*) touch /api/applied ;;
*readyz*) echo ok ;;
*"create configmap"*) echo "${*##*=}" >/api/value ;;
*"get configmap"*) cat /api/value ;;
*"get pod "*) echo Running ;;
*"get pods "*) cat /api/agents ;;
*"get nodes "*) cat /api/nodes ;;
*"get node "*) cat /api/node ;;
*"get daemonset"*) echo quay.io/cilium/cilium:v1.16.5@sha256:0 ;;
esac'
for name in kubelet kubernetes-cni cri-tools; do package $name ''; done
mkdir -p /build/image/bin
cp /bin/busybox /build/image/bin/
cd /build
tar -C image -cf layer.tar bin
printf '{"architecture": "%s", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' "$(dpkg --print-architecture)" "$(sha256sum layer.tar | cut -d' ' -f1)" >config.json
echo '[{"Config": "config.json", "RepoTags": ["registry.example.org/pause:1"], "Layers": ["layer.tar"]}]' >manifest.json
tar -cf /bundle/images/pause.tar manifest.json config.json layer.tar
echo 'kind: List' >/bundle/cilium.yaml
'##

const SUM = "cd /bundle && rm -f SHA256SUMS && find . -type f ! -name SHA256SUMS | xargs sha256sum >SHA256SUMS"

const BUNDLE = {bundle: /bundle}

# Gives the work a machine with containerd and a bundle.
def with-bundle [work: closure]: nothing -> nothing {
    with-place {|place|
        let machine = $place | start-machine node-01
        for step in [install start ready] { $machine | script containerd $step | good }
        $machine | on-machine $MAKE
        $machine | on-machine $SUM
        do $work $machine
    }
}

# How the programs of the bundle were called since the last time, those with this text only.
def calls [text: string]: string -> list<string> {
    let machine = $in
    let all = $machine | on-machine "touch /calls; cat /calls; rm /calls" | lines
    $all | where $text in $it
}

export def "test kubernetes makes a control plane of a bundle and has workers join it" [] {
    with-bundle {|machine|
        let options = $BUNDLE | insert token $TOKEN
        let master = {TASKSERV_ROLE: controlplane, TASKSERV_PEERS: "node-02 10.9.0.2 worker"}
        check same ($machine | script kubernetes install --with $options --server $master | good).changed true
        check same ($machine | script kubernetes install --with $options --server $master | good).changed false
        check same ($machine | on-machine "apt-mark showhold") "kubeadm\nkubectl\nkubelet"
        # No other version comes by the way.
        $machine | script kubernetes install --with {version: "1.31"} | refused "Kubernetes 1.30.4-1.1 is here, and 1.31 is asked for"
        $machine | script kubernetes verify --with $options --server $master | refused "not part of a cluster that this taskserv has set up"

        # It breaks off in the middle, and is begun again.
        $machine | on-machine "touch /broken; rm -f /calls"
        check same ($machine | script kubernetes start --with $options --server $master).exit_code 1
        $machine | on-machine "rm /broken"
        check same ($machine | script kubernetes start --with $options --server $master | good).changed true
        let calls = $machine | calls kubeadm
        check so ($calls | any { $in starts-with "kubeadm reset --force" }) "what was broken off is reset"
        let init = $calls | where $it starts-with "kubeadm init" | last
        check holds $init "--kubernetes-version v1.30.4" "--node-name node-01" $"--token ($TOKEN)" "--pod-network-cidr 10.244.0.0/16" $"--apiserver-advertise-address ($machine | on-machine 'hostname -i')"
        check same ($machine | on-machine "ctr --namespace k8s.io images list --quiet | grep example") "registry.example.org/pause:1"
        check same ($machine | script kubernetes ready --with $options --server $master).exit_code 1
        $machine | on-machine "echo 'True v1.30.4 kubelet is posting ready status' >/api/node"
        $machine | script kubernetes ready --with $options --server $master | good
        check same ($machine | script kubernetes verify --with $options --server $master | good).node_ready true

        # Again nothing is done; a token that has expired is made anew.
        check same ($machine | script kubernetes start --with $options --server $master | good).changed false
        check same ($machine | calls "token create") [$"kubeadm --kubeconfig /etc/kubernetes/admin.conf token create ($TOKEN)"]

        # A node without a network is good enough, and any other that is not ready is not.
        $machine | on-machine "echo 'False v1.30.4 container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized' >/api/node"
        check same ($machine | script kubernetes verify --with $options --server $master | good) {role: controlplane, version: "v1.30.4", node_ready: false}
        $machine | on-machine "echo 'False v1.30.4 PLEG is not healthy' >/api/node"
        $machine | script kubernetes verify --with $options --server $master | refused "not ready: False v1.30.4 PLEG"
        $machine | on-machine "echo 'True v1.30.4 kubelet is posting ready status' >/api/node"

        # What others have set up stays.
        $machine | on-machine "rm /etc/kubernetes/taskserv-*"
        $machine | script kubernetes start --with $options --server $master | refused "part of a Kubernetes that others have set up"

        let worker = {TASKSERV_ROLE: worker, TASKSERV_PEERS: "master 10.9.0.1 controlplane\nnode-03 10.9.0.3 worker"}
        $machine | on-machine "rm -rf /etc/kubernetes /calls"
        check same ($machine | script kubernetes start --with $options --server $worker | good).changed true
        let join = $machine | calls "kubeadm join"
        check same ($join | length) 1
        check holds $join.0 "join 10.9.0.1:6443" $"--token ($TOKEN)" "--discovery-token-unsafe-skip-ca-verification" "--node-name node-01"
        check same ($machine | script kubernetes verify --with $options --server $worker | good).role worker

        # With the certificate's digest nobody else can play the control plane.
        $machine | on-machine "rm -rf /etc/kubernetes /calls"
        $machine | script kubernetes start --with ($options | insert ca_cert_hash "sha256:00") --server $worker | good
        check holds ($machine | calls "kubeadm join" | first) "--discovery-token-ca-cert-hash sha256:00"

        # Who is with whom must be clear before anything is done.
        $machine | on-machine "rm -rf /etc/kubernetes /calls"
        for case in [
            [$BUNDLE {TASKSERV_ROLE: worker, TASKSERV_PEERS: "m 10.9.0.1 controlplane"} "`token` must say"]
            [$BUNDLE {TASKSERV_ROLE: controlplane, TASKSERV_PEERS: "w 10.9.0.2 worker"} "there are workers: `token`"]
            [($BUNDLE | insert token short) {TASKSERV_ROLE: controlplane} "token must be 6 letters"]
            [$options {TASKSERV_ROLE: worker, TASKSERV_PEERS: "w 10.9.0.2 worker"} "there are 0"]
            [$options {TASKSERV_ROLE: worker, TASKSERV_PEERS: "m 10.9.0.1 controlplane\nn 10.9.0.2 controlplane"} "there are 2"]
            [$options {TASKSERV_ROLE: controlplane, TASKSERV_PEERS: "m 10.9.0.1 controlplane"} "node-01 and m both have the role controlplane"]
        ] {
            $machine | script kubernetes start --with $case.0 --server $case.1 | refused $case.2
        }
        check same ($machine | calls kubeadm) []
    }
}

export def "test cilium is brought by the control plane and verified on every node" [] {
    with-bundle {|machine|
        let master = {TASKSERV_ROLE: controlplane}
        let worker = {TASKSERV_ROLE: worker}
        check same ($machine | script cilium install --with $BUNDLE --server $master | good).changed false
        $machine | script cilium start --with $BUNDLE --server $master | refused "Kubernetes is not installed"
        $machine | script kubernetes install --with $BUNDLE --server $master | good
        $machine | script cilium start --with $BUNDLE --server $master | refused "no controlplane of a Kubernetes"
        $machine | script kubernetes start --with $BUNDLE --server $master | good
        check same ($machine | script cilium start --with $BUNDLE --server $master | good).changed true
        check holds ($machine | calls apply | str join "\n") "apply --filename /bundle/cilium.yaml"
        check same ($machine | script cilium start --with $BUNDLE --server $master | good).changed false

        $machine | on-machine 'printf "node-01 True\nnode-02 False\n" >/api/nodes; printf "cilium-a\n" >/api/agents'
        check same ($machine | script cilium ready --with $BUNDLE --server $master).exit_code 1
        $machine | script cilium verify --with $BUNDLE --server $master | refused "without a network: node-02"
        $machine | on-machine 'printf "node-01 True\nnode-02 True\n" >/api/nodes'
        $machine | script cilium ready --with $BUNDLE --server $master | good
        $machine | script cilium verify --with $BUNDLE --server $master | refused "agent runs on 1 of 2 nodes"
        $machine | on-machine 'printf "cilium-a\ncilium-b\n" >/api/agents; rm -f /calls'
        check same ($machine | script cilium verify --with $BUNDLE --server $master | good) {role: controlplane, nodes: 2, version: "v1.16.5"}
        check same ($machine | calls "exec cilium-" | length) 2

        # A worker has the images, and looks at itself.
        $machine | on-machine "touch /etc/kubernetes/kubelet.conf; rm /api/applied /var/lib/containerd/taskserv-cilium-images; echo 'node-01 False' >/api/node"
        check same ($machine | script cilium start --with $BUNDLE --server $worker | good).changed true
        check same ($machine | on-machine "ls /api/applied 2>&1 || true") "ls: cannot access '/api/applied': No such file or directory"
        $machine | script cilium verify --with $BUNDLE --server $worker | refused "without a network: node-01"
        $machine | on-machine "echo 'node-01 True' >/api/node"
        check same ($machine | script cilium verify --with $BUNDLE --server $worker | good) {role: worker, node_ready: true}
    }
}

export def "test a bundle that is not right is refused by name" [] {
    with-bundle {|machine|
        let install = {|taskserv| $machine | script $taskserv install --with $BUNDLE --server {TASKSERV_ROLE: controlplane} }
        $machine | script kubernetes install --with {bundle: /nowhere} | refused "there is no bundle /nowhere on this server"
        $machine | on-machine "cp -r /bundle /good"
        for case in [
            ["rm SHA256SUMS" [kubernetes cilium] "has no SHA256SUMS"]
            ["echo x >>packages/kubelet.deb" [kubernetes cilium] "is damaged: ./packages/kubelet.deb is not what"]
            ["echo x >images/more.tar" [kubernetes cilium] "has images/more.tar, which its SHA256SUMS does not name"]
            ["rm images/pause.tar" [kubernetes cilium] "has no images/pause.tar, which its SHA256SUMS names"]
            ["echo hello >>SHA256SUMS" [kubernetes cilium] "is not what sha256sum prints"]
            ["sha256sum ../etc/passwd >>SHA256SUMS" [kubernetes cilium] "names a file outside of the bundle"]
            [$"rm images/pause.tar; ($SUM)" [kubernetes cilium] "has no images/*.tar"]
            [$"rm packages/cri-tools.deb; ($SUM)" [kubernetes] "has no package cri-tools for"]
            [$"echo x >packages/odd.deb; ($SUM)" [kubernetes] "odd.deb is no package"]
            [$"rm cilium.yaml; ($SUM)" [cilium] "has no cilium.yaml"]
        ] {
            $machine | on-machine $"rm -rf /bundle; cp -r /good /bundle; cd /bundle; ($case.0)"
            for taskserv in $case.1 { do $install $taskserv | refused $case.2 }
        }
        check same ($machine | on-machine "command -v kubeadm || true") ""
    }
}

export def "test kubernetes and cilium without a network and a bundle fail at once" [] {
    with-place {|place|
        # A machine that nothing can be reached from.
        let machine = $"($place.infra).cut-off"
        ^docker run --detach --init --network none --name $machine (image) sleep infinity | ignore
        for case in [[taskserv, host]; [kubernetes pkgs.k8s.io] [cilium github.com]] {
            let started = date now
            $machine | script $case.taskserv install --server {TASKSERV_ROLE: controlplane} | refused $"($case.host) cannot be reached"
            check so ((date now) - $started < 15sec) "it is said within seconds"
            $machine | script $case.taskserv start --server {TASKSERV_ROLE: controlplane} | refused "Kubernetes is not installed"
            $machine | script $case.taskserv verify --server {TASKSERV_ROLE: controlplane} | refused "Kubernetes is not installed"
        }
        # The name is known, and nobody is there.
        $machine | on-machine 'echo "127.0.0.1 pkgs.k8s.io github.com helm.cilium.io" >>/etc/hosts; mkdir -p /fake; printf "Package: ca-certificates\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: made up\n" >/fake/control'
        $machine | on-machine 'mkdir -p /b/DEBIAN; cp /fake/control /b/DEBIAN/; dpkg-deb --build /b /b.deb >/dev/null; dpkg -s ca-certificates >/dev/null 2>&1 || dpkg --install /b.deb >/dev/null'
        $machine | script kubernetes install --server {TASKSERV_ROLE: controlplane} | refused "https://pkgs.k8s.io/core:/stable:/v1.32/deb/Release.key cannot be fetched"
        $machine | script cilium install --server {TASKSERV_ROLE: controlplane} | refused "cilium-linux-"
    }
}

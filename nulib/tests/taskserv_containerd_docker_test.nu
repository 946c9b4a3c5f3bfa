# The taskserv containerd: a container in a container.

use bench.nu *
use check.nu
use machine.nu *

export def "test containerd runs a container of an image made on the spot" [] {
    with-place {|place|
        let machine = $place | start-machine node-01
        $machine | script containerd verify | refused "containerd is not installed"
        check same ($machine | script containerd install | good).changed true
        check same ($machine | script containerd install | good).changed false
        check same ($machine | on-machine "pgrep -x containerd || echo none") none
        $machine | script containerd verify | refused "containerd does not run"
        check same ($machine | script containerd start | good).changed true
        $machine | script containerd ready | good
        # The machine's own file system is an overlay: on top of it images are copied.
        let verified = $machine | script containerd verify | good
        check same $verified.snapshotter native
        check same ($machine | script containerd start | good).changed false
        # Nothing of it stays.
        check same ($machine | on-machine "ctr namespaces list --quiet; ls /tmp; pgrep -f '[c]ontainerd-shim' || true") ""
        check holds ($machine | on-machine "cat /etc/containerd/config.toml.before-taskserv") "/usr/lib/cni"

        # On another file system overlays work, which it notices when it is started.
        $machine | on-machine 'kill -KILL "$(cat /run/containerd.pid)"; mount -t tmpfs tmpfs /var/lib/containerd'
        $machine | script containerd ready | check holds $in.failure "containerd has ended"
        check same ($machine | script containerd start | good).changed true
        $machine | script containerd ready | good
        check same ($machine | script containerd verify | good).snapshotter overlayfs

        # Other settings are taken over by starting it anew.
        let before = $machine | on-machine "cat /run/containerd.pid"
        check same ($machine | script containerd start --with {sandbox_image: "example.org/pause:1"} | good).changed true
        check so (($machine | on-machine "cat /run/containerd.pid") != $before) "it is another process"
        $machine | script containerd start --with {sandbox_image: 'x" = 1'} | refused "must be the name of an image"

        # A server without the right to is told so.
        ^docker run --detach --init --network none --name $"($place.infra).plain" (image) sleep infinity | ignore
        let plain = $"($place.infra).plain"
        ^docker cp $"($machine):/usr/bin/containerd" - | ^docker cp - $"($plain):/usr/bin"
        $plain | script containerd start | refused "it must be a privileged one"
    }
}

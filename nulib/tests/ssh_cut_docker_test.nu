# Connections that are cut while a script runs: what is said, that the others are unharmed, and that the
# next attempt completes without two at once.

use bench.nu *
use check.nu
use sshd.nu *

# An installation that goes on until it is let, and that notices another one beside it.
const INSTALL = '
mkdir /root/installing || { echo OVERLAP >>/root/log; exit 9; }
trap "rmdir /root/installing; echo ended >>/root/log; exit 143" TERM
echo started >>/root/log
while [ ! -e /root/go ]; do sleep 0.1; done
rmdir /root/installing
echo installed >>/root/log
echo "::result {\"changed\": true}"
'

# What the installation has written down on a machine.
def log-of [host: record]: nothing -> list<string> {
    (^docker exec $host.container sh -c "cat /root/log 2>/dev/null" | complete).stdout | lines
}

# Lets the installation go on.
def let-go [host: record]: nothing -> nothing {
    ^docker exec $host.container touch /root/go
}

# Ends the process of the SSH server that serves the session of root, as a crash would.
def kill-session [host: record]: nothing -> nothing {
    ^docker exec $host.container sh -c 'for process in /proc/[0-9]*; do tr "\0" " " <$process/cmdline 2>/dev/null | grep -q "^sshd: root" && kill -9 ${process#/proc/}; done; true'
}

# Whether anything of the installation is left on a machine.
def is-gone [host: record]: nothing -> bool {
    (^docker exec $host.container sh -c 'cat /proc/[0-9]*/cmdline | tr "\0" " " | grep -c "[s]h ./"' | complete).stdout | str trim | $in == "0"
}

# Does one thing while another one runs, and returns what the other one returns.
def meanwhile [work: closure, beside: closure]: nothing -> any {
    # The work may wait for what failed, so the failure is shown when it comes.
    let reported = {||
        try { do $beside } catch {|error|
            print --stderr $error.rendered
            error make $error.raw
        }
    }
    [$work $reported] | par-each --keep-order {|part| do $part } | first
}

def folder-of-install []: record -> string {
    let folder = $in.directory | path join taskservs slow
    mkdir $folder
    {description: "a slow one"} | to toml | save ($folder | path join taskserv.toml)
    $INSTALL | save ($folder | path join install.sh)
    "tail -n 1 /root/log | grep -qx installed" | save ($folder | path join verify.sh)
    $folder
}

export def "test a connection cut in mid-install fails alone and the next attempt completes" [] {
    with-place {|place|
        $place | make-keys
        let hosts = [a b c] | par-each --keep-order {|name| $place | start-sshd $name }
        $place | folder-of-install
        {infra: $place.infra, servers: ($hosts | each {|host| $place | ssh-server $host | insert taskservs [slow] })} | to yaml | save $place.settings

        let answer = meanwhile { $place | worker [taskserv create slow] } {
            until "all have started" { $hosts | all {|host| (log-of $host) == [started] } }
            kill-session $hosts.1
            let-go $hosts.0
            let-go $hosts.2
        }
        check same [$answer.exit_code $answer.permanent] [1 false]
        check holds $answer.failure "server 'b'" "the connection was cut while the script ran"
        check so ("server 'a'" not-in $answer.failure and "server 'c'" not-in $answer.failure) "only b has failed"
        for host in [$hosts.0 $hosts.2] { check same (log-of $host) [started installed] }
        until "the script on b is gone" { is-gone $hosts.1 }
        check same (log-of $hosts.1) [started ended]

        let-go $hosts.1
        let again = $place | worker [taskserv create slow b]
        check same [$again.exit_code $again.failure] [0 null]
        check same (log-of $hosts.1) [started ended started installed]
    }
}

export def "test a machine that falls silent is noticed on both sides" [] {
    with-place {|place|
        $place | make-keys
        let network = $"($place.infra).net"
        ^docker network create $network | ignore
        let host = $place | start-sshd a --network $network
        let order = {server: ($place | ssh-server $host), folder: ($place | folder-of-install), script: install.sh}
        let answer = meanwhile { $place | ask ssh run $order } {
            until "it has started" { (log-of $host) == [started] }
            ^docker network disconnect $network $host.container
        }
        check same [$answer.exit_code $answer.permanent] [1 false]
        check holds $answer.failure "the connection was cut while the script ran" "does not answer"
        # Nobody can tell the machine; it notices by itself.
        until "the script is gone" { is-gone $host }
        check same (log-of $host) [started ended]

        # It comes back, perhaps with another address.
        ^docker network connect $network $host.container
        let back = $host | merge {address: (address-of $host.container)}
        $place | know $back.container $back.address
        let-go $back
        check same ($place | ask ssh run ($order | merge {server: ($place | ssh-server $back)})).result {exit_code: 0, result: {changed: true}}
        check same (log-of $host) [started ended started installed]
    }
}

export def "test an attempt waits until the one that was cut is gone" [] {
    with-place {|place|
        $place | make-keys
        let host = $place | start-sshd a
        let order = {server: ($place | ssh-server $host), folder: ($place | folder-of-install), script: install.sh}
        let answer = meanwhile { $place | ask ssh run $order } {
            until "it has started" { (log-of $host) == [started] }
            # Frozen, the first one can neither go on nor end; the second one has to wait for it.
            let script = ^docker exec $host.container sh -c 'grep -lx "sh" /proc/[0-9]*/comm | while read f; do p=${f%/comm}; tr "\0" " " <$p/cmdline | grep -q "^sh ./install.sh" && echo ${p#/proc/}; done; true' | str trim
            ^docker exec $host.container kill -s STOP $script
            kill-session $host
            let second = meanwhile { $place | ask ssh run $order } {
                until "the second one waits" { (^docker exec $host.container sh -c 'cat /proc/[0-9]*/comm' | lines) has flock }
                check same (log-of $host) [started]
                let-go $host
                ^docker exec $host.container kill -s CONT $script
            }
            check same $second.result {exit_code: 0, result: {changed: true}}
            check holds $second.stdout "waiting: 'slow' is being run on this machine already"
        }
        check holds $answer.failure "the connection was cut"
        check so ("OVERLAP" not-in (log-of $host)) "the two did not overlap"
    }
}

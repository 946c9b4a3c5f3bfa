# The taskserv etcd on servers of docker: a real cluster of three, and its loss of a member.

use bench.nu *
use check.nu

# Asks the etcd of a server.
def etcd [server: string, words: list<string>]: record -> string {
    let place = $in
    $place | inside $server [env ETCDCTL_API=3 etcdctl --endpoints "http://127.0.0.1:2379" --command-timeout=20s ...$words]
}

export def "test etcd keeps its quorum when a member is killed and lets it join again" [] {
    with-place {|place|
        let names = [etcd-01 etcd-02 etcd-03]
        $place | describe-servers ($names | each {|name| {name: $name} }) --more {clusters: [{name: store, type: etcd, servers: $names, taskservs: [etcd]}]}
        let made = $place | worker [cluster create store]
        check same [$made.exit_code $made.failure] [0 null]
        check same ($made.result.taskservs | select name server action) ($names | each {|name| {name: etcd, server: $name, action: created} })
        check same $made.result.taskservs.verified.members [3 3 3]
        check same ($made.result.taskservs.verified.leader | where $it | length) 1

        # A second time changes nothing, and starts nothing anew.
        let before = $names | each {|name| $place | inside $name [cat /run/etcd.pid] }
        let again = $place | worker [cluster create store]
        check same $again.result.taskservs.action [unchanged unchanged unchanged]
        check same ($names | each {|name| $place | inside $name [cat /run/etcd.pid] }) $before

        # The leader dies with its machine: the others write on.
        let leader = $again.result.taskservs | where verified.leader | get 0.server
        let others = $names | where $it != $leader
        ^docker kill $"($place.infra).($leader)" | ignore
        for server in $others {
            let verified = $place | worker [taskserv verify etcd $server]
            check same [$verified.exit_code $verified.result.taskservs.0.verified.members] [0 3]
        }
        check same ($place | etcd $others.0 [put while-away yes]) OK

        # It comes back with its data, and catches up: `s` reads its own copy.
        ^docker start $"($place.infra).($leader)" | ignore
        let dead = $place | worker [taskserv verify etcd $leader]
        check same [$dead.exit_code $dead.permanent] [1 true]
        check holds $dead.failure $"etcd on ($leader): verify.sh: etcd does not run"
        let back = $place | worker [taskserv create etcd $leader]
        check same [$back.failure $back.result.taskservs.0.action] [null created]
        check same ($place | etcd $leader [get --consistency=s --print-value-only while-away]) yes

        # Without a quorum nothing is written, and nothing is called verified.
        for server in $others { ^docker kill $"($place.infra).($server)" | ignore }
        let lonely = $place | worker [taskserv verify etcd $leader]
        check same [$lonely.exit_code $lonely.permanent] [1 true]
        check holds $lonely.failure "etcd does not take a value"
    }
}

export def "test etcd alone takes over its settings and says who is no member" [] {
    with-place {|place|
        let alone = {name: etcd-01, taskservs: [etcd]}
        $place | describe-servers [$alone]
        $place | worker [server create]
        let made = $place | worker [taskserv create etcd]
        check same [$made.failure $made.result.taskservs.0.verified.members] [null 1]
        $place | etcd etcd-01 [put kept yes]

        # Another port is taken over, and the data stays.
        $place | describe-servers [($alone | insert taskserv_options {etcd: {port: 4001, listen: "0.0.0.0"}})]
        check same ($place | worker [taskserv create etcd]).result.taskservs.0.action created
        check same ($place | inside etcd-01 [sh -c 'ETCDCTL_API=3 etcdctl --endpoints "http://$(hostname -i):4001" get --print-value-only kept']) yes

        # It does not run: the next create starts it.
        $place | inside etcd-01 [sh -c 'kill -KILL "$(cat /run/etcd.pid)"']
        check same ($place | worker [taskserv create etcd]).result.taskservs.0.action created

        # One that was added to the settings alone is no member, which is said.
        $place | describe-servers [$alone {name: etcd-02, taskservs: [etcd]}] --more {clusters: [{name: store, servers: [etcd-01 etcd-02]}]}
        let answer = $place | worker [taskserv create etcd etcd-01]
        check same [$answer.exit_code $answer.permanent] [1 true]
        check holds $answer.failure "not a member: etcd-02 (http://etcd-02:2380). The members are http://etcd-01:2380"
        # A first start's address cannot be another later.
        $place | describe-servers [($alone | insert taskserv_options {etcd: {peer_port: 4002}})]
        let moved = $place | worker [taskserv create etcd]
        check same $moved.permanent true
        check holds $moved.failure "the other members know this one as http://etcd-01:2380, not as http://etcd-01:4002"
    }
}

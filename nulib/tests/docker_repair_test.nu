# The docker provider where something broke off, or several tasks meet.

use bench.nu *
use check.nu

# The calls of the client that change something, in the order in which a first server needs them.
const CHANGES = ["network create" "volume create" "create" "start"]

export def "test a create that broke off anywhere is completed by the next" [] {
    for change in $CHANGES {
        # Killed before the call, or after its effect and before its answer.
        for moment in [before after] {
            with-place {|place|
                let real = which docker | get 0.path
                let match = $change | split row " " | enumerate | each {|word| $"[ \"$($word.index + 1)\" = ($word.item) ]" } | str join " && "
                let act = if $moment == "after" { $"($real) \"$@\"; " } else { "" }
                let shim = $place | docker-shim $"if ($match); then ($act)kill -9 $PPID; exit 137; fi"
                $place | describe-servers [{name: web-01, volumes: ["data:/data"], resources: {memory_mb: 32}}]
                let broken = $place | worker [server create web-01] --with $shim
                check so ($broken.exit_code != 0) $"($change) ($moment): the first attempt breaks off"
                check same $broken.permanent false

                let answer = $place | worker [server create web-01]
                check same [$change $moment $answer.exit_code $answer.failure] [$change $moment 0 null]
                let complete = $change == "start" and $moment == "after"
                let made = $change in ["create" "start"] and not ($change == "create" and $moment == "before")
                let expected = if $complete { "unchanged" } else if $made { "completed" } else { "created" }
                check same [$change $moment $answer.result.servers.0.action] [$change $moment $expected]
                let state = $place | docker-state
                check same [$state.containers.status ($state.networks | length) $state.volumes] [[running] 1 [$"($place.infra).data"]]
                check same ($place | worker [server create web-01]).result.servers.0.action unchanged
            }
        }
    }
}

export def "test a stopped or paused server is completed" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01}]
        $place | worker [server create web-01]
        let id = $place | docker-state | get containers.0.id
        for how in [[stop --time 1] [pause]] {
            ^docker ...$how $"($place.infra).web-01"
            check same ($place | worker [server create web-01 --check]).result.servers.0.action would-complete
            check same ($place | worker [server create web-01]).result.servers.0.action completed
            check same ($place | docker-state | get containers | select id status) [{id: $id, status: running}]
        }
    }
}

export def "test a server off its network is put back" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01} {name: web-02}]
        $place | worker [server create]
        let name = $"($place.infra).web-01"
        ^docker network disconnect $"($place.infra).default" $name
        check same ($place | worker [server create web-01]).result.servers.0.action completed
        check holds ($place | inside web-02 [getent hosts web-01]) web-01
    }
}

export def "test a network that was made anew meanwhile is joined" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01} {name: web-02}]
        $place | worker [server create web-01]
        ^docker stop --time 1 $"($place.infra).web-01"
        ^docker network rm $"($place.infra).default"
        # Gone, and then there again under another id.
        $place | worker [server create web-02]
        check same ($place | worker [server create web-01]).result.servers.0.action completed
        check holds ($place | inside web-02 [getent hosts web-01]) web-01

        ^docker stop --time 1 $"($place.infra).web-01" $"($place.infra).web-02"
        ^docker network rm $"($place.infra).default"
        check same ($place | worker [server create]).result.servers.action [completed completed]
        check holds ($place | inside web-01 [getent hosts web-02]) web-02
    }
}

export def "test servers created at the same time share one network" [] {
    for _ in 1..4 {
        with-place {|place|
            let names = [web-01 web-02 web-03 web-04]
            $place | describe-servers ($names | each {|name| {name: $name} })
            let answers = $names | par-each --threads 4 {|name| $place | worker [server create $name] }
            check same ($answers | each { [$in.exit_code $in.failure] } | uniq) [[0 null]]
            check same ($answers | each { $in.result.servers.0.action } | uniq) [created]
            check same ($place | docker-state | get networks | length) 1
            check holds ($place | inside web-01 [getent hosts web-04]) web-04
        }
    }
}

export def "test one server created twice at the same time is made once" [] {
    for _ in 1..3 {
        with-place {|place|
            $place | describe-servers [{name: web-01}]
            let answers = 1..3 | par-each --threads 3 { $place | worker [server create web-01] }
            check same ($answers | each { [$in.exit_code $in.failure] } | uniq) [[0 null]]
            check same ($place | docker-state | get containers.status) [running]
            check same ($answers | each { $in.result.servers.0.id } | uniq | length) 1
            check same ($place | docker-state | get networks | length) 1
        }
    }
}

export def "test create and delete at the same time leave nothing by halves" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01} {name: web-02}]
        $place | worker [server create web-01]
        let answers = [[delete web-01] [create web-02]] | par-each --threads 2 {|words| $place | worker [server ...$words] }
        check same ($answers | each { [$in.exit_code $in.failure] } | uniq) [[0 null]]
        check same ($place | docker-state | get containers | select name status) [{name: $"/($place.infra).web-02", status: running}]
        check same ($place | docker-state | get networks | length) 1
    }
}

export def "test a network that goes between two steps is made again" [] {
    for step in [create start] {
        with-place {|place|
            let real = which docker | get 0.path
            let mark = $place.directory | path join mark
            let shim = $place | docker-shim $"if [ \"$1\" = ($step) ] && mkdir ($mark) 2>/dev/null; then ($real) network rm ($place.infra).default; fi"
            $place | describe-servers [{name: web-01}]
            let answer = $place | worker [server create web-01] --with $shim
            check so ($mark | path exists) $"the network was removed before ($step)"
            check same [$step $answer.exit_code $answer.failure] [$step 0 null]
            check same $answer.result.servers.0.action created
            check same ($place | docker-state | get networks | length) 1
            check same ($place | docker-state | get containers.networks) [[$"($place.infra).default"]]
        }
    }
}

export def "test servers deleted at the same time leave no network" [] {
    for _ in 1..3 {
        with-place {|place|
            let names = [web-01 web-02 web-03]
            $place | describe-servers ($names | each {|name| {name: $name} })
            $place | worker [server create]
            let answers = $names | par-each --threads 3 {|name| $place | worker [server delete $name] }
            check same ($answers | each { [$in.failure $in.result.servers.0.action] } | uniq) [[null deleted]]
            check same ($place | docker-state) {containers: [], networks: [], volumes: []}
        }
    }
}

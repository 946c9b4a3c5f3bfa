# The docker provider, on a real daemon.

use bench.nu *
use check.nu

export def "test create makes a running server and says what it is" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01}]
        let answer = $place | worker [server create web-01]
        check succeeded $answer
        let server = $answer.result.servers.0
        check same ($server | select name provider action status image network) {
            name: web-01, provider: docker, action: created, status: running, image: (image), network: default
        }
        check same $server.container $"($place.infra).web-01"
        let state = $place | docker-state
        check holds $state.containers.0.id $server.id
        check same ($place | inside web-01 [hostname]) web-01
        check same ($answer.progress | last) "::progress 3/3 web-01: running"
    }
}

export def "test create of what exists changes nothing and says so" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01}]
        $place | worker [server create web-01]
        let before = $place | docker-state
        let again = $place | worker [server create web-01]
        check same $again.result.servers.0.action "unchanged"
        check same $again.progress []
        check same ($place | docker-state) $before
    }
}

export def "test check mode changes nothing and returns the plan" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01, volumes: ["data:/data"]} {name: web-02}]
        let before = $place | docker-state
        let answer = $place | worker [server create --check]
        check same ($place | docker-state) $before
        check succeeded $answer
        check same $answer.result.check true
        check same $answer.result.servers.action ["would-create" "would-create"]
        check same ($answer.result.plan | where server == web-01 | get step) [make-network make-volume make-container start]
        check same ($answer.result.plan | where step == make-container | get 0.config.image) (image)

        check same ($place | worker [server create --check]).result.plan_digest $answer.result.plan_digest
        $place | worker [server create web-01]
        let after = $place | docker-state
        let second = $place | worker [server create --check]
        check same $second.result.servers.action ["unchanged" "would-create"]
        check so ($second.result.plan_digest != $answer.result.plan_digest) "another plan has another digest"
        check same ($place | worker [server delete web-01 --check]).result.servers.action ["would-delete"]
        check same ($place | docker-state) $after
    }
}

export def "test limits are really applied" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01, resources: {cpu_millicores: 250, memory_mb: 48, max_processes: 77}}]
        check succeeded ($place | worker [server create web-01])
        let read = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max 2>/dev/null || { cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us; }"
        let limits = $place | inside web-01 [sh -c $read] | split words | into int
        check same ($limits | first 2) [(48 * 1024 * 1024) 77]
        check same ($limits.2 / $limits.3) 0.25
        # One process too many is refused by the kernel.
        let forks = ^docker exec $"($place.infra).web-01" sh -c "i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done" | complete
        check so ($forks.exit_code != 0) "a hundred processes do not fit into 77"
    }
}

export def "test a limit that the kernel drops is refused" [] {
    with-place {|place|
        # What Docker does where the kernel has no such limit: it warns and makes the container without.
        let shim = $place | docker-shim 'if [ "$1" = create ]; then n=$#; i=0; while [ $i -lt $n ]; do a=$1; shift; [ "$a" = --pids-limit ] && a=--label && b="dropped=$1" && shift && i=$((i+1)) && set -- "$@" "$a" "$b" || set -- "$@" "$a"; i=$((i+1)); done; fi'
        $place | describe-servers [{name: web-01, resources: {max_processes: 50}} {name: web-02}]
        let answer = $place | worker [server create web-01] --with $shim
        check same [$answer.exit_code $answer.permanent] [1 true]
        check holds $answer.failure "max_processes" "web-01"
        check same ($place | docker-state | get containers) []
        # The limit that nobody asked for is no reason to refuse.
        check same ($place | worker [server create web-02] --with $shim).result.servers.0.action created
    }
}

export def "test a disk limit is enforced or refused" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01, resources: {disk_mb: 64}}]
        let answer = $place | worker [server create web-01]
        if $answer.exit_code == 0 {
            let written = ^docker exec $"($place.infra).web-01" dd if=/dev/zero of=/big bs=1M count=128 | complete
            check so ($written.exit_code != 0) "128 MiB do not fit into 64"
        } else {
            check holds $answer.failure "disk_mb"
            check same $answer.permanent true
            check same ($place | docker-state | get containers) []
        }
    }
}

export def "test servers find each other by name" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01} {name: web-02}]
        let answer = $place | worker [server create]
        check same $answer.result.servers.action [created created]
        let address = $answer.result.servers | where name == web-02 | get 0.address
        check holds ($place | inside web-01 [getent hosts web-02]) $address
    }
}

export def "test values arrive as they were written" [] {
    with-place {|place|
        let hostile = "a b; $(touch /x) `x` \"q\" 'p' \\ \n--flag=${HOME}"
        $place | describe-servers [{
            name: web-01
            env: {HOSTILE: $hostile, NUMBER: 8080, YES: true}
            labels: {note: $hostile}
            command: "printf %s \"$HOSTILE\" > /seen; exec sleep infinity"
        }]
        check succeeded ($place | worker [server create web-01])
        check same (^docker exec $"($place.infra).web-01" cat /seen) $hostile
        check same ($place | inside web-01 [sh -c "echo $NUMBER $YES"]) "8080 true"
        check same (^docker container inspect $"($place.infra).web-01" | from json | get 0.Config.Labels.note) $hostile
    }
}

export def "test volumes are mounted and outlive the server" [] {
    with-place {|place|
        mkdir ($place.directory | path join conf)
        "hello" | save ($place.directory | path join conf greeting)
        $place | describe-servers [{name: web-01, volumes: ["data:/data" "./conf:/conf:ro"]}]
        check succeeded ($place | worker [server create web-01])
        check same ($place | inside web-01 [cat /conf/greeting]) hello
        $place | inside web-01 [sh -c "echo kept > /data/file"]
        let write = ^docker exec $"($place.infra).web-01" touch /conf/new | complete
        check so ($write.exit_code != 0) "a read-only volume refuses a new file"

        $place | worker [server delete web-01]
        check same ($place | docker-state | get volumes) [$"($place.infra).data"]
        $place | worker [server create web-01]
        check same ($place | inside web-01 [cat /data/file]) kept
    }
}

export def "test a missing folder of the host is named" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01, volumes: ["./nowhere:/conf"]}]
        let answer = $place | worker [server create web-01]
        check same [$answer.exit_code $answer.permanent] [1 true]
        check holds $answer.failure "nowhere"
        check same ($place | docker-state | get containers) []
    }
}

export def "test a fixed address in a subnet of its own" [] {
    with-place {|place|
        let subnet = free-subnet
        let address = $subnet | str replace "0/29" "5"
        let networks = {networks: {back: {subnet: $subnet}}}
        $place | describe-servers [{name: db-01, network: back, address: $address}] --more $networks
        check same ($place | worker [server create db-01]).result.servers.0.address $address
        check holds ($place | inside db-01 [hostname -I]) $address

        # Another infra that wants the same addresses is told who has them.
        with-place {|other|
            $other | describe-servers [{name: db-01, network: back}] --more $networks
            let answer = $other | worker [server create db-01]
            check same [$answer.exit_code $answer.permanent] [1 true]
            check holds $answer.failure $subnet $"network '($place.infra).back'"
        }

        # The settings may not move the network under its servers.
        $place | describe-servers [{name: db-01, network: back} {name: db-02, network: back}] --more {networks: {back: {subnet: "10.213.0.0/24"}}}
        let answer = $place | worker [server create db-02]
        check same $answer.permanent true
        check holds $answer.failure $subnet "10.213.0.0/24"
    }
}

export def "test ports are passed on" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01, ports: ["127.0.0.1:0:80" "53/udp"]}]
        let wrong = $place | worker [server create web-01]
        check holds $wrong.failure "127.0.0.1:0:80"
        $place | describe-servers [{name: web-01, ports: [80 "53/udp"]}]
        let answer = $place | worker [server create web-01]
        let ports = ^docker port $"($place.infra).web-01" | lines
        check so ($ports | any { $in starts-with "80/tcp -> " }) "port 80 is published"
        check so ($ports | any { $in starts-with "53/udp -> " }) "port 53 is published"
        check so ($answer.result.servers.0.ports | any { $in ends-with "->80/tcp" }) "the answer says the port"
    }
}

export def "test another configuration is refused and says what differs" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01, env: {MODE: blue}}]
        $place | worker [server create web-01]
        let before = $place | docker-state
        $place | describe-servers [{name: web-01, env: {MODE: green}}]
        for words in [[] [--check]] {
            let answer = $place | worker [server create web-01 ...$words]
            check same [$answer.exit_code $answer.permanent] [1 true]
            check holds $answer.failure "web-01" "another configuration" "env" "delete it and create it again"
            check holds $answer.stderr blue green
        }
        check same ($place | docker-state) $before
        check same ($place | worker [server list]).result.servers.0.as_configured false
    }
}

export def "test a foreign container is named and left alone" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01}]
        ^docker run --detach --name $"($place.infra).web-01" (image) sleep infinity
        let before = $place | docker-state
        for operation in [create delete] {
            let answer = $place | worker [server $operation web-01]
            check same [$answer.exit_code $answer.permanent] [1 true]
            check holds $answer.failure $"'($place.infra).web-01'" "not made from these settings"
        }
        check same ($place | docker-state) $before
    }
}

export def "test a server that ends at once is a failure with its last words" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01, command: "echo all was well; echo no disk found >&2; exit 7"}]
        for _ in 1..2 {
            let answer = $place | worker [server create web-01]
            check same [$answer.exit_code $answer.permanent] [1 false]
            check holds $answer.failure "web-01" "ended at once with exit status 7" "no disk found"
            check holds $answer.stderr "all was well"
            # It is not left to be started again and again.
            check same ($place | docker-state | get containers.0.status) exited
        }
    }
}

export def "test an image that is not there is not fetched in silence" [] {
    with-place {|place|
        let calls = $place.directory | path join calls
        let shim = $place | docker-shim $"echo \"$1\" >> ($calls)"
        $place | describe-servers [{name: web-01, image: "orchestrator-no-such-image:1"}]
        let answer = $place | worker [server create web-01] --with $shim
        check same [$answer.exit_code $answer.permanent] [1 true]
        check holds $answer.failure "orchestrator-no-such-image:1" "docker pull" "pull: missing"
        check same (open --raw $calls | lines | where $it in [pull run create]) []
        check same ($place | docker-state | get containers) []
    }
}

export def "test an image is fetched where the settings say so" [] {
    with-place {|place|
        let name = $"($place.infra):fetched"
        let shim = $place | docker-shim $"[ \"$1\" = pull ] && set -- tag (image) ($name)"
        $place | describe-servers [{name: web-01, image: $name, pull: missing}]
        let answer = $place | worker [server create web-01] --with $shim
        $place | worker [server delete web-01]
        let had = ^docker image rm $name | complete
        check same $answer.result.servers.0.action created
        check succeeded $had
        check holds ($answer.progress | first) "pull image"
    }
}

export def "test delete removes the server and with the last one the network" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01} {name: web-02}]
        $place | worker [server create]
        check same ($place | worker [server delete web-01]).result.servers.0.action deleted
        check same ($place | docker-state | get networks | length) 1
        check same ($place | worker [server delete web-01]).result.servers.0.action unchanged
        # One that has left the settings is found all the same.
        $place | describe-servers [{name: web-01}]
        check same ($place | worker [server delete web-02]).result.servers.0.action deleted
        check same ($place | docker-state) {containers: [], networks: [], volumes: []}
        let answer = $place | worker [server delete web-09]
        check same $answer.permanent true
        check holds $answer.failure web-09
    }
}

export def "test list shows what is described and what exists" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01} {name: web-02}]
        $place | worker [server create]
        ^docker stop --time 1 $"($place.infra).web-02"
        $place | describe-servers [{name: web-01} {name: web-03}]
        let servers = ($place | worker [server list]).result.servers
        check same ($servers | select name described status) [
            [name described status]; [web-01 true running] [web-02 false exited] [web-03 true absent]
        ]
        check same $servers.0.as_configured true
    }
}

export def "test a daemon that does not answer is worth another try" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01}]
        let socket = $place.directory | path join dead.sock
        for words in [[server create web-01] [server create web-01 --check] [server delete web-01] [server list]] {
            let answer = $place | worker [...$words] --with {DOCKER_HOST: $"unix://($socket)"}
            check same [$answer.exit_code $answer.permanent $answer.result.servers?.0?.status?] [1 false null]
            check holds $answer.failure "Docker cannot be reached" $socket
        }
    }
}

export def "test no docker client is a failure for good" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01}]
        let answer = $place | worker [server create web-01] --with {PATH: [$place.directory]}
        check same [$answer.exit_code $answer.permanent] [1 true]
        check holds $answer.failure "Docker client is not installed"
    }
}

# A small range of addresses that no network of this machine has.
def free-subnet []: nothing -> string {
    $"10.214.(random int 0..255).((random int 0..30) * 8)/29" | str replace --regex '\.\d+/29' '.0/29'
}

# The ssh provider, on real SSH servers in containers.

use bench.nu *
use check.nu
use conforming.nu *
use sshd.nu *

# Gives the work a place with keys and an SSH server, called `a`.
def with-host [work: closure, --unknown]: nothing -> nothing {
    with-place {|place|
        $place | make-keys
        do $work ($place | insert host ($place | start-sshd a --unknown=$unknown))
    }
}

# What `create` says of the place's host, reached in another way.
def look [with: record = {}]: record -> record {
    let place = $in
    $place | ask ssh create {server: ($place | ssh-server $place.host --with $with), check: false}
}

# A folder with one script.
def folder-with [script: string]: record -> string {
    let folder = $in.directory | path join (random chars --length 8)
    mkdir $folder
    $script | save ($folder | path join go.sh)
    $folder
}

# It failed, for good or for now, with a message that holds these.
def check-failed [permanent: bool, ...parts: string]: record -> nothing {
    let answer = $in
    check same [$answer.exit_code $answer.permanent] [1 $permanent]
    check holds $answer.failure ...$parts
}

export def "test ssh keeps the contract" [] {
    with-host {|place|
        {infra: $place.infra, servers: [($place | ssh-server $place.host --with {user: deploy})]} | to yaml | save $place.settings
        $place | conforms ssh
    }
}

export def "test ssh says what the machine is and changes nothing" [] {
    with-host {|place|
        let server = $place | ssh-server $place.host
        let made = ($place | look).result
        check same ($made | select action status host address user os) {action: unchanged, status: running, host: $place.host.address, address: $place.host.address, user: root, os: (^docker exec $place.host.container sh -c ". /etc/os-release; echo $PRETTY_NAME" | str trim)}
        let removed = ($place | ask ssh delete {server: $server, check: false}).result
        check same $removed.action unchanged
        check holds $removed.reason "not removed"
        check succeeded ($place | look)
    }
}

export def "test check mode contacts nobody and says what would be looked at" [] {
    with-place {|place|
        $place | make-keys
        let server = $place | ssh-server {name: a, address: "192.0.2.1"}
        let answer = $place | ask ssh create {server: $server, check: true}
        check same [$answer.exit_code $answer.result.action] [0 unchanged]
        check same ($answer.result.steps.0 | select step machine user) {step: "look-at-machine", machine: "192.0.2.1", user: root}
        check holds ($answer.result.steps.0.looks_at | str join " ") reachable host-key login root system
    }
}

export def "test a machine that is not reached is worth another try" [] {
    with-host {|place|
        # On a network of its own nobody else takes over its address.
        let network = $"($place.infra).net"
        ^docker network create $network | ignore
        let down = $place | start-sshd down --network $network
        ^docker kill $down.container | ignore
        $place | ask ssh create {server: ($place | ssh-server $down), check: false} | check-failed false "server 'down'" "does not answer"
        $place | look {port: 23} | check-failed false $"($place.host.address):23" "does not accept connections"
        $place | ask ssh create {server: ($place | ssh-server {name: x, address: "nowhere.invalid"}), check: false} | check-failed false "nowhere.invalid" "is not known here"
        let folder = $place | folder-with "echo ran"
        $place | ask ssh run {server: ($place | ssh-server $down), folder: $folder, script: "go.sh"} | check-failed false "server 'down'" "does not answer"
        # The others are shown all the same.
        let listed = ($place | ask ssh list {servers: [($place | ssh-server $down) ($place | ssh-server $place.host)]}).result.servers
        check same ($listed | select name status) [[name status]; [down unreachable] [a running]]
        check holds $listed.0.reason "does not answer"
    }
}

export def "test a key that is not known is refused and not written down" [] {
    with-host --unknown {|place|
        let known = $place.directory | path join known_hosts
        $place | look | check-failed true $place.host.address $known "ssh-keyscan"
        let folder = $place | folder-with "echo ran"
        let run = $place | ask ssh run {server: ($place | ssh-server $place.host), folder: $folder, script: "go.sh"}
        $run | check-failed true $known
        check so ("ran" not-in $run.stdout) "nothing is run on a machine that is not known"
        check same (ls $known | get 0.size) 0b
        # What the message says to do helps.
        ^sh -c $"ssh-keyscan -p 22 ($place.host.address) >> ($known)" | complete
        check succeeded ($place | look)
    }
}

export def "test a key that has changed is refused with file and line" [] {
    with-host --unknown {|place|
        let known = $place.directory | path join known_hosts
        let other = $place | start-sshd b
        $place | know $other.container $place.host.address
        let before = open --raw $known
        $place | look | check-failed true $place.host.address $"($known), line 2" "ssh-keygen -R"
        check same (open --raw $known) $before
        ^ssh-keygen -R $place.host.address -f $known | complete
        $place | know $place.host.container $place.host.address
        check succeeded ($place | look)
    }
}

export def "test a wrong user and a wrong key are refused for good" [] {
    with-host {|place|
        $place | look {user: nobody-here} | check-failed true "'nobody-here'" "wrong user"
        let other = $place.directory | path join other-key
        $place | look {identity_file: $other} | check-failed true "'root'" $other
        let missing = $place.directory | path join missing-key
        $place | look {identity_file: $missing} | check-failed true "identity_file" $missing
        $place | look {known_hosts_file: $missing} | check-failed true "known_hosts_file" $missing
    }
}

export def "test the key can come from an agent" [] {
    with-host {|place|
        let started = ^ssh-agent -s | parse --regex '(?P<name>SSH_\w+)=(?P<value>[^;]+)' | transpose --header-row --as-record
        let server = $place | ssh-server $place.host | update ssh { reject identity_file }
        let answers = with-env $started {
            let without = $place | ask ssh create {server: $server, check: false}
            ^ssh-add -q ($place.directory | path join key)
            [$without ($place | ask ssh create {server: $server, check: false})]
        }
        kill ($started.SSH_AGENT_PID | into int)
        $answers.0 | check-failed true "the agent"
        check same $answers.1.result.action unchanged
    }
}

export def "test a user who is not root needs sudo without a password" [] {
    with-host {|place|
        check same ($place | look {user: deploy}).result.user deploy
        let folder = $place | folder-with "id -u; echo $HOME; umask"
        let order = {folder: $folder, script: "go.sh"}
        check same ($place | ask ssh run ($order | insert server ($place | ssh-server $place.host --with {user: deploy})) | get stdout | lines | first 3) ["0" "/root" "0022"]
        for operation in [create run] {
            $place | ask ssh $operation ($order | merge {server: ($place | ssh-server $place.host --with {user: plain}), check: false}) | check-failed true "'plain'" "sudo without a password"
        }
        ^docker exec $place.host.container rm /usr/bin/sudo
        $place | look {user: deploy} | check-failed true "'deploy'" "there is no sudo"
    }
}

export def "test a machine that lacks a tool is refused with its name" [] {
    with-host {|place|
        ^docker exec $place.host.container rm /usr/bin/flock
        let folder = $place | folder-with "echo ran"
        for operation in [create run] {
            let answer = $place | ask ssh $operation {server: ($place | ssh-server $place.host), check: false, folder: $folder, script: "go.sh"}
            $answer | check-failed true "has no flock"
        }
    }
}

export def "test a login shell that talks does not get in the way" [] {
    with-host {|place|
        ^docker exec $place.host.container sh -c "printf 'echo welcome; echo warning >&2\n' >/root/.bashrc; chsh -s /bin/bash root"
        check same ($place | look).result.action unchanged
        let folder = $place | folder-with "echo '::result {\"a\": 1}'"
        check same ($place | ask ssh run {server: ($place | ssh-server $place.host), folder: $folder, script: "go.sh"}).result {exit_code: 0, result: {a: 1}}
    }
}

export def "test a machine behind another is reached through it and both keys are checked" [] {
    with-place {|place|
        $place | make-keys
        let known = $place.directory | path join known_hosts
        let network = $"($place.infra).back"
        let front = $"($place.infra).front"
        ^docker network create $front | ignore
        ^docker network create --internal $network | ignore
        let jump = $place | start-sshd jump --unknown --network $front
        ^docker network connect $network $jump.container
        let inner = $place | start-sshd inner --unknown --network $network
        # Only the jump host can resolve this name.
        let host = {name: inner, address: $inner.container}
        let order = {server: ($place | ssh-server $host --with {jump: $"deploy@($jump.address):22"}), check: false}

        $place | ask ssh create $order | check-failed true $"the jump host ($jump.address):22" $known
        $place | know $jump.container $jump.address
        let unknown = $place | ask ssh create $order
        $unknown | check-failed true $inner.container $known
        check so ("jump host" not-in $unknown.failure) "the key of the machine behind is the one that is missing"
        $place | know $inner.container $inner.container
        check same ($place | ask ssh create $order).result.address $inner.address
        let folder = $place | folder-with "hostname"
        check holds ($place | ask ssh run ($order | merge {folder: $folder, script: "go.sh"})).stdout (^docker exec $inner.container hostname | str trim)
        check holds (^docker logs $jump.container | complete).stderr "Accepted publickey for deploy"

        ^docker kill $inner.container | ignore
        $place | ask ssh create $order | check-failed false $inner.container "cannot be reached from its jump host"
        ^docker kill $jump.container | ignore
        $place | ask ssh create $order | check-failed false "the jump host" "does not answer"
    }
}

export def "test nothing of the settings is taken for an option or a command" [] {
    with-host {|place|
        let mark = $place.directory | path join mark
        let touch = $"touch ($mark)"
        for host in [$"-oProxyCommand=($touch)" $"a;($touch)" $"$\(($touch)\)" $"`($touch)`" "a b" "" "a\nb" "root@a" "a/../b"] {
            $place | ask ssh create {server: ($place | ssh-server {name: a, address: $host}), check: false} | check-failed true "neither the name nor the address"
        }
        for user in [$"-oProxyCommand=($touch)" $"a;($touch)" "" "a b" "a@b"] {
            $place | look {user: $user} | check-failed true "is not the name of a user"
        }
        for jump in [$"-oProxyCommand=($touch)" $"a;($touch)" $"a:22;($touch)" $"x@-J($touch)" "" "a b" $"'($touch)'@a" "a:99999"] {
            check same ($place | look {jump: $jump} | select exit_code permanent) {exit_code: 1, permanent: true}
        }
        for path in [$"/a\"b" $"/$\{HOME\}" "/%h" "relative" "-x"] {
            $place | look {identity_file: $path} | check-failed true "identity_file"
            $place | look {known_hosts_file: $path} | check-failed true "known_hosts_file"
        }
        for port in [0 70000 "22; touch x"] { check same ($place | look {port: $port} | select exit_code permanent) {exit_code: 1, permanent: true} }
        check so (not ($mark | path exists)) "nothing of the settings was run"
    }
}

export def "test files with blanks and quotes in their names are found" [] {
    with-host {|place|
        let folder = $place.directory | path join "it's a folder"
        mkdir $folder
        ^cp -p ($place.directory | path join key) ($place.directory | path join known_hosts) $folder
        let files = {identity_file: ($folder | path join key), known_hosts_file: ($folder | path join known_hosts)}
        check same ($place | look $files).result.action unchanged
        # Through a jump host they become part of a shell command.
        check same ($place | look ($files | insert jump $"root@($place.host.address)")).result.action unchanged
    }
}

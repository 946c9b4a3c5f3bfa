# The worker's own words, and providers of the user's own.

use bench.nu *
use check.nu

const WORKER = path self ../worker/worker.nu

const DOCS = path self ../../docs/user/providers.md

# The provider of the documentation, which keeps its servers as files.
def documented-provider []: nothing -> string {
    open --raw $DOCS | decode utf-8 | split row "```nu\n" | where $it starts-with "use task.nu\n" | first | split row "```" | first
}

def with-provider [program: string, work: closure]: nothing -> nothing {
    with-place {|place|
        mkdir ($place.directory | path join made)
        $program | save ($place.directory | path join provider.nu)
        $place | describe-servers [{name: web-01, host: "10.0.0.9", options: {folder: ($place.directory | path join made)}}] --more {defaults: {provider: "./provider.nu"}}
        do $work $place
    }
}

export def "test the provider of the documentation works by path" [] {
    with-provider (documented-provider) {|place|
        let made = $place.directory | path join made
        let plan = $place | worker [server create --check]
        check same [$plan.failure $plan.result.servers.action] [null [would-create]]
        check same ($plan.result.plan | select server step) [[server step]; [web-01 touch]]
        check same (ls $made | length) 0

        let answer = $place | worker [server create web-01]
        check same ($answer.result.servers.0 | select name action host) {name: web-01, action: created, host: "10.0.0.9"}
        check same $answer.result.servers.0.provider ($place.directory | path join provider.nu)
        check same ($place | worker [server create web-01]).result.servers.0.action unchanged
        check same ($place | worker [server list]).result.servers.0.status running
        check same ($place | worker [server delete web-01 --check]).result.servers.0.action would-delete
        check same (ls $made | length) 1
        check same ($place | worker [server delete web-01]).result.servers.0.action deleted
        check same ($place | worker [server list]).result.servers.0.status absent
    }
}

export def "test what a provider prints is passed on once and in order" [] {
    with-provider 'def "main create" []: string -> nothing {
        print "::mask s3cret"
        print "making it"
        print --stderr "a warning"
        print "::progress 1/1 made"
        print "::result {\"action\":\"created\"}"
    }
    def main [] {}' {|place|
        let answer = $place | worker [server create web-01]
        check same ($answer.stdout | lines | first 3) ["::mask s3cret" "making it" "::progress 1/1 made"]
        check same ($answer.stdout | lines | where ($it starts-with "::result") | length) 1
        check same $answer.stderr "a warning\n"
    }
}

export def "test what a provider does wrong is said" [] {
    for case in [
        ['print "::fail permanent no such plan"; exit 1' true "no such plan"]
        ['print "::fail later"; exit 1' false "later"]
        ['print "hello"' true "gave no answer to 'create'"]
        ['print "::result [1]"' true "not a JSON record"]
        ['print "::result {oops"' true "not a JSON record"]
        ['print "::result {}"; exit 3' false "exit status 3"]
        ['this is no program' false "exit status 1"]
    ] {
        with-provider $"def \"main create\" []: string -> nothing { ($case.0) }\ndef main [] {}" {|place|
            let answer = $place | worker [server create web-01]
            check same [$answer.exit_code $answer.permanent] [1 $case.1]
            check holds $answer.failure $case.2
        }
    }
}

export def "test several servers fail each with its reason" [] {
    with-provider 'def "main create" []: string -> nothing { let order = $in | from json; if $order.server.name == "a" { print "::result {\"action\":\"created\"}" } else { print $"::fail permanent no room for ($order.server.name)"; exit 1 } }
def main [] {}' {|place|
        $place | describe-servers [{name: a} {name: b} {name: c}] --more {defaults: {provider: "./provider.nu"}}
        let answer = $place | worker [server create]
        check same [$answer.exit_code $answer.permanent] [1 true]
        check holds $answer.failure "2 of 3 servers failed" "b: no room for b" "c: no room for c"
        check same ($answer.result.servers | select name action) [[name action]; [a created] [b failed] [c failed]]
    }
}

export def "test names lists the servers of the file" [] {
    with-place {|place|
        $place | describe-servers [{name: web-02} {name: web-01}]
        let answer = $place | worker [server names]
        check same $answer.result {infra: $place.infra, servers: [web-02 web-01]}
        check same ($place | worker [server names web-01 --check]).result.servers [web-01]
    }
}

export def "test a server that nobody describes is refused with the names" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01} {name: web-02}]
        for operation in [create names] {
            let answer = $place | worker [server $operation web-09]
            check same [$answer.exit_code $answer.permanent] [1 true]
            check holds $answer.failure "web-09" "web-01, web-02"
        }
    }
}

export def "test hostile names reach nothing" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01}]
        let mark = $place.directory | path join mark
        let touch = $"touch ($mark)"
        for name in [$"a;($touch)" $"\($touch\)" $"$\(($touch)\)" $"`($touch)`" "web 01" "Web-01" "web_01" "../x" "" "-" "a-" "*" "$env" "{}" "[a]" "'" "\"" "a\nb"] {
            let answer = $place | worker [server create $name]
            check same [$name $answer.exit_code $answer.permanent] [$name 1 true]
            check holds $answer.failure "is not a server name"
        }
        # Nushell takes these for options; it refuses them before the worker begins.
        for name in [$"--x;($touch)" $"--x=\(($touch)\)" "-x"] {
            check same [$name (($place | worker [server create $name]).exit_code == 0)] [$name false]
        }
        check so (not ($mark | path exists)) "nothing of a name was run"
    }
}

export def "test names that look like values are names" [] {
    with-place {|place|
        let names = ["true" "null" "123" "1e5" "0x10" "1kb" "2024-01-01" "nan"]
        $place | describe-servers ($names | each {|name| {name: $name} })
        check same ($place | worker [server names ...$names]).result.servers $names
    }
}

export def "test what is missing or unknown is said" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01}]
        let unknown = $place | worker [taskserv explode redis]
        check same [$unknown.exit_code $unknown.permanent] [1 true]
        check holds $unknown.failure "no operation 'taskserv explode'" "server create, server delete, server list, server names, taskserv create"
        check holds ($place | worker [server delete]).failure "name the servers"
        check so (($place | worker [server create --frce]).exit_code != 0) "an unknown option is refused"
        let bare = ^$nu.current-exe -n --no-std-lib $WORKER server create | complete | read-words
        check holds $bare.failure "--settings"
    }
}

export def "test a wrong settings file is a failure for good with the line" [] {
    with-place {|place|
        $"infra: ($place.infra)\nservers:\n  - name: web-01\n    imge: x\n" | save $place.settings
        for operation in [[create web-01] [create] [names] [list] [delete web-01] [create --check]] {
            let answer = $place | worker [server ...$operation]
            check same [$answer.exit_code $answer.permanent $answer.result] [1 true null]
            check holds $answer.failure "settings.yaml:4: unknown key `imge`"
            check holds $answer.stderr " 4 |     imge: x"
        }
    }
}

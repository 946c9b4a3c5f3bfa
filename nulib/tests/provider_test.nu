# The template of a provider, and the program that says whether a provider keeps the contract.

use bench.nu *
use check.nu
use conforming.nu *
use sshd.nu ask
use ../worker/settings.nu

const DOCS = path self ../../docs/user/providers.md
const TEMPLATE = path self ../providers/template.nu

# Gives the work a place whose one server is of a copy of the template, changed as the pairs say.
def with-copy [changes: list<list<string>>, work: closure]: nothing -> nothing {
    with-place {|place|
        let text = open --raw $TEMPLATE | decode utf-8
        let changed = $changes | reduce --fold $text {|change, text|
            check holds $text $change.0
            $text | str replace $change.0 $change.1
        }
        let copy = $place.directory | path join mine.nu
        $changed | save $copy
        {infra: $place.infra, servers: [{name: web-01, provider: ./mine.nu}]} | to yaml | save $place.settings
        do $work ($place | merge {copy: $copy, state: {XDG_STATE_HOME: ($place.directory | path join state)}})
    }
}

export def "test the template keeps the contract" [] {
    with-copy [] {|place| $place | conforms $place.copy --with $place.state }
}

export def "test the template works in the worker" [] {
    with-copy [] {|place|
        check same ($place | worker [server create --check] --with $place.state).result.servers.action [would-create]
        check same ($place | worker [server create] --with $place.state).result.servers.action [created]
        check same ($place | worker [server create] --with $place.state).result.servers.action [unchanged]
        check same ($place | worker [server list] --with $place.state).result.servers.status [running]
        check same ($place | worker [server delete web-01] --with $place.state).result.servers.action [deleted]
        check same ($place | worker [server list] --with $place.state).result.servers.status [absent]
    }
}

export def "test conformance finds a check mode that makes the server" [] {
    with-copy [["} else if $order.check {" "} else if false {"]] {|place|
        let answer = $place | conformance $place.copy --with $place.state
        check same $answer.exit_code 1
        check so ("check mode says what would be done and changes nothing" in $answer.failed) $answer.text
    }
}

export def "test conformance finds runs that overlap" [] {
    with-copy [['flock -o "$3" sh' 'sh']] {|place|
        check same ($place | conformance $place.copy --with $place.state).failed ["two runs of one folder do not overlap"]
    }
}

export def "test conformance finds values among the arguments" [] {
    with-copy [['sh "$1" "$2" >"$1/out"' 'sh "$1" "$2" "$(cat "$1/env")" >"$1/out"']] {|place|
        check same ($place | conformance $place.copy --with $place.state).failed ["values are not seen among the processes"]
    }
}

export def "test conformance finds an order that is not looked at" [] {
    with-copy [["about-script\n" "from json | upsert env { default {} }\n"]] {|place|
        let failed = ($place | conformance $place.copy --with $place.state).failed
        for check in ["a script that is not of the folder is refused" "a variable that is no variable is refused"] {
            check so ($check in $failed) $check
        }
    }
}

export def "test conformance leaves a server that was there before" [] {
    with-copy [] {|place|
        $place | worker [server create] --with $place.state
        check same ($place | conformance $place.copy --with $place.state).failed []
        check same ($place | worker [server list] --with $place.state).result.servers.status [running]
    }
}

export def "test conformance says what it cannot begin with" [] {
    with-copy [] {|place|
        for case in [["/nowhere.nu" "there is no provider"] [local "describes no server"]] {
            let answer = $place | conformance $case.0 --with $place.state
            check same $answer.exit_code 1
            check holds $answer.text $case.1
        }
    }
}

# The examples of the documentation that are in this language.
def examples [language: string]: nothing -> list<string> {
    open --raw $DOCS | decode utf-8 | split row $"```($language)\n" | skip 1 | each { split row "```" | first }
}

export def "test the settings of the documentation are right" [] {
    with-place {|place|
        let pages = examples yaml
        check same ($pages | length) 2
        for page in $pages {
            $page | save --force $place.settings
            check so (settings load $place.settings | get servers | is-not-empty) "there are servers"
        }
        $pages.0 | save --force $place.settings
        let servers = (settings load $place.settings).servers
        check same $servers.1.ssh.port 2200
        check same $servers.1.ssh.identity_file ($place.directory | path join deploy_key)
    }
}

export def "test the run of the documentation works" [] {
    with-place {|place|
        let provider = $place.directory | path join mine.nu
        examples nu | where $it has "podman" | first | save $provider
        # Where the example reaches a container, here it is this machine.
        let shim = $place.directory | path join bin
        mkdir $shim
        "#!/bin/sh\n[ \"$1 $2 $5\" = 'exec --interactive web-01' ] || exit 1\nshift 5\nexec \"$@\"\n" | save ($shim | path join podman)
        ^chmod +x ($shim | path join podman)
        let folder = $place.directory | path join scripts
        mkdir $folder
        'echo "::result {\"seen\": \"$WORD\"}"; exit 4' | save ($folder | path join go.sh)
        let answer = with-env {PATH: ([$shim] ++ $env.PATH)} {
            $place | ask $provider run {server: {name: web-01}, folder: $folder, script: "go.sh", env: {WORD: "a 'word'"}}
        }
        check same $answer.result {exit_code: 4, result: {seen: "a 'word'"}}
    }
}

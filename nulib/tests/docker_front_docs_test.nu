# The pages of the documentation, typed as they are written, on real servers. Only the infra has another
# name, so that two runs at once do not meet.

use bench.nu [inside with-place]
use check.nu
use user.nu *

const DOCS = path self ../../docs/user
const PROGRAMS = path self ../bin

# The blocks of a page that begin with this mark.
def blocks [mark: string]: string -> list<string> {
    split row "```" | enumerate | where index mod 2 == 1 | get item | where $it starts-with $"($mark)\n" | each {|block| $block | str substring ($mark | str length).. }
}

# A page with the place's infra.
def page [name: string]: record -> string {
    let place = $in
    open --raw ($DOCS | path join $name) | decode utf-8 | str replace --all "production" $place.infra
}

# Types all Nushell blocks of a page, in one Nushell.
def type-nushell [text: string]: record -> nothing {
    let user = $in
    ($text | blocks nu) | str join "\n" | save --force ($user.home | path join page.nu)
    let answer = $user | shell "source page.nu"
    check same [$answer.exit_code $answer.stderr] [0 ""]
}

export def "test every line of the page about nushell works" [] {
    with-place {|place|
        with-user {|user|
            let text = $place | page nushell.md
            $text | blocks "yaml settings.yaml" | get 0 | save --force $user.settings
            $user | type-nushell $text
            check same ($place | inside web-01 [redis-cli ping]) "PONG"
            check same ($user | value "orchestrator task list --status failed | length") 0
            let lines = $text | blocks sh | str join "\n"
            check holds $lines "start-orchestrator.nu --background" "provisioning workflow wait"
            let found = [$PROGRAMS ($nu.current-exe | path dirname)] ++ $env.PATH
            let answer = $user | as-user sh [-e -u -c $lines] --with {PATH: $found}
            check same [$answer.exit_code ($answer.stderr | lines | where $it =~ "Failed|Cancelled|Error")] [0 []]
            check same ($answer.stderr | lines | where $it ends-with ": Completed" | length) 3
        }
    }
}

export def "test every line of the page about migrating works" [] {
    with-place {|place|
        with-user {|user|
            $place | page nushell.md | blocks "yaml settings.yaml" | get 0 | save --force $user.settings
            $user | type-nushell ($place | page migrating.md)
            check same ($user | value "orchestrator task list --status failed | length") 0
        }
    }
}

export def "test the page about nushell names every command" [] {
    with-user {|user|
        let text = open --raw ($DOCS | path join nushell.md) | decode utf-8
        let commands = $user | value "scope commands | where type == plugin and name =~ '^orchestrator .' | get name"
        # A command with subcommands only shows its help.
        let working = $commands | where {|name| $commands | where $it starts-with $"($name) " | is-empty }
        check so (($working | length) > 20) "the commands are found"
        for name in $working { check holds $text $"`($name)`" }
    }
}

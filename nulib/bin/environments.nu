# The front program's commands about test environments.

use ../provisioning
use ../provisioning/environment.nu

# Those that begin work in environments, and return the environments.
const WORK = ["test quick" "test env single" "test env server" "test env cluster" "test env run" "test env cleanup"]

# Whether a command begins work in environments.
export def is-work [command: string]: nothing -> bool {
    $command in $WORK
}

# Whether work is waited for.
export def is-awaited [command: string, flags: record]: nothing -> bool {
    $command == "test quick" or $flags.wait
}

# Has the module begin work, and returns the environments.
export def begin [command: string, typed: record]: nothing -> list<record> {
    let flags = $typed.flags
    let words = $typed.arguments
    let environments = match $command {
        "test env run" => { provisioning test env run ...$words --wait=$flags.wait --script $flags.script --idempotence-check=$flags.idempotence-check --fault $flags.fault --junit $flags.junit }
        "test env cleanup" => { provisioning test env cleanup ...$words --wait=$flags.wait }
        _ => {
            let said = $flags | items {|flag, value| [($flag | str replace --all "-" "_") $value] } | where $it.1 != null | into record
            environment make $command $words (if "option" in $said { $said | update option { as-data } } else { $said })
        }
    }
    $environments | append []
}

# Has the module look, or change something at once.
export def look [command: string, typed: record]: nothing -> any {
    let flags = $typed.flags
    let words = $typed.arguments
    match $command {
        "test env list" => { provisioning test env list --status $flags.status --infra $flags.infra }
        "test env status" => { provisioning test env status ...$words }
        "test env fault" => { provisioning test env fault ...$words }
        "test topology list" => { provisioning test topology list }
        "test topology load" => { provisioning test topology load $words.0 }
        "test image prune" => { provisioning test image prune }
    }
}

# Prints what the nodes have printed, line by line as it comes.
export def print-logs [typed: record]: nothing -> nothing {
    let flags = $typed.flags
    let lines = provisioning test env logs ...$typed.arguments --node $flags.node --tail $flags.tail --follow=$flags.follow
    $lines | each {|line|
        print (if $flags.json { $line | to json --raw } else if $flags.raw { $line.line } else { $"($line.node): ($line.step): ($line.line)" })
    } | ignore
}

# Whether all that was asked for has passed.
export def has-passed [command: string, flags: record, environment: record]: nothing -> bool {
    match $command {
        "test env cleanup" => ($environment.status == cleaned)
        "test quick" | "test env run" => ($environment.passed == true)
        _ => ($environment.passed == true or ($environment.passed == null and not $flags.auto-start))
    }
}

# Parameters as they are meant: a number or a boolean where the text is one, else the text.
def as-data []: record -> record {
    items {|name, text| [$name (try { $text | from json } catch { $text })] } | into record
}

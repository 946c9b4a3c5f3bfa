# The front program's second half, started by `provisioning` beside it: reads the command line, has the
# `provisioning` module do it, shows what came of it, and ends with 0 only when all passed.
#
# The words come on standard input. Help and the reading of options come from the
# signatures of the module's commands, so that an option is written down in one place.

use ../provisioning
use ../provisioning/order.nu
use ../provisioning/worker.nu inside-a-task
use ../worker/task.nu
use environments.nu
use options.nu
use show.nu

# Exit statuses. A wait that was stopped ends with 1 too: nobody knows yet whether all passed.
const FAILED = 1
const WRONG_USAGE = 2

# The words that ask for help.
const HELP = [help --help -h]

# Options of the program, whatever the command is.
const OWN = [
    [parameter_name parameter_type syntax_shape short_flag is_optional description];
    [json switch null j true "Print the result as JSON"]
    [data-dir named path D true "Data directory of the engine (default: your own engine)"]
    [help switch null h true "Show this help"]
]

def main []: any -> nothing {
    let words = try { $in | words } catch {|error| refuse $error $WRONG_USAGE }
    let commands = commands
    # The longest that there is: some commands have three words.
    let known = [3 2] | each {|length| $commands | where name == ($words | first ([($words | length) $length] | math min) | str join " ") } | flatten
    if ($known | is-empty) {
        let family = $words | where $it not-in $HELP | append "" | first
        let shown = $commands | where {|command| $command.name starts-with $family }
        if ($words | is-empty) or ($words | any {|word| $word in $HELP }) and ($shown | is-not-empty) {
            show usage $shown $OWN
            exit (if ($words | is-empty) { $WRONG_USAGE } else { 0 })
        }
        let name = $words | first ([($words | length) 2] | math min) | str join " "
        refuse {details: {msg: $"there is no command '($name)'", help: "`provisioning --help` shows those that there are"}} $WRONG_USAGE
    }
    let command = $known.0
    let typed = $words | skip ($command.name | split words | length)
    if ($typed | any {|word| $word in [--help -h] }) {
        show help $command $OWN
        return
    }
    let typed = try { options parse $typed ($command.parameters ++ $OWN) } catch {|error| refuse $error $WRONG_USAGE }
    if $typed.flags.data-dir != null { $env.config.plugins.orchestrator = {data_dir: $typed.flags.data-dir} }
    if $command.name starts-with "test " {
        test $command.name $typed
    } else if $command.orders { order $command.name $typed } else if $command.name == "workflow wait" {
        await $typed.arguments.0 $typed.flags.json
    } else {
        let answer = try { look $command.name $typed } catch {|error| refuse $error }
        show value (if $typed.flags.json { $answer } else { $answer | in-short $command.name }) $typed.flags.json
    }
}

# The columns of a list that a person looks for; `--json` has all.
def in-short [command: string]: any -> any {
    match $command {
        "workflow list" => { select id status name created duration }
        "taskserv list" => { select name description depends_on | update depends_on { str join ", " } }
        _ => { }
    }
}

# What was typed: each word is ended by the character 036.
def words []: any -> list<string> {
    let text = $in | into binary | decode utf-8
    # What stands for bytes that are no text would name something else.
    if "\u{fffd}" in $text { options wrong "an argument is not UTF-8" }
    $text | split row (char --integer 30) | drop 1
}

# The commands of the module, with their parameters, and whether they give an order to the engine.
def commands []: nothing -> table {
    scope commands | where name =~ '^provisioning .' | sort-by name | each {|command|
        let parameters = $command.signatures | values | first | where parameter_type not-in [input output]
        {
            name: ($command.name | str replace "provisioning " "")
            description: $command.description
            more: $command.extra_description
            parameters: $parameters
            orders: ("wait" in $parameters.parameter_name)
        }
    }
}

# Does what only looks.
def look [command: string, typed: record]: nothing -> any {
    let flags = $typed.flags
    match $command {
        "server list" => { provisioning server list ...$typed.arguments --infra $flags.infra --settings $flags.settings }
        "server names" => { provisioning server names ...$typed.arguments --infra $flags.infra --settings $flags.settings }
        "taskserv list" => { provisioning taskserv list ...$typed.arguments --settings $flags.settings }
        "workflow status" => { provisioning workflow status $typed.arguments.0 }
        "workflow list" => { provisioning workflow list --infra $flags.infra }
    }
}

# Does what is about test environments. Where work is waited for, its outcome is the program's.
def test [command: string, typed: record]: nothing -> nothing {
    let json = $typed.flags.json
    if $command == "test env logs" {
        try { environments print-logs $typed } catch {|error| refuse $error }
        return
    }
    if not (environments is-work $command) {
        show value (try { environments look $command $typed } catch {|error| refuse $error }) $json
        return
    }
    let begun = try { environments begin $command $typed } catch {|error| refuse $error }
    if not (environments is-awaited $command $typed.flags) {
        for environment in $begun { show submitted $environment $json }
        return
    }
    for environment in $begun { show environment $environment $json }
    if not ($begun | all {|environment| environments has-passed $command $typed.flags $environment }) { exit $FAILED }
}

# Gives an order. It is only submitted at first, so that its id is known before it is waited for.
def order [command: string, typed: record]: nothing -> nothing {
    let given = $typed.flags | items {|flag, value| [($flag | str replace --all "-" "_") $value] } | where $it.1 != null | into record
    let answer = try { order give $command $typed.arguments ($given | merge {wait: false}) } catch {|error| refuse $error }
    if (inside-a-task) {
        # What this program prints there are words to the engine, its result among them.
        task result $answer
    } else if $typed.flags.wait {
        print --stderr $"provisioning: ($answer.name): workflow ($answer.id)"
        await $answer.id $typed.flags.json
    } else {
        show submitted $answer $typed.flags.json
    }
}

# Waits until a workflow has ended, shows it, and ends the program. What Ctrl-C breaks off cannot be
# caught, so what to do then is said before, and whether there is such a workflow is asked before too.
def await [id: string, json: bool]: nothing -> nothing {
    if (is-terminal --stderr) {
        print --stderr $"provisioning: Ctrl-C stops waiting, and the work goes on; `provisioning workflow wait ($id)` waits for it again"
    }
    try { provisioning workflow status $id | ignore } catch {|error| refuse $error }
    let workflow = provisioning workflow wait $id
    show workflow $workflow $json
    if $workflow.status != "Completed" { exit $FAILED }
}

# Says what is wrong, and ends the program. A request that means nothing is wrong usage.
def refuse [error: record, status: int = $FAILED]: nothing -> nothing {
    let cause = $error.details | innermost
    print --stderr $"provisioning: ($cause.msg)"
    if ($cause.help? | is-not-empty) { print --stderr $"  ($cause.help | show of-this-program)" }
    exit (if $cause.code? in ["orchestrator::invalid" "provisioning::usage"] { $WRONG_USAGE } else { $status })
}

# The error inside the ones that Nushell wraps around it for every closure that it has passed.
def innermost []: record -> record {
    let error = $in
    if $error.code? == "nu::shell::eval_block_with_input" and ($error.inner? | is-not-empty) { $error.inner.0 | innermost } else { $error }
}

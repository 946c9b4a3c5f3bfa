# What the front program prints: help, and what came of a command, for people or as JSON.

# What is shown of a step of a plan.
const PLAN = [server taskserv step name]

# The commands, each with what it does.
export def usage [commands: table, own: table]: nothing -> nothing {
    print ([
        "usage: provisioning COMMAND [ARGUMENTS] [OPTIONS]"
        ""
        ...($commands | select name description | in-columns)
        ""
        "options of every command:"
        ...($own | options)
        ""
        "It ends with 0 when all passed, 1 when something failed, 2 when it was used wrongly."
        "`provisioning COMMAND --help` shows the options of a command."
    ] | str join "\n")
}

# One command, with everything that it takes.
export def help [command: record, own: table]: nothing -> nothing {
    let arguments = $command.parameters | where parameter_type in [positional rest] | each {|parameter|
        let name = $parameter.parameter_name | str uppercase
        if $parameter.parameter_type == rest { $" [($name) …]" } else { $" ($name)" }
    } | str join
    print ([
        $"usage: provisioning ($command.name)($arguments) [OPTIONS]"
        ""
        $command.description
        ""
        ...(if ($command.more | is-empty) { [] } else { [$command.more ""] })
        ...($command.parameters ++ $own | options)
    ] | str join "\n")
}

# What a command takes, one line each.
def options []: table -> list<string> {
    each {|parameter|
        let name = $parameter.parameter_name
        let value = match $parameter.syntax_shape? { null => "", "record" => " KEY=VALUE", "any" => " VALUE …", _ => $" ($parameter.syntax_shape | str uppercase)" }
        let short = if $parameter.short_flag? == null { "    " } else { $"-($parameter.short_flag), " }
        let left = match $parameter.parameter_type {
            "positional" => ($name | str uppercase)
            "rest" => $"[($name | str uppercase) …]"
            _ => $"($short)--($name)($value)"
        }
        {name: $left, description: $parameter.description}
    } | in-columns
}

# Names with what they mean beside them.
def in-columns []: table<name: string, description: string> -> list<string> {
    let rows = $in
    let width = $rows.name | each { str length --grapheme-clusters } | math max
    $rows | each {|row| $"  ($row.name | fill --width $width)  ($row.description)" }
}

# A value of a command that only looks.
export def value [value: any, json: bool]: nothing -> nothing {
    if $json { print ($value | to json) } else { print ($value | for-eyes) }
}

# A workflow that goes on by itself.
export def submitted [workflow: record, json: bool]: nothing -> nothing {
    if $json { print ($workflow | to json) } else { print $workflow.id }
}

# A workflow that has ended. Why tasks failed is said on standard error.
export def workflow [workflow: record, json: bool]: nothing -> nothing {
    if $json { print ($workflow | to json) } else {
        print ($workflow.tasks | select name status attempt duration | for-eyes)
        let plan = $workflow.tasks | get --optional result.plan | compact | flatten
        if ($plan | is-not-empty) { print ($plan | select --optional ...($PLAN | where $it in ($plan | columns)) | update cells { default "" } | for-eyes) }
    }
    for task in ($workflow.tasks | where status != "Completed") {
        print --stderr $"provisioning: ($task.name): ($task.status): ($task.error? | default ($task.cancelled_because? | default 'it did not end'))"
    }
    print --stderr $"provisioning: ($workflow.name): ($workflow.status)"
}

# A test environment whose work has been waited for. What failed, and what is kept, is said on standard error.
export def environment [environment: record, json: bool]: nothing -> nothing {
    if $json { print ($environment | to json) } else if ($environment.results | is-not-empty) {
        print ($environment.results | select node name passed duration | for-eyes)
    }
    for test in ($environment.results | where not $it.passed) {
        print --stderr $"provisioning: ($test.node): ($test.name): ($test.error? | default $test.output)"
    }
    print --stderr $"provisioning: ($environment.name): (if $environment.error == null { $environment.status } else { $'($environment.status): ($environment.error)' })"
    if $environment.help != null { print --stderr $"provisioning: ($environment.help | of-this-program)" }
}

# A sentence of the plugin about its commands as one about this program's, which have the same words.
export def of-this-program []: string -> string {
    str replace --all "`orchestrator test " "`provisioning test "
}

# A value as text that fits into a log, or onto the terminal that it is printed on.
def for-eyes []: any -> string {
    let width = if (is-terminal --stdout) { (term size).columns } else { 160 }
    $in | table --theme light --width $width | ansi strip | str trim --right
}

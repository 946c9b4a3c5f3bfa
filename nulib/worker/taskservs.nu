# Taskservs: where they are, what their `taskserv.toml` says, and the order in which they depend on
# each other.
#
# A taskserv is a folder. One beside the settings file comes before one of the project's own of the
# same name, so that a user can adapt one by copying it.

use fault.nu
use schema.nu type-in-words
use sections.nu *
use values.nu *

# The project's own.
const OWN = path self ../taskservs

# What a `taskserv.toml` leaves out.
const DEFAULTS = {depends_on: [], ports: [], roles: [], parameters: {}, ready: null}
const NEEDS = {memory_mb: null, capabilities: [], privileged: false, systemd: false}
const TIMEOUTS = {install_sec: 900, start_sec: 120, verify_sec: 60}

# The folders that hold taskservs, the user's first.
export def places [
    settings_file?: string  # Beside this file, and the project's own
]: nothing -> list<string> {
    [(if $settings_file != null { $settings_file | path expand | path dirname | path join taskservs }) $OWN] | compact
}

# The taskservs in these places: name, folder.
export def available [places: list<string>]: nothing -> table<name: string, folder: string> {
    $places | each {|place|
        if ($place | path type) != "dir" { return [] }
        ls --short-names $place | where type in [dir symlink] | get name | where ($it | is-label) | sort | each {|name|
            {name: $name, folder: ($place | path join $name)}
        } | where ($it.folder | path join taskserv.toml | path exists)
    } | flatten | uniq-by name | sort-by name
}

# A taskserv by its name, checked and with everything filled in.
export def load [name: string, places: list<string>, --for: string]: nothing -> record {
    let found = available $places | where name == $name
    if ($found | is-empty) {
        let known = available $places | get name | listed
        let reason = if $for == null { "" } else { $", which ($for)" }
        fault permanent $"there is no taskserv '($name)'($reason): there is ($known)" --details $"Looked in:\n($places | str join (char newline))"
    }
    read $found.0.folder
}

# The taskservs with these names and all that they depend on, each after what it depends on.
export def in-order [names: list<string>, places: list<string>]: nothing -> list<any> {
    mut done = []
    for name in $names { $done = visit $name $places $done [] }
    $done
}

# Adds a taskserv to those that are done, after what it depends on. `path` is what led to it.
def visit [name: string, places: list<string>, done: list<any>, path: list<string>]: nothing -> list<any> {
    if $name in $done.name? { return $done }
    if $name in $path {
        let circle = $path | skip until {|it| $it == $name } | append $name
        fault permanent $"taskservs depend on each other in a circle: ($circle | str join ' → ')"
    }
    let reason = if ($path | is-empty) { null } else { $"'($path | last)' depends on" }
    let taskserv = load $name $places --for $reason
    mut done = $done
    for dependency in $taskserv.depends_on { $done = visit $dependency $places $done ($path ++ [$name]) }
    $done ++ [$taskserv]
}

# Reads a taskserv's folder. Every mistake is named with its file and key.
export def read [folder: string]: nothing -> record {
    let file = $folder | path join taskserv.toml
    let text = try { open --raw $file | decode utf-8 } catch {|error| fault permanent $"($file) cannot be read: ($error.msg)" }
    let given = try { $text | from toml } catch {|error| refuse-syntax $file $error }
    let problems = check-section taskserv $given []
    if ($problems | is-not-empty) { refuse $file $problems }
    let taskserv = {name: ($folder | path basename), folder: $folder} | merge $DEFAULTS | merge $given | merge {
        needs: ($NEEDS | merge ($given.needs? | default {}))
        timeouts: ($TIMEOUTS | merge ($given.timeouts? | default {}))
    }
    let problems = $taskserv | check-relations
    if ($problems | is-not-empty) { refuse $file $problems }
    let scripts = [install.sh verify.sh] ++ (if $taskserv.ready == null { [] } else { [ready.sh] })
    let missing = $scripts | where ($folder | path join $it | path type) != "file"
    if ($missing | is-not-empty) { fault permanent $"the taskserv in ($folder) has no ($missing | str join ', ')" }
    $taskserv | insert has_start ($folder | path join start.sh | path exists)
}

def refuse-syntax [file: string, error: record]: nothing -> any {
    let found = $error.rendered | parse --regex 'at line (?P<line>\d+), column (?P<column>\d+)'
    let line = $found | get --optional 0.line | default "1"
    let what = $error.rendered | lines | str trim | where ($it | is-not-empty) | last
    fault permanent $"($file):($line): this is not TOML: ($what)"
}

def refuse [file: string, problems: list<any>]: nothing -> any {
    let others = if ($problems | length) == 1 { "" } else { $" \(and (($problems | length) - 1) more)" }
    let all = $problems | each {|problem| $"($file): ($problem.path | in-words): ($problem.problem)" }
    fault permanent $"($all.0)($others)" --details ($all | str join (char newline))
}

# What must fit together in a `taskserv.toml`.
def check-relations []: record -> list<any> {
    let taskserv = $in
    let parameters = $taskserv.parameters
    let defaults = $parameters | items {|name, parameter|
        if $parameter.default? == null or ($parameter.default | fits ($parameter.type | split row ' ')) { return [] }
        [{path: [parameters $name default], problem: $"it must be (type-in-words $parameter.type), not ($parameter.default | kind)"}]
    } | flatten
    let ports = $taskserv.ports | enumerate | where ($it.item | describe) == "string" | where {|port|
        ($parameters | get --optional $port.item | get --optional type | default "") !~ '^integer '
    } | each {|port| {path: [ports $port.index], problem: $"'($port.item)' is no parameter that is a whole number"} }
    let itself = if $taskserv.name in $taskserv.depends_on { [{path: [depends_on], problem: "it cannot depend on itself"}] } else { [] }
    let role = if ($taskserv.roles | is-not-empty) and "role" in $parameters { [{path: [parameters role], problem: "`role` is taken by `roles`"}] } else { [] }
    $defaults ++ $ports ++ $itself ++ $role
}

# The values of a taskserv's parameters on a server, and the server's role, from what its settings say.
export def choices [server: string, options: record]: record -> record<parameters: record, role: string> {
    let taskserv = $in
    let roles = if ($taskserv.roles | is-empty) { {} } else {
        {role: {type: $"choice ($taskserv.roles | str join ' ')", default: $taskserv.roles.0}}
    }
    let declared = $taskserv.parameters | merge $roles
    let unknown = $options | columns | where $it not-in ($declared | columns)
    if ($unknown | is-not-empty) {
        let known = $declared | columns | listed
        fault permanent $"server '($server)': taskserv '($taskserv.name)' has no parameter `($unknown.0)`: it has ($known)"
    }
    let values = $declared | items {|name, parameter|
        let value = $options | get --optional $name | default $parameter.default?
        if $value == null {
            fault permanent $"server '($server)': taskserv '($taskserv.name)' needs its parameter `($name)`: say it under `taskserv_options`"
        }
        if not ($value | fits ($parameter.type | split row ' ')) {
            fault permanent $"server '($server)': the parameter `($name)` of taskserv '($taskserv.name)' must be (type-in-words $parameter.type), not ($value | kind)"
        }
        [$name ($value | into string)]
    } | into record
    if ($taskserv.roles | is-empty) { {parameters: $values, role: ""} } else { {parameters: ($values | reject role), role: $values.role} }
}

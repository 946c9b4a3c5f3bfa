# Which taskservs belong on which servers, and the tasks that bring them there: pure, apart from reading
# the taskservs' folders.
#
# A task is one call of this program: `name` is unique in its graph, `operation` and `names` are the
# words of the call, `after` names the tasks that must be done before it.

use fault.nu
use taskservs.nu
use values.nu listed

# The names of the taskservs that the settings put on a server: its own, and those of its clusters.
export def taskservs-of [server: record]: record -> list<string> {
    $server.taskservs ++ ($in.clusters | where {|cluster| $server.name in $cluster.servers } | get taskservs | flatten) | uniq
}

# What the settings say of the parameters of a server's taskservs. The server comes before its clusters.
export def options-of [server: record]: record -> record {
    let clusters = $in.clusters | where {|cluster| $server.name in $cluster.servers }
    $clusters | get taskserv_options | append $server.taskserv_options | reduce --fold {} {|options, all| $all | merge deep $options }
}

# Refuses options of a server for a taskserv that does not belong on it. `taskservs` are those that are
# known to.
export def check-options [server: record, taskservs: list<any>, places: list<string>]: record -> nothing {
    let settings = $in
    let open = $settings | options-of $server | columns | where $it not-in $taskservs.name?
    if ($open | is-empty) { return }
    let all = taskservs in-order ($settings | taskservs-of $server) $places | get name
    let unknown = $open | where $it not-in $all
    if ($unknown | is-not-empty) {
        fault permanent $"server '($server.name)' has options for a taskserv '($unknown.0)', which it does not have: it has ($all | listed)"
    }
}

# The servers on which an operation on a taskserv works: those that are named, or all that have it.
export def servers-with [name: string, servers: list<string>, places: list<string>]: record -> list<any> {
    let settings = $in
    if ($servers | is-not-empty) {
        let chosen = $settings.servers | where name in $servers
        for server in $chosen {
            let own = $settings | taskservs-of $server
            # A dependency is nobody's own, and yet it is there.
            if $name in $own or $name in (taskservs in-order $own $places).name? { continue }
            fault permanent $"server '($server.name)' does not have the taskserv '($name)': it has ($own | listed); add it to the `taskservs` of the server or of a cluster"
        }
        return $chosen
    }
    let chosen = $settings.servers | where {|server| $name in ($settings | taskservs-of $server) }
    if ($chosen | is-empty) {
        fault permanent $"no server of ($settings.file) has the taskserv '($name)': add it to the `taskservs` of a server or of a cluster"
    }
    $chosen
}

# The clusters with this name or of this type, and their servers.
export def cluster [type: string]: record -> record<names: list<string>, servers: list<any>> {
    let settings = $in
    let found = $settings.clusters | where {|cluster| $cluster.name == $type or $cluster.type == $type }
    if ($found | is-empty) {
        let known = $settings.clusters | each {|cluster| if $cluster.type == null { $cluster.name } else { $"($cluster.name) \(type ($cluster.type))" } }
        fault permanent $"($settings.file) describes no cluster with the name or the type '($type)': there is ($known | listed)"
    }
    let members = $found | get servers | flatten | uniq
    {names: $found.name, servers: ($settings.servers | where name in $members)}
}

# Refuses to take servers away from a cluster that is to stay.
export def check-shared [cluster: record]: record -> nothing {
    for other in ($in.clusters | where name not-in $cluster.names) {
        let shared = $other.servers | where $it in $cluster.servers.name
        if ($shared | is-not-empty) {
            fault permanent $"server '($shared.0)' belongs to cluster '($other.name)' as well: delete the servers that may go with `server delete`"
        }
    }
}

# The tasks that make servers, or remove them.
export def server-tasks [operation: string]: list<any> -> list<any> {
    $in | each {|server|
        {name: $"($operation) ($server.name)", operation: $"server ($operation)", names: [$server.name], after: [], labels: {server: $server.name}}
    }
}

# The tasks that bring taskservs to a server, in order. `first` names the tasks that make the server.
export def taskserv-tasks [server: string, taskservs: list<any>, --first: list<string> = []]: nothing -> list<any> {
    $taskservs | each {|taskserv|
        task create $taskserv.name $server ($first ++ ($taskserv.depends_on | each {|name| task-name $name $server }))
    }
}

# The task that verifies a taskserv on a server.
export def verify-task [taskserv: string, server: string]: nothing -> record {
    task verify $taskserv $server []
}

def task [operation: string, taskserv: string, server: string, after: list<string>]: nothing -> record {
    {
        name: (task-name $taskserv $server)
        operation: $"taskserv ($operation)"
        names: [$taskserv $server]
        after: $after
        labels: {server: $server, taskserv: $taskserv}
    }
}

def task-name [taskserv: string, server: string]: nothing -> string {
    $"($taskserv) on ($server)"
}

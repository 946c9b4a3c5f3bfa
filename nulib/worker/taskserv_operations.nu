# The operations on taskservs.

use install.nu *
use fault.nu
use graph.nu *
use servers.nu *
use settings.nu
use task.nu
use taskservs.nu
use words.nu *

# Brings a taskserv to servers: what it depends on first, then itself. Without names, to all servers
# of the settings file that have it.
export def "main taskserv create" [
    name?: external_arg         # The taskserv
    ...servers: external_arg    # The servers
    --only                      # Without what it depends on, which is there already
    --infra: external_arg       # The infra, where the file does not say it
    --settings: external_arg    # The settings file
    --check                     # Change nothing, contact nobody, and say what would be done
]: nothing -> nothing {
    fault guard {
        let work = choose $name $servers $infra $settings
        let all = $work.servers | each {|server| {server: $server, taskservs: (taskservs-for $work $server $only)} }
        let answers = bring-all $work.settings $all "create" $check
        hand-over $work.settings {taskserv: $work.name, taskservs: ($answers | presentable)} $work.servers ($answers | plan-of-taskservs) $check
        $answers | fail-where-failed-on-servers
    }
}

# Verifies a taskserv on servers, and changes nothing there. Without names, on all servers of the
# settings file that have it.
export def "main taskserv verify" [
    name?: external_arg         # The taskserv
    ...servers: external_arg    # The servers
    --infra: external_arg       # The infra, where the file does not say it
    --settings: external_arg    # The settings file
    --check                     # Contact nobody, and say what would be verified
]: nothing -> nothing {
    fault guard {
        let work = choose $name $servers $infra $settings
        let all = $work.servers | each {|server| {server: $server, taskservs: (taskservs-for $work $server true)} }
        let answers = bring-all $work.settings $all "verify" $check
        hand-over $work.settings {taskserv: $work.name, taskservs: ($answers | presentable)} $work.servers ($answers | plan-of-taskservs) $check
        $answers | fail-where-failed-on-servers
    }
}

# Lists the taskservs that there are: beside the settings file, and the project's own.
export def "main taskserv list" [
    ...names: external_arg      # Only these
    --infra: external_arg       # Taken and of no consequence
    --settings: external_arg    # The settings file beside which to look
    --check                     # Taken and of no consequence: nothing is changed
]: nothing -> nothing {
    fault guard {
        let names = $names | each { name-in-text taskserv }
        let places = if $settings == null { taskservs places } else { taskservs places ($settings | in-text) }
        let all = if ($names | is-empty) { taskservs available $places | get name } else { $names }
        task result {
            taskservs: ($all | each {|name|
                let taskserv = taskservs load $name $places
                $taskserv | select name description depends_on needs ports roles parameters | insert where $taskserv.folder
            })
        }
    }
}

# The tasks by which `create` or `verify` of a taskserv can be done by somebody who runs one after the
# other, or at the same time what does not depend on each other.
export def "main taskserv plan" [
    operation?: external_arg    # create or verify
    name?: external_arg         # The taskserv
    ...servers: external_arg    # The servers
    --infra: external_arg       # The infra, where the file does not say it
    --settings: external_arg    # The settings file
    --check                     # Taken and of no consequence: nothing is changed
]: nothing -> nothing {
    fault guard {
        let operation = $operation | operation-in-text [create verify]
        let work = choose $name $servers $infra $settings
        let tasks = $work.servers | each {|server|
            let taskservs = taskservs-for $work $server ($operation == "verify")
            if $operation == "verify" { [(verify-task $work.name $server.name)] } else { taskserv-tasks $server.name $taskservs }
        } | flatten
        task result {infra: $work.settings.infra, tasks: $tasks}
    }
}

# What the words of an operation name: the settings, the taskserv, the servers.
def choose [name: any, servers: list<any>, infra: any, settings: any]: nothing -> record {
    let name = $name | name-in-text taskserv
    let servers = $servers | names-in-text | uniq
    let path = settings-path $settings
    let only = if ($servers | is-empty) { null } else { $servers }
    let settings = settings load $path --infra ($infra | in-text) --only $only --mates
    let places = taskservs places $settings.file
    # So that a name that nobody knows is said before where it is not.
    taskservs load $name $places | ignore
    $settings | pick $servers | ignore
    {settings: $settings, name: $name, places: $places, servers: ($settings | servers-with $name $servers $places)}
}

# The taskservs that are brought to a server, after its options have been looked at.
def taskservs-for [work: record, server: record, only: bool]: nothing -> list<any> {
    let wanted = taskservs in-order [$work.name] $work.places
    $work.settings | check-options $server $wanted $work.places
    if $only { $wanted | where name == $work.name } else { $wanted }
}

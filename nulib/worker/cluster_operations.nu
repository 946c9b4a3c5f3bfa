# The operations on clusters: servers first, then what belongs on them.

use install.nu *
use fault.nu
use graph.nu *
use servers.nu *
use settings.nu
use task.nu
use taskservs.nu
use words.nu *

# Makes a cluster's servers, and brings all their taskservs to them.
export def "main cluster create" [
    type?: external_arg         # The name or the type of clusters of the settings file
    --infra: external_arg       # The infra, where the file does not say it
    --settings: external_arg    # The settings file
    --check                     # Change nothing, and say what would be done
]: nothing -> nothing {
    fault guard {
        let work = choose $type $infra $settings
        let all = $work | with-taskservs
        let servers = $work | work-on-servers "create" $check
        let made = $servers | where action != "failed" | get name
        let taskservs = bring-all $work.settings ($all | where $it.server.name in $made) "create" $check
        let plan = ($servers | plan-of-servers) ++ ($taskservs | plan-of-taskservs)
        let parts = {clusters: $work.names, servers: ($servers | presentable), taskservs: ($taskservs | presentable)}
        hand-over $work.settings $parts $work.servers $plan $check
        # What failed on the servers is named with the server.
        $servers ++ ($taskservs | where action != skipped | update name {|answer| $"($answer.name) on ($answer.server)" }) | fail-where-failed "servers and taskservs"
    }
}

# Verifies every taskserv on every server of a cluster.
export def "main cluster verify" [
    type?: external_arg         # The name or the type of clusters of the settings file
    --infra: external_arg       # The infra, where the file does not say it
    --settings: external_arg    # The settings file
    --check                     # Contact nobody, and say what would be verified
]: nothing -> nothing {
    fault guard {
        let work = choose $type $infra $settings
        let answers = bring-all $work.settings ($work | with-taskservs) "verify" $check
        let parts = {clusters: $work.names, taskservs: ($answers | presentable)}
        hand-over $work.settings $parts $work.servers ($answers | plan-of-taskservs) $check
        $answers | fail-where-failed-on-servers
    }
}

# Removes a cluster's servers.
export def "main cluster delete" [
    type?: external_arg         # The name or the type of clusters of the settings file
    --infra: external_arg       # The infra, where the file does not say it
    --settings: external_arg    # The settings file
    --check                     # Change nothing, and say what would be done
]: nothing -> nothing {
    fault guard {
        let work = choose $type $infra $settings
        $work.settings | check-shared $work
        let answers = $work | work-on-servers "delete" $check
        let parts = {clusters: $work.names, servers: ($answers | presentable)}
        hand-over $work.settings $parts $work.servers ($answers | plan-of-servers) $check
        $answers | fail-where-failed servers
    }
}

# The tasks by which an operation on a cluster can be done by somebody who runs one after the other, or
# at the same time what does not depend on each other.
export def "main cluster plan" [
    operation?: external_arg    # create, verify or delete
    type?: external_arg         # The name or the type of clusters of the settings file
    --infra: external_arg       # The infra, where the file does not say it
    --settings: external_arg    # The settings file
    --check                     # Taken and of no consequence: nothing is changed
]: nothing -> nothing {
    fault guard {
        let operation = $operation | operation-in-text [create verify delete]
        let work = choose $type $infra $settings
        let tasks = match $operation {
            "create" => {
                let servers = $work.servers | server-tasks create
                $servers ++ ($work | with-taskservs | each {|one|
                    taskserv-tasks $one.server.name $one.taskservs --first ($servers | where $it.labels.server == $one.server.name | get name)
                } | flatten)
            }
            "verify" => ($work | with-taskservs | each {|one| $one.taskservs | each {|taskserv| verify-task $taskserv.name $one.server.name } } | flatten)
            "delete" => {
                $work.settings | check-shared $work
                $work.servers | server-tasks delete
            }
        }
        task result {infra: $work.settings.infra, tasks: $tasks}
    }
}

# What the words of an operation name: the settings, the clusters' names, their servers.
def choose [type: any, infra: any, settings: any]: nothing -> record {
    let type = $type | name-in-text cluster
    let settings = settings load (settings-path $settings) --infra ($infra | in-text)
    {settings: $settings} | merge ($settings | cluster $type)
}

# The servers of the clusters, each with its taskservs in order.
def with-taskservs []: record -> table<server: record, taskservs: list<any>> {
    let work = $in
    let places = taskservs places $work.settings.file
    $work.servers | each {|server|
        let taskservs = taskservs in-order ($work.settings | taskservs-of $server) $places
        $work.settings | check-options $server $taskservs $places
        {server: $server, taskservs: $taskservs}
    }
}

def work-on-servers [operation: string, check: bool]: record -> list<any> {
    let work = $in
    work-on $work.servers $operation {|server|
        {infra: $work.settings.infra, server: $server, networks: $work.settings.networks, check: $check}
    }
}

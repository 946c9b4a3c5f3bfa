# Brings a taskserv to a server, through the server's provider: its scripts one after the other, and
# what they say about how it went. What a script gets and may say is in docs/user/taskservs.md.

use fault.nu
use graph.nu *
use provider.nu
use servers.nu [AT_ONCE fail-where-failed]
use task.nu
use taskservs.nu

# How long to wait between two looks whether a taskserv is ready.
const BETWEEN_LOOKS = 500ms

# What the servers of a provider do not have.
const LACKS = {docker: [privileged systemd capabilities]}

# What has to be done for a taskserv, in order.
export def steps-of [taskserv: record, operation: string]: nothing -> list<string> {
    if $operation == "verify" { return [verify] }
    [install (if $taskserv.has_start { "start" }) (if $taskserv.ready != null { "ready" }) verify] | compact
}

# Refuses a server that does not have what a taskserv needs.
export def check-needs [server: record, taskserv: record]: nothing -> nothing {
    let needs = $taskserv.needs
    let lacks = $LACKS | get --optional $server.provider | default [] | where ($needs | get $it) not-in [false []]
    if ($lacks | is-not-empty) {
        fault permanent $"taskserv '($taskserv.name)' needs ($lacks.0), which server '($server.name)' of provider '($server.provider)' does not have"
    }
    let memory = $server.resources.memory_mb
    if $memory != null and $needs.memory_mb != null and $memory < $needs.memory_mb {
        fault permanent $"taskserv '($taskserv.name)' needs ($needs.memory_mb) MiB of memory, and server '($server.name)' is limited to ($memory)"
    }
}

# Carries out an operation for taskservs of a server, in order. The answer has a row for each; what
# depends on one that failed is skipped. In check mode nobody is contacted.
export def bring [
    settings: record
    server: record
    taskservs: list<any>
    operation: string   # create or verify
    --check             # Only say what would be done
    --alone             # No other server is worked on at the same time: show everything as it comes
]: nothing -> list<any> {
    let total = $taskservs | each {|taskserv| steps-of $taskserv $operation } | flatten | length
    mut done = 0
    mut answers = []
    for taskserv in $taskservs {
        let about = {name: $taskserv.name, server: $server.name}
        let steps = steps-of $taskserv $operation
        let missing = $answers | where action in [failed skipped] and name in $taskserv.depends_on
        let before = $done
        $done += ($steps | length)
        if ($missing | is-not-empty) and $operation == "create" {
            $answers ++= [($about | merge {action: skipped, message: $"it depends on '($missing.0.name)', which is not there", permanent: ($missing | all { $in.permanent })})]
            continue
        }
        let answer = try {
            check-needs $server $taskserv
            let choices = $taskserv | taskservs choices $server.name ($settings | options-of $server | get --optional $taskserv.name | default {})
            if $check { {action: $"would-($operation)", steps: $steps} } else {
                let variables = variables-of $settings $server $taskserv $choices
                take-steps $settings $server $taskserv $steps $variables {done: $before, of: $total, alone: $alone}
            }
        } catch {|error| {action: failed} | merge ($error | fault describe-error) }
        $answers ++= [($about | merge $answer)]
    }
    $answers
}

# Takes the steps, and returns what has changed and what the verification found.
def take-steps [settings: record, server: record, taskserv: record, steps: list<string>, variables: record, count: record]: nothing -> record {
    mut changed = false
    mut found: any = null
    for step in ($steps | enumerate) {
        let message = $"($taskserv.name) on ($server.name): ($step.item)"
        # With several servers at once there is no one measure of how far the work is.
        if $count.alone { task progress $message --done ($count.done + $step.index) --of $count.of } else { task progress $message }
        let own = if $step.item == "install" { $variables | reject TASKSERV_PEERS } else { $variables }
        let order = {infra: $settings.infra, server: $server, networks: $settings.networks, folder: $taskserv.folder, script: $"($step.item).sh", env: $own}
        if $step.item == "ready" {
            wait-until-ready $order $taskserv (not $count.alone)
            continue
        }
        let limit = $taskserv.timeouts | get $"($step.item)_sec"
        let answer = provider run-script $server.provider $order $limit --quiet=(not $count.alone)
        if $answer.exit_code != 0 {
            # That something is not as it should be is no reason to look again.
            refuse $order $taskserv $answer $limit --permanent=($step.item == "verify" and not $answer.timed_out)
        }
        if $step.item == "verify" { $found = $answer.result } else { $changed = $changed or ($answer.result.changed? | default true) }
    }
    if $count.alone { task progress $"($taskserv.name) on ($server.name): verified" --done ($count.done + ($steps | length)) --of $count.of }
    let action = if $steps == [verify] { "verified" } else if $changed { "created" } else { "unchanged" }
    {action: $action, verified: $found}
}

def wait-until-ready [order: record, taskserv: record, quiet: bool]: nothing -> nothing {
    let end = (date now) + ($taskserv.ready.within_sec * 1sec)
    let limit = $taskserv.timeouts.verify_sec
    loop {
        let answer = provider run-script $order.server.provider $order $limit --quiet=$quiet
        if $answer.exit_code == 0 { return }
        if $answer.failure != null { refuse $order $taskserv $answer $limit }
        if (date now) > $end {
            let last = $answer | last-words
            fault retryable $"($taskserv.name) on ($order.server.name) is not ready within ($taskserv.ready.within_sec) s; ($last)"
        }
        sleep $BETWEEN_LOOKS
    }
}

# Fails with what a script has said, or with how it ended.
def refuse [order: record, taskserv: record, answer: record, limit: int, --permanent]: nothing -> any {
    let about = $"($taskserv.name) on ($order.server.name): ($order.script)"
    let message = if $answer.failure != null {
        $"($about): ($answer.failure.message)"
    } else if $answer.timed_out {
        $"($about) took longer than its ($limit) s; ($answer | last-words)"
    } else {
        $"($about) ended with exit status ($answer.exit_code); ($answer | last-words)"
    }
    if $permanent or ($answer.failure.permanent? | default false) { fault permanent $message --details $answer.tail }
    fault retryable $message --details $answer.tail
}

def last-words []: record -> string {
    let lines = $in.tail | lines
    if ($lines | is-empty) { "it has printed nothing" } else { $"its last line: ($lines | last)" }
}

# The variables of a taskserv's scripts.
def variables-of [settings: record, server: record, taskserv: record, choices: record]: nothing -> record {
    let peers = peers $settings $server $taskserv | each {|peer| $"($peer.name) ($peer.address) ($peer.role)" | str trim } | str join (char newline)
    {
        TASKSERV_NAME: $taskserv.name
        TASKSERV_INFRA: $settings.infra
        TASKSERV_SERVER: $server.name
        TASKSERV_ADDRESS: (address-of $server)
        TASKSERV_ROLE: $choices.role
        TASKSERV_PEERS: $peers
    } | merge ($choices.parameters | items {|name, value| [$"TASKSERV_PARAM_($name | str uppercase)" $value] } | into record)
}

# How others reach a server. Where the settings do not say its address, its name reaches it.
def address-of [server: record]: nothing -> string {
    [$server.address $server.host $server.name] | compact | first
}

# The other servers of the server's clusters that have the taskserv, for itself or because another
# depends on it.
def peers [settings: record, server: record, taskserv: record]: nothing -> table<name: string, address: string, role: string> {
    let names = $settings.clusters | where {|cluster| $server.name in $cluster.servers } | get servers | flatten | uniq
    let mates = $settings.servers | where name in $names and name != $server.name | each {|mate| {server: $mate, has: ($settings | taskservs-of $mate)} }
    let places = taskservs places $settings.file
    # What brings it along. One that cannot be read is no concern of this server's.
    let bringing = $mates.has | flatten | uniq | where {|name|
        $name == $taskserv.name or (try { $taskserv.name in (taskservs in-order [$name] $places).name } catch { false })
    }
    $mates | where {|mate| $mate.has | any { $in in $bringing } } | get server | each {|mate|
        let options = $settings | options-of $mate | get --optional $taskserv.name | default {}
        {
            name: $mate.name
            address: (address-of $mate)
            role: ($taskserv | taskservs choices $mate.name $options | get role)
        }
    }
}

# Carries out an operation on several servers, each with its taskservs, at the same time.
export def bring-all [settings: record, all: table<server: record, taskservs: list<any>>, operation: string, check: bool]: nothing -> list<any> {
    let alone = ($all | length) == 1
    $all | par-each --keep-order --threads $AT_ONCE {|one|
        bring $settings $one.server $one.taskservs $operation --check=$check --alone=$alone
    } | flatten
}

# The steps that the answers of check mode name.
export def plan-of-taskservs []: list<any> -> list<any> {
    $in | each {|answer|
        $answer.steps? | default [] | each {|step| {server: $answer.server, taskserv: $answer.name, step: $step} }
    } | flatten
}

# Fails where a taskserv failed on a server, and says where.
export def fail-where-failed-on-servers []: list<any> -> nothing {
    $in | where action != skipped | update name {|answer| $"($answer.name) on ($answer.server)" } | fail-where-failed taskservs
}

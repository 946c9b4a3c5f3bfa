# Work on servers, through their providers.

use fault.nu
use plan.nu *
use provider.nu
use task.nu

# How many servers are worked on at once when one call names several. The engine makes a task of each.
export const AT_ONCE = 4

# The servers with these names, or all.
export def pick [names: list<any>]: record -> list<any> {
    let settings = $in
    if ($names | is-empty) { return $settings.servers }
    let unknown = $names | where $it not-in $settings.names
    if ($unknown | is-not-empty) {
        let known = $settings.names
        let shown = $known | first ([($known | length) 10] | math min) | str join ", "
        let more = if ($known | length) > 10 { $" and (($known | length) - 10) more" } else { "" }
        fault permanent $"($settings.file) describes no server '($unknown.0)': it has ($shown | default --empty 'none')($more)"
    }
    $settings.servers | where name in $names
}

# The servers of the infra that the providers of the settings file have.
export def existing []: record -> list<any> {
    let settings = $in
    $settings.servers | group-by provider | items {|provider, servers|
        provider ask $provider list {infra: $settings.infra, servers: $servers} | get --optional servers | default [] | insert provider $provider
    } | flatten
}

# Has each server's provider carry out the operation. An answer is the provider's, or the failure.
export def work-on [servers: list<any>, operation: string, order: closure]: nothing -> list<any> {
    let several = ($servers | length) > 1
    $servers | par-each --keep-order --threads $AT_ONCE {|server|
        try {
            {name: $server.name, provider: $server.provider} | merge (provider ask $server.provider $operation (do $order $server) --quiet=$several)
        } catch {|error|
            {name: $server.name, provider: $server.provider, action: "failed"} | merge ($error | fault describe-error)
        }
    }
}

# Hands over what was done to servers, or would be done, and fails where a server failed.
export def report [settings: record, servers: list<any>, answers: list<any>, check: bool]: nothing -> nothing {
    hand-over $settings {servers: ($answers | presentable)} $servers ($answers | plan-of-servers) $check
    $answers | fail-where-failed servers
}

# The rows of a result without what is handed over elsewhere.
export def presentable []: list<any> -> list<any> {
    $in | reject --optional steps permanent details
}

# The steps that servers' answers in check mode name.
export def plan-of-servers []: list<any> -> list<any> {
    $in | each {|answer|
        $answer.steps? | default [] | each {|step| {server: $answer.name, provider: $answer.provider} | merge $step }
    } | flatten
}

# Hands over the result, in check mode with the plan and its digest.
export def hand-over [settings: record, parts: record, servers: list<any>, steps: list<any>, check: bool]: nothing -> nothing {
    let plan = if $check {
        {plan: $steps, plan_digest: ({infra: $settings.infra, servers: $servers, plan: $steps} | digest)}
    } else { {} }
    task result ({infra: $settings.infra, check: $check} | merge $parts | merge $plan)
}

# Fails where one of the answers is a failure, and says which.
export def fail-where-failed [kind: string]: list<any> -> nothing {
    let answers = $in
    let failed = $answers | where action == "failed"
    if ($failed | is-empty) { return }
    let details = $failed | get --optional details | compact --empty | str join (char newline)
    let message = if ($answers | length) == 1 { $failed.0.message } else {
        $"(($failed | length)) of (($answers | length)) ($kind) failed: ($failed | each { $'($in.name): ($in.message)' } | str join '; ')"
    }
    if ($failed | all { $in.permanent }) { fault permanent $message --details $details }
    fault retryable $message --details $details
}

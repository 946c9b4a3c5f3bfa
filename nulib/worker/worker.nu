# The worker: the program that the engine runs to do the work on servers.
#
#     nu -n --no-std-lib worker.nu server create [NAME …] --settings FILE [--infra NAME] [--check]
#
# It reads the settings, asks the providers, and answers with the words of task.nu. It needs no plugin
# and no engine: run by hand it does the same and prints the same. Exit status 0 is done, anything else
# is failed.
#
# What follows the program on the command line is read by Nushell as source. A caller must not pass on
# values that begin with `-` and come from somebody else; the engine takes only DNS labels for names.

use fault.nu
use plan.nu *
use provider.nu
use settings.nu
use task.nu
use values.nu is-label

const OPERATIONS = ["server create" "server delete" "server list" "server names"]

# How many servers are worked on at once when one call names several. The engine makes a task of each.
const AT_ONCE = 4

# Refuses words that mean nothing here.
def main [
    ...words: external_arg
    --infra: external_arg
    --settings: external_arg
    --check
]: nothing -> nothing {
    let given = if ($words | is-empty) { "nothing to do" } else { $"there is no operation '($words | first 2 | each { into string } | str join ' ')'" }
    fault guard { fault permanent $"($given): this program does ($OPERATIONS | str join ', ')" }
}

# Makes servers: those that are named, or all of the settings file.
def "main server create" [
    ...names: external_arg      # Their names
    --infra: external_arg       # The infra, where the file does not say it
    --settings: external_arg    # The settings file
    --check                     # Change nothing, and say what would be done
]: nothing -> nothing {
    fault guard {
        let names = $names | names-in-text
        let only = if ($names | is-empty) { null } else { $names }
        let settings = settings load (settings-path $settings) --infra ($infra | in-text) --only $only
        let servers = $settings | pick $names
        let answers = work-on $servers "create" {|server|
            {infra: $settings.infra, server: $server, networks: $settings.networks, check: $check}
        }
        report $settings $servers $answers $check
    }
}

# Removes servers. Those that the settings file does not describe any more are looked for with its
# providers.
def "main server delete" [
    ...names: external_arg      # Their names
    --infra: external_arg       # The infra, where the file does not say it
    --settings: external_arg    # The settings file
    --check                     # Change nothing, and say what would be done
]: nothing -> nothing {
    fault guard {
        let names = $names | names-in-text
        if ($names | is-empty) { fault permanent "name the servers to delete" }
        let settings = settings load (settings-path $settings) --infra ($infra | in-text)
        let servers = $names | uniq | each {|name|
            let described = $settings.servers | where name == $name
            if ($described | is-not-empty) { return $described.0 }
            let holder = $settings | existing | where name == $name | get --optional 0
            if $holder == null { fault permanent $"neither ($settings.file) nor its providers have a server '($name)' in infra '($settings.infra)'" }
            {name: $name, provider: $holder.provider}
        }
        let answers = work-on $servers "delete" {|server|
            {infra: $settings.infra, server: $server, networks: $settings.networks, check: $check}
        }
        report $settings $servers $answers $check
    }
}

# Lists the servers of the settings file and those that exist.
def "main server list" [
    ...names: external_arg      # Only these
    --infra: external_arg       # The infra, where the file does not say it
    --settings: external_arg    # The settings file
    --check                     # Taken and of no consequence: listing changes nothing
]: nothing -> nothing {
    fault guard {
        let names = $names | names-in-text
        let settings = settings load (settings-path $settings) --infra ($infra | in-text)
        let existing = $settings | existing
        let known = $settings.servers | each {|server|
            let found = $existing | where name == $server.name and provider == $server.provider
            if ($found | is-empty) {
                {name: $server.name, provider: $server.provider, described: true, status: "absent"}
            } else {
                $found.0 | insert described true
            }
        }
        let others = $existing | where {|found| $known | where name == $found.name and provider == $found.provider | is-empty } | insert described false
        let servers = $known ++ $others | sort-by name
        task result {
            infra: $settings.infra
            servers: (if ($names | is-empty) { $servers } else { $servers | where name in $names })
        }
    }
}

# The names of the servers of the settings file. The whole file is checked.
def "main server names" [
    ...names: external_arg      # Only these, which must be there
    --infra: external_arg       # The infra, where the file does not say it
    --settings: external_arg    # The settings file
    --check                     # Taken and of no consequence: nothing is changed
]: nothing -> nothing {
    fault guard {
        let names = $names | names-in-text
        let settings = settings load (settings-path $settings) --infra ($infra | in-text)
        task result {infra: $settings.infra, servers: ($settings | pick $names | get name)}
    }
}

# Nushell takes a word that follows a program for a pattern of file names, so that nothing else is
# guessed from it. Here it is text again.
def in-text []: any -> any {
    let word = $in
    if $word == null { null } else { $word | into string }
}

def settings-path [path: any]: nothing -> string {
    if $path == null { fault permanent "name the settings file with --settings" }
    $path | in-text
}

def names-in-text []: list<any> -> list<string> {
    let names = $in | each { in-text }
    let bad = $names | where not ($it | is-label)
    if ($bad | is-not-empty) {
        fault permanent $"'($bad.0)' is not a server name: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or a digit"
    }
    $names
}

# The servers with these names, or all.
def pick [names: list<any>]: record -> list<any> {
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
def existing []: record -> list<any> {
    let settings = $in
    $settings.servers | group-by provider | items {|provider, servers|
        provider ask $provider list {infra: $settings.infra, servers: $servers} | get --optional servers | default [] | insert provider $provider
    } | flatten
}

# Has each server's provider carry out the operation. An answer is the provider's, or the failure.
def work-on [servers: list<any>, operation: string, order: closure]: nothing -> list<any> {
    let several = ($servers | length) > 1
    $servers | par-each --keep-order --threads $AT_ONCE {|server|
        try {
            {name: $server.name, provider: $server.provider} | merge (provider ask $server.provider $operation (do $order $server) --quiet=$several)
        } catch {|error|
            {name: $server.name, provider: $server.provider, action: "failed"} | merge ($error | fault describe-error)
        }
    }
}

# Hands over what was done, or would be done, and fails where a server failed.
def report [settings: record, servers: list<any>, answers: list<any>, check: bool]: nothing -> nothing {
    let failed = $answers | where action == "failed"
    let plan = if $check {
        let steps = $answers | each {|answer|
            $answer.steps? | default [] | each {|step| {server: $answer.name, provider: $answer.provider} | merge $step }
        } | flatten
        {plan: $steps, plan_digest: ({infra: $settings.infra, servers: $servers, plan: $steps} | digest)}
    } else { {} }
    task result ({
        infra: $settings.infra
        check: $check
        servers: ($answers | reject --optional steps permanent details)
    } | merge $plan)
    if ($failed | is-empty) { return }
    let details = $failed.details | compact --empty | str join (char newline)
    let message = if ($answers | length) == 1 { $failed.0.message } else {
        $"(($failed | length)) of (($answers | length)) servers failed: ($failed | each { $'($in.name): ($in.message)' } | str join '; ')"
    }
    if ($failed | all { $in.permanent }) { fault permanent $message --details $details }
    fault retryable $message --details $details
}

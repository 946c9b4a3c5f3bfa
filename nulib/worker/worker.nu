# The worker: the program that the engine runs to do the work on servers.
#
#     nu -n --no-std-lib worker.nu server create [NAME …] --settings FILE [--infra NAME] [--check]
#     nu -n --no-std-lib worker.nu taskserv create NAME [SERVER …] --settings FILE …
#     nu -n --no-std-lib worker.nu cluster create TYPE --settings FILE …
#
# It reads the settings, asks the providers, and answers with the words of task.nu. It needs no plugin
# and no engine: run by hand it does the same and prints the same. Exit status 0 is done, anything else
# is failed.
#
# What follows the program on the command line is read by Nushell as source. A caller must not pass on
# values that begin with `-` and come from somebody else; the engine takes only DNS labels for names.

use cluster_operations.nu *
use fault.nu
use servers.nu *
use settings.nu
use task.nu
use taskserv_operations.nu *
use words.nu *

const OPERATIONS = [
    "server create" "server delete" "server list" "server names"
    "taskserv create" "taskserv verify" "taskserv list" "taskserv plan"
    "cluster create" "cluster verify" "cluster delete" "cluster plan"
]

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

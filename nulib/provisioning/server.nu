# Servers of a settings file.

use order.nu
use worker.nu

# Creates servers, one task for each, in parallel.
#
# What exists already is left as it is. Returns the workflow; with --wait when it has ended, with its tasks and their results. Inside a task it
# does the work itself and returns the worker's result.
@category provisioning
@search-terms provision machine vm host
@example "all servers of a settings file" 'provisioning server create --infra production --settings ./settings.yaml --wait'
@example "what creating one of them would do" 'provisioning server create web-01 --infra production --settings ./settings.yaml --check --wait'
export def create [
    ...names: string                    # Which (default: all of the settings file)
    --infra (-I): string                # The infra they belong to
    --settings (-f): path               # The settings file
    --check (-c)                        # Change nothing, and return the plan
    --wait (-w)                         # Wait until it has ended, and return the workflow with its tasks
    --allow-concurrent (-a)             # Do not wait for other workflows of the same infra
    --priority (-p): int = 0            # Higher comes first
    --retries (-r): int                 # Attempts after a failed first one (default: 3)
    --timeout (-t): duration            # End an attempt that takes longer (default: no limit)
    --idempotency-key (-i): string      # The same key and order again return what the first one made
    --environment (-e): record = {}     # Variables to add to the environment of the work
    --secret (-s): record = {}          # Secrets by name, each a reference: env:NAME (of the engine) or file:PATH
]: nothing -> any {
    order give "server create" $names {
        infra: $infra, settings: $settings, check: $check, wait: $wait, allow_concurrent: $allow_concurrent
        priority: $priority, retries: $retries, timeout: $timeout, idempotency_key: $idempotency_key
        environment: $environment, secret: $secret
    }
}

# Removes servers.
#
# Also those that have left the settings file and that its providers still have.
@category provisioning
@search-terms destroy remove
@example "remove one" 'provisioning server delete web-02 --infra production --settings ./settings.yaml --wait'
export def delete [
    server: string                      # Which
    ...more: string                     # More of them
    --infra (-I): string                # The infra they belong to
    --settings (-f): path               # The settings file
    --check (-c)                        # Change nothing, and return the plan
    --wait (-w)                         # Wait until it has ended, and return the workflow with its tasks
    --allow-concurrent (-a)             # Do not wait for other workflows of the same infra
    --priority (-p): int = 0            # Higher comes first
    --retries (-r): int                 # Attempts after a failed first one (default: 3)
    --timeout (-t): duration            # End an attempt that takes longer (default: no limit)
    --idempotency-key (-i): string      # The same key and order again return what the first one made
    --environment (-e): record = {}     # Variables to add to the environment of the work
    --secret (-s): record = {}          # Secrets by name, each a reference: env:NAME (of the engine) or file:PATH
]: nothing -> any {
    order give "server delete" [$server ...$more] {
        infra: $infra, settings: $settings, check: $check, wait: $wait, allow_concurrent: $allow_concurrent
        priority: $priority, retries: $retries, timeout: $timeout, idempotency_key: $idempotency_key
        environment: $environment, secret: $secret
    }
}

# Lists the servers of the settings file and those that exist. Needs no engine.
@category provisioning
@example "those that are not there yet" 'provisioning server list --settings ./settings.yaml | where status == absent'
export def list [
    ...names: string            # Only these
    --infra (-I): string        # The infra, where the file does not say it
    --settings (-f): path       # The settings file
]: nothing -> table {
    worker ask [server list] $names {infra: $infra, settings: $settings} | get servers
}

# The names of the servers of the settings file. Checks the whole file, and needs no engine.
@category provisioning
@example "all of them" 'provisioning server names --settings ./settings.yaml'
export def names [
    ...names: string            # Only these, which must be there
    --infra (-I): string        # The infra, where the file does not say it
    --settings (-f): path       # The settings file
]: nothing -> list<string> {
    worker ask [server names] $names {infra: $infra, settings: $settings} | get servers
}

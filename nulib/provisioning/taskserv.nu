# Taskservs: the services that are installed on servers.

use order.nu
use worker.nu

# Installs a taskserv on servers, after what it depends on, and verifies it.
#
# Where it is installed and works already, nothing changes. Returns the workflow; with --wait when it has ended, with its tasks and their results. Inside a task it
# does the work itself and returns the worker's result.
@category provisioning
@search-terms install service
@example "on every server that has it by the settings file" 'provisioning taskserv create redis --infra production --settings ./settings.yaml --wait'
export def create [
    taskserv: string                    # Which: `provisioning taskserv list` shows them
    ...servers: string                  # Where (default: all servers that have it by the settings file)
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
    order give "taskserv create" [$taskserv ...$servers] {
        infra: $infra, settings: $settings, check: $check, wait: $wait, allow_concurrent: $allow_concurrent
        priority: $priority, retries: $retries, timeout: $timeout, idempotency_key: $idempotency_key
        environment: $environment, secret: $secret
    }
}

# Looks whether a taskserv works on servers, and changes nothing.
#
# The workflow fails where it does not work.
@category provisioning
@search-terms test health
@example "on one server" 'provisioning taskserv verify redis web-01 --infra production --settings ./settings.yaml --wait'
export def verify [
    taskserv: string                    # Which: `provisioning taskserv list` shows them
    ...servers: string                  # Where (default: all servers that have it by the settings file)
    --infra (-I): string                # The infra they belong to
    --settings (-f): path               # The settings file
    --wait (-w)                         # Wait until it has ended, and return the workflow with its tasks
    --allow-concurrent (-a)             # Do not wait for other workflows of the same infra
    --priority (-p): int = 0            # Higher comes first
    --retries (-r): int                 # Attempts after a failed first one (default: 3)
    --timeout (-t): duration            # End an attempt that takes longer (default: no limit)
    --idempotency-key (-i): string      # The same key and order again return what the first one made
    --environment (-e): record = {}     # Variables to add to the environment of the work
    --secret (-s): record = {}          # Secrets by name, each a reference: env:NAME (of the engine) or file:PATH
]: nothing -> any {
    order give "taskserv verify" [$taskserv ...$servers] {
        infra: $infra, settings: $settings, wait: $wait, allow_concurrent: $allow_concurrent
        priority: $priority, retries: $retries, timeout: $timeout, idempotency_key: $idempotency_key
        environment: $environment, secret: $secret
    }
}

# Lists the taskservs: the project's own, and those beside the settings file. Needs no engine.
@category provisioning
@example "their names" 'provisioning taskserv list | get name'
export def list [
    ...names: string            # Only these, which must be there
    --settings (-f): path       # The settings file beside which to look too
]: nothing -> table {
    worker ask [taskserv list] $names {infra: null, settings: $settings} | get taskservs
}

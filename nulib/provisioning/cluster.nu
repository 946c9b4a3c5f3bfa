# Clusters: servers that belong together, and the taskservs on them.

use order.nu

# Creates the servers of a cluster, and installs the taskservs on them.
#
# Servers are created in parallel, taskservs installed in order of dependency. Returns the workflow; with --wait when it has ended, with its tasks and their results. Inside a task it
# does the work itself and returns the worker's result.
@category provisioning
@search-terms provision
@example "a cluster of the settings file" 'provisioning cluster create kubernetes --infra production --settings ./settings.yaml --wait'
export def create [
    cluster: string                     # Its name or its type in the settings file
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
    order give "cluster create" [$cluster] {
        infra: $infra, settings: $settings, check: $check, wait: $wait, allow_concurrent: $allow_concurrent
        priority: $priority, retries: $retries, timeout: $timeout, idempotency_key: $idempotency_key
        environment: $environment, secret: $secret
    }
}

# Looks whether the taskservs of a cluster work, and changes nothing.
#
# The workflow fails where one does not work.
@category provisioning
@search-terms test health
@example "a cluster of the settings file" 'provisioning cluster verify kubernetes --infra production --settings ./settings.yaml --wait'
export def verify [
    cluster: string                     # Its name or its type in the settings file
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
    order give "cluster verify" [$cluster] {
        infra: $infra, settings: $settings, wait: $wait, allow_concurrent: $allow_concurrent
        priority: $priority, retries: $retries, timeout: $timeout, idempotency_key: $idempotency_key
        environment: $environment, secret: $secret
    }
}

# Removes the servers of a cluster.
@category provisioning
@search-terms destroy remove
@example "a cluster of the settings file" 'provisioning cluster delete kubernetes --infra production --settings ./settings.yaml --wait'
export def delete [
    cluster: string                     # Its name or its type in the settings file
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
    order give "cluster delete" [$cluster] {
        infra: $infra, settings: $settings, check: $check, wait: $wait, allow_concurrent: $allow_concurrent
        priority: $priority, retries: $retries, timeout: $timeout, idempotency_key: $idempotency_key
        environment: $environment, secret: $secret
    }
}

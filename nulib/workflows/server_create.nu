# Servers of an infra, created by the engine. The plugin has to be loaded before.
#
#     use workflows/server_create.nu *
#     let id = server_create_workflow "production" --settings "./settings.yaml" | get id
#     workflow status $id
#
# The `*` is needed: without it Nushell puts the module's name before each command.

use ../provisioning/server.nu
use settings_file.nu

export use ../provisioning/workflow.nu

# Creates the servers of an infra, one task for each, in parallel.
#
# Returns the workflow; with --wait when it has ended, with its tasks and their results.
@category provisioning
@example "all servers of a settings file" 'server_create_workflow "production" --settings "./settings.yaml" --wait'
@example "two of them" 'server_create_workflow "production" web-01 web-02 --settings "./settings.yaml"'
export def server_create_workflow [
    infra: string               # The infra they belong to
    ...servers: string          # Which (default: all of the settings file)
    --settings (-f): path       # The settings file
    --check (-c)                # Change nothing, and return the plan
    --wait (-w)                 # Wait until it has ended, and return the workflow with its tasks
    --allow-concurrent (-a)     # Do not wait for other workflows of the same infra
    --priority (-p): int = 0    # Higher comes first
]: nothing -> any {
    server create ...$servers --infra $infra --settings $settings --check=$check --wait=$wait --allow-concurrent=$allow_concurrent --priority $priority
}

# Creates servers in place of `on_create_servers`: the same work, as tasks of the engine.
#
# The settings are a file, or the record that was read from one; the infra is the one that they name,
# unless --infra says it. Returns the workflow; with --wait when it has ended, with its tasks and their
# results.
@category provisioning
@example "all servers of a settings file" 'on_create_servers_workflow ./settings.yaml --wait'
@example "from settings that were read before" 'open ./settings.yaml | on_create_servers_workflow $in --select [web-01] --check --wait'
export def on_create_servers_workflow [
    settings: oneof<string, record>     # The settings file, or what it holds
    --infra (-I): string                # The infra, where the settings do not say it
    --select (-s): list<string> = []    # Which servers (default: all of the settings)
    --check (-c)                        # Change nothing, and return the plan
    --wait (-w)                         # Wait until it has ended, and return the workflow with its tasks
]: nothing -> any {
    let file = $settings | settings_file path
    let infra = if $infra == null { $file | settings_file infra } else { $infra }
    server create ...$select --infra $infra --settings $file --check=$check --wait=$wait
}

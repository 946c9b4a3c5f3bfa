# A taskserv on servers of an infra, installed by the engine. The plugin has to be loaded before.
#
#     use workflows/taskserv_create.nu *
#     taskserv_create_workflow "production" redis --settings "./settings.yaml" --wait

use ../provisioning/taskserv.nu

export use ../provisioning/workflow.nu

# Installs a taskserv on servers, after what it depends on, and verifies it.
#
# Returns the workflow; with --wait when it has ended, with its tasks and their results.
@category provisioning
@example "on every server that has it by the settings file" 'taskserv_create_workflow "production" redis --settings "./settings.yaml" --wait'
export def taskserv_create_workflow [
    infra: string               # The infra of the servers
    taskserv: string            # Which
    ...servers: string          # Where (default: all servers that have it by the settings file)
    --settings (-f): path       # The settings file
    --check (-c)                # Change nothing, and return the plan
    --wait (-w)                 # Wait until it has ended, and return the workflow with its tasks
    --allow-concurrent (-a)     # Do not wait for other workflows of the same infra
    --priority (-p): int = 0    # Higher comes first
]: nothing -> any {
    taskserv create $taskserv ...$servers --infra $infra --settings $settings --check=$check --wait=$wait --allow-concurrent=$allow_concurrent --priority $priority
}

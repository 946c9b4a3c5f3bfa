# A cluster of an infra, created by the engine. The plugin has to be loaded before.
#
#     use workflows/cluster_create.nu *
#     cluster_create_workflow "production" kubernetes --settings "./settings.yaml" --wait

use ../provisioning/cluster.nu

export use ../provisioning/workflow.nu

# Creates the servers of a cluster, and installs the taskservs on them.
#
# Returns the workflow; with --wait when it has ended, with its tasks and their results.
@category provisioning
@example "a cluster of the settings file" 'cluster_create_workflow "production" kubernetes --settings "./settings.yaml" --wait'
export def cluster_create_workflow [
    infra: string               # The infra of the cluster
    cluster: string             # Its name or its type in the settings file
    --settings (-f): path       # The settings file
    --check (-c)                # Change nothing, and return the plan
    --wait (-w)                 # Wait until it has ended, and return the workflow with its tasks
    --allow-concurrent (-a)     # Do not wait for other workflows of the same infra
    --priority (-p): int = 0    # Higher comes first
]: nothing -> any {
    cluster create $cluster --infra $infra --settings $settings --check=$check --wait=$wait --allow-concurrent=$allow_concurrent --priority $priority
}

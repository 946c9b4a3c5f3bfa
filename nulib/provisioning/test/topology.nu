# Topologies: lists of nodes and their network, by name. There are the project's own, and those in
# topologies/*.toml under the current directory.

use ../plugin.nu

# Lists topologies.
@category provisioning
@example "those with etcd" 'provisioning test topology list | where "etcd" in $it.taskservs'
export def list []: nothing -> table {
    plugin must-be-loaded
    orchestrator test topology list
}

# Loads a topology by its name, as a record to change and pipe on.
@category provisioning
@example "make a cluster of it" 'provisioning test topology load etcd_cluster | provisioning test env cluster etcd'
export def load [
    name: string        # Its name
]: nothing -> record {
    plugin must-be-loaded
    orchestrator test topology load $name
}

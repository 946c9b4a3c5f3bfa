# Test environments: nodes on a network of their own, with taskservs on them.

use ../environment.nu
use ../plugin.nu

# Makes an environment of one node with one taskserv, and what that depends on.
#
# Returns the environment; with --wait, when all that was asked for has been done.
@category provisioning
@search-terms create docker container
@example "install, test, and remove what has passed" 'provisioning test env single postgres --auto-start --auto-cleanup'
export def single [
    taskserv: string                    # Which: `provisioning taskserv list` shows them
    --auto-start (-a)                   # Run the tests as soon as it is ready
    --auto-cleanup (-c)                 # Remove it when its tests have passed
    --wait (-w)                         # Wait until it is ready, and has been tested and removed if it shall
    --infra (-I): string                # The infra it is for (default: test)
    --base-image (-b): string           # The image of the nodes (default: the engine's)
    --environment (-e): record = {}     # Variables of the nodes' processes
    --option (-o): record = {}          # Parameters of taskservs: {NAME: value}, or {TASKSERV: {NAME: value}}
    --cpu: int                          # Processor time of a node, in thousandths of one
    --memory (-m): filesize             # Memory of a node
    --disk: filesize                    # Size of a node's own file system
    --disk-policy: string               # How --disk is kept: `enforce` (default) or `watch`
    --max-processes: int                # Processes and threads of a node at once
    --script (-s): any                  # Scripts to run on the nodes too: files, or records {script, name, nodes, timeout}
    --idempotence-check                 # Install everything again, which must change nothing
    --fault (-f): any                   # Faults to go through after that, such as `kill NODE`, or records {kind, node}
    --no-keep                           # Remove it also when its tests have failed
    --no-prepared                       # Use and keep no images with the taskservs installed
    --pull                              # Fetch images that the machine does not have
    --expires-after (-x): duration      # Remove it so long after it was made (default: a day)
    --priority (-p): int = 0            # Higher comes first
    --idempotency-key (-i): string      # The same key and request again return what the first one made
    --junit: path                       # Write the results to this file, as JUnit XML
]: nothing -> record {
    environment make "test env single" [$taskserv] {
        auto_start: $auto_start, auto_cleanup: $auto_cleanup, wait: $wait, option: $option
        infra: $infra, base_image: $base_image, environment: $environment, cpu: $cpu, memory: $memory, disk: $disk
        disk_policy: $disk_policy, max_processes: $max_processes, script: $script, idempotence_check: $idempotence_check
        fault: $fault, no_keep: $no_keep, no_prepared: $no_prepared, pull: $pull, expires_after: $expires_after
        priority: $priority, idempotency_key: $idempotency_key, junit: $junit
    }
}

# Makes an environment of one node that stands for a server.
#
# Returns the environment; with --wait, when all that was asked for has been done.
@category provisioning
@search-terms create simulation docker container
@example "a server with three taskservs" 'provisioning test env server web-01 [containerd kubernetes cilium] --auto-start'
export def server [
    name: string                        # The name of the server
    taskservs: list<string> = []        # The taskservs on it; what they depend on comes by itself
    --auto-start (-a)                   # Run the tests as soon as it is ready
    --auto-cleanup (-c)                 # Remove it when its tests have passed
    --wait (-w)                         # Wait until it is ready, and has been tested and removed if it shall
    --infra (-I): string                # The infra it is for (default: test)
    --base-image (-b): string           # The image of the nodes (default: the engine's)
    --environment (-e): record = {}     # Variables of the nodes' processes
    --option (-o): record = {}          # Parameters of taskservs: {TASKSERV: {NAME: value}}
    --cpu: int                          # Processor time of a node, in thousandths of one
    --memory (-m): filesize             # Memory of a node
    --disk: filesize                    # Size of a node's own file system
    --disk-policy: string               # How --disk is kept: `enforce` (default) or `watch`
    --max-processes: int                # Processes and threads of a node at once
    --script (-s): any                  # Scripts to run on the nodes too: files, or records {script, name, nodes, timeout}
    --idempotence-check                 # Install everything again, which must change nothing
    --fault (-f): any                   # Faults to go through after that, such as `kill NODE`, or records {kind, node}
    --no-keep                           # Remove it also when its tests have failed
    --no-prepared                       # Use and keep no images with the taskservs installed
    --pull                              # Fetch images that the machine does not have
    --expires-after (-x): duration      # Remove it so long after it was made (default: a day)
    --priority (-p): int = 0            # Higher comes first
    --idempotency-key (-i): string      # The same key and request again return what the first one made
    --junit: path                       # Write the results to this file, as JUnit XML
]: nothing -> record {
    environment make "test env server" [$name $taskservs] {
        auto_start: $auto_start, auto_cleanup: $auto_cleanup, wait: $wait, option: $option
        infra: $infra, base_image: $base_image, environment: $environment, cpu: $cpu, memory: $memory, disk: $disk
        disk_policy: $disk_policy, max_processes: $max_processes, script: $script, idempotence_check: $idempotence_check
        fault: $fault, no_keep: $no_keep, no_prepared: $no_prepared, pull: $pull, expires_after: $expires_after
        priority: $priority, idempotency_key: $idempotency_key, junit: $junit
    }
}

# Makes an environment of several nodes.
#
# The nodes come from a topology, piped in or named with --topology. Image, variables and limits that the options
# name hold for the nodes that name none. Returns the environment; with --wait, when all that was asked for has
# been done.
@category provisioning
@search-terms create topology docker container
@example "a cluster of three" 'provisioning test topology load kubernetes_3node | provisioning test env cluster kubernetes'
@example "a quorum that must survive the loss of a member" "provisioning test env cluster etcd --topology etcd_cluster --auto-start --wait --fault ['kill etcd-02' 'restart etcd-02']"
export def cluster [
    type: string                        # What kind of cluster it is, for people
    --topology: string                  # The topology, where it is not piped in
    --auto-start (-a)                   # Run the tests as soon as it is ready
    --auto-cleanup (-c)                 # Remove it when its tests have passed
    --wait (-w)                         # Wait until it is ready, and has been tested and removed if it shall
    --infra (-I): string                # The infra it is for (default: test)
    --base-image (-b): string           # The image of the nodes (default: the engine's)
    --environment (-e): record = {}     # Variables of the nodes' processes
    --cpu: int                          # Processor time of a node, in thousandths of one
    --memory (-m): filesize             # Memory of a node
    --disk: filesize                    # Size of a node's own file system
    --disk-policy: string               # How --disk is kept: `enforce` (default) or `watch`
    --max-processes: int                # Processes and threads of a node at once
    --script (-s): any                  # Scripts to run on the nodes too: files, or records {script, name, nodes, timeout}
    --idempotence-check                 # Install everything again, which must change nothing
    --fault (-f): any                   # Faults to go through after that, such as `kill NODE`, or records {kind, node}
    --no-keep                           # Remove it also when its tests have failed
    --no-prepared                       # Use and keep no images with the taskservs installed
    --pull                              # Fetch images that the machine does not have
    --expires-after (-x): duration      # Remove it so long after it was made (default: a day)
    --priority (-p): int = 0            # Higher comes first
    --idempotency-key (-i): string      # The same key and request again return what the first one made
    --junit: path                       # Write the results to this file, as JUnit XML
]: [nothing -> record, record -> record] {
    environment make "test env cluster" [$type] {
        topology: $topology, auto_start: $auto_start, auto_cleanup: $auto_cleanup, wait: $wait
        infra: $infra, base_image: $base_image, environment: $environment, cpu: $cpu, memory: $memory, disk: $disk
        disk_policy: $disk_policy, max_processes: $max_processes, script: $script, idempotence_check: $idempotence_check
        fault: $fault, no_keep: $no_keep, no_prepared: $no_prepared, pull: $pull, expires_after: $expires_after
        priority: $priority, idempotency_key: $idempotency_key, junit: $junit
    }
}

# Lists test environments, newest first. Those that have been cleaned are left out.
@category provisioning
@example "what was kept because its tests have failed" 'provisioning test env list --status failed'
export def list [
    --status (-s): any          # Only environments in this state, or in one of these
    --infra (-I): string        # Only those of this infra
]: nothing -> table {
    plugin must-be-loaded
    orchestrator test env list --status $status --infra $infra
}

# Shows all that is known of test environments: nodes, results, what was asked for.
@category provisioning
@example "the tests that have failed" 'provisioning test env list | provisioning test env status | get results | flatten | where not passed'
export def status [
    ...environments: oneof<string, record>        # Their ids; without one they come from the pipeline
]: any -> any {
    let piped = $in
    plugin must-be-loaded
    $piped | orchestrator test env status ...$environments
}

# Shows what the nodes of an environment have printed.
@category provisioning
@example "follow what happens in it" 'provisioning test env logs 01890a5d-ac96-774b-bcce-b302099a8057 --follow'
export def logs [
    ...environment: oneof<string, record>         # Its id; without one it comes from the pipeline
    --node (-n): string         # Only this node
    --tail (-t): int            # Only the last so many lines of each node
    --follow (-f)               # Go on while something runs in the environment
    --raw (-r)                  # The text alone
]: any -> any {
    let piped = $in
    plugin must-be-loaded
    $piped | orchestrator test env logs ...$environment --node $node --tail $tail --follow=$follow --raw=$raw
}

# Removes environments, with all that belongs to them. What is under way in them is called off.
@category provisioning
@search-terms remove delete destroy
@example "all that there are" 'provisioning test env list | provisioning test env cleanup --wait'
export def cleanup [
    ...environments: oneof<string, record>        # Their ids; without one they come from the pipeline
    --wait (-w)                 # Wait until nothing of them is left
]: any -> any {
    let piped = $in
    plugin must-be-loaded
    $piped | orchestrator test env cleanup ...$environments --wait=$wait
}

# Does something to the nodes of an environment: kill, stop, pause, unpause, restart, partition, heal.
@category provisioning
@search-terms chaos
@example "kill a node" 'provisioning test env fault 01890a5d-ac96-774b-bcce-b302099a8057 kill etcd-02'
export def fault [
    ...words: oneof<string, record>               # The environment's id, unless it is piped in; what to do; the nodes
]: any -> record {
    let piped = $in
    plugin must-be-loaded
    $piped | orchestrator test env fault ...$words
}

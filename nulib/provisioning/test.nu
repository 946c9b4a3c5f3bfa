# Tests of taskservs, servers and clusters, in containers.

use environment.nu
use plugin.nu

export use test/env.nu
export use test/topology.nu
export use test/image.nu

# Tests a taskserv in a container: creates it, installs what it takes, verifies it, and removes it.
#
# Returns the environment when all is done: `passed` says whether the tests have passed, `results` what each
# found. An environment whose tests have failed is kept for a look, and `help` says how to go on.
@category provisioning
@search-terms verify docker container ci
@example "does redis install and work?" 'provisioning test quick redis | get passed'
@example "with a script of your own, and a report for CI" 'provisioning test quick postgres --script ./check-schema.sh --junit postgres.xml'
export def quick [
    taskserv: string                    # Which: `provisioning taskserv list` shows them
    --keep (-k)                         # Keep the environment, whatever comes of it
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
    --timeout (-t): duration            # Call it off after so long (default: no limit)
    --junit: path                       # Write the results to this file, as JUnit XML
]: nothing -> record {
    environment make "test quick" [$taskserv] {
        keep: $keep, timeout: $timeout, option: $option
        infra: $infra, base_image: $base_image, environment: $environment, cpu: $cpu, memory: $memory, disk: $disk
        disk_policy: $disk_policy, max_processes: $max_processes, script: $script, idempotence_check: $idempotence_check
        fault: $fault, no_keep: $no_keep, no_prepared: $no_prepared, pull: $pull, expires_after: $expires_after
        priority: $priority, idempotency_key: $idempotency_key, junit: $junit
    }
}

# `run` is a word of Nushell's own and no name for a command of a module, so this one is not in test/env.nu.

# Runs the tests of environments.
#
# Each taskserv is verified on each node; then come the scripts, in their order, and the faults. Returns the
# environment; with --wait, when the tests have run.
@category provisioning
@search-terms verify check
@example "by its id" 'provisioning test env run 01890a5d-ac96-774b-bcce-b302099a8057 --wait | get results'
export def "env run" [
    ...environments: oneof<string, record>        # Their ids; without one they come from the pipeline
    --wait (-w)                 # Wait until the tests have run, and return what they found
    --script (-s): any            # Scripts to run on the nodes too: files, or records {script, name, nodes, timeout}
    --idempotence-check           # Install everything again, which must change nothing
    --fault (-f): any             # Faults to go through after that, such as `kill NODE`, or records {kind, node}
    --junit: path               # Write the results to this file, as JUnit XML
]: any -> any {
    let piped = $in
    plugin must-be-loaded
    $piped | orchestrator test env run ...$environments --wait=$wait --script $script --idempotence-check=$idempotence_check --fault $fault --junit $junit
}

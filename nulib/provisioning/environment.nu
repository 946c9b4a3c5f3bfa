# Making test environments: one place where the options of the module's commands become those of the plugin's.

use plugin.nu

# What a request says beside the command and its arguments.
const DEFAULTS = {
    infra: null
    base_image: null
    environment: {}
    option: {}
    cpu: null
    memory: null
    disk: null
    disk_policy: null
    max_processes: null
    script: null
    idempotence_check: false
    fault: null
    topology: null
    auto_start: false
    auto_cleanup: false
    wait: false
    keep: false
    no_keep: false
    no_prepared: false
    pull: false
    expires_after: null
    timeout: null
    priority: 0
    idempotency_key: null
    junit: null
}

# Makes an environment, and returns it as the command does. A topology may be piped in.
export def make [
    command: string         # `test quick` or `test env …`
    arguments: list<any>    # Its arguments, in the plugin's order
    options: record         # Those of DEFAULTS that are not as they are there
]: [nothing -> record, record -> record] {
    let piped = $in
    plugin must-be-loaded
    let o = $DEFAULTS | merge $options
    # The plugin's commands are words of the source, so each has a line of its own.
    match $command {
        "test quick" => { orchestrator test quick $arguments.0 --keep=$o.keep --timeout $o.timeout --option $o.option --infra $o.infra --base-image $o.base_image --env $o.environment --cpu $o.cpu --memory $o.memory --disk $o.disk --disk-policy $o.disk_policy --max-processes $o.max_processes --no-keep=$o.no_keep --no-prepared=$o.no_prepared --pull=$o.pull --expires-after $o.expires_after --priority $o.priority --idempotency-key $o.idempotency_key --script $o.script --idempotence-check=$o.idempotence_check --fault $o.fault --junit $o.junit }
        "test env single" => { orchestrator test env single $arguments.0 --option $o.option --auto-start=$o.auto_start --auto-cleanup=$o.auto_cleanup --wait=$o.wait --infra $o.infra --base-image $o.base_image --env $o.environment --cpu $o.cpu --memory $o.memory --disk $o.disk --disk-policy $o.disk_policy --max-processes $o.max_processes --no-keep=$o.no_keep --no-prepared=$o.no_prepared --pull=$o.pull --expires-after $o.expires_after --priority $o.priority --idempotency-key $o.idempotency_key --script $o.script --idempotence-check=$o.idempotence_check --fault $o.fault --junit $o.junit }
        "test env server" => { orchestrator test env server $arguments.0 $arguments.1 --option $o.option --auto-start=$o.auto_start --auto-cleanup=$o.auto_cleanup --wait=$o.wait --infra $o.infra --base-image $o.base_image --env $o.environment --cpu $o.cpu --memory $o.memory --disk $o.disk --disk-policy $o.disk_policy --max-processes $o.max_processes --no-keep=$o.no_keep --no-prepared=$o.no_prepared --pull=$o.pull --expires-after $o.expires_after --priority $o.priority --idempotency-key $o.idempotency_key --script $o.script --idempotence-check=$o.idempotence_check --fault $o.fault --junit $o.junit }
        "test env cluster" => { $piped | orchestrator test env cluster $arguments.0 --topology $o.topology --auto-start=$o.auto_start --auto-cleanup=$o.auto_cleanup --wait=$o.wait --infra $o.infra --base-image $o.base_image --env $o.environment --cpu $o.cpu --memory $o.memory --disk $o.disk --disk-policy $o.disk_policy --max-processes $o.max_processes --no-keep=$o.no_keep --no-prepared=$o.no_prepared --pull=$o.pull --expires-after $o.expires_after --priority $o.priority --idempotency-key $o.idempotency_key --script $o.script --idempotence-check=$o.idempotence_check --fault $o.fault --junit $o.junit }
    }
}

# Orders: what changes an infra. Outside of a task the engine gets the order and makes a workflow of it;
# inside a task the worker carries it out here.

use plugin.nu
use worker.nu

# What an order says beside its operation and its names.
const DEFAULTS = {
    infra: null
    settings: null
    check: false
    wait: false
    allow_concurrent: false
    priority: 0
    retries: null
    timeout: null
    idempotency_key: null
    environment: {}
    secret: {}
}

# Gives an order: returns the workflow, or, inside a task, what the worker has done.
export def give [
    operation: string       # Words such as `server create`
    names: list<string>     # What it is about, in the order of the plugin's arguments
    options: record         # Those of DEFAULTS that are not as they are there
]: nothing -> any {
    let o = $DEFAULTS | merge $options
    for flag in [infra settings] {
        if ($o | get $flag) == null {
            error make --unspanned {msg: $"--($flag) is missing", code: "orchestrator::invalid", help: "an order needs --infra NAME and --settings FILE"}
        }
    }
    if (worker inside-a-task) {
        return (worker perform ($operation | split row " ") $names {infra: $o.infra, settings: $o.settings, check: $o.check})
    }
    plugin must-be-loaded
    # The plugin's commands are words of the source, so each has a line of its own.
    match $operation {
        "server create" => { orchestrator workflow server create ...$names --infra $o.infra --settings $o.settings --check=$o.check --wait=$o.wait --allow-concurrent=$o.allow_concurrent --priority $o.priority --retries $o.retries --timeout $o.timeout --idempotency-key $o.idempotency_key --env $o.environment --secret $o.secret }
        "server delete" => { orchestrator workflow server delete $names.0 ...($names | skip 1) --infra $o.infra --settings $o.settings --check=$o.check --wait=$o.wait --allow-concurrent=$o.allow_concurrent --priority $o.priority --retries $o.retries --timeout $o.timeout --idempotency-key $o.idempotency_key --env $o.environment --secret $o.secret }
        "taskserv create" => { orchestrator workflow taskserv create $names.0 ...($names | skip 1) --infra $o.infra --settings $o.settings --check=$o.check --wait=$o.wait --allow-concurrent=$o.allow_concurrent --priority $o.priority --retries $o.retries --timeout $o.timeout --idempotency-key $o.idempotency_key --env $o.environment --secret $o.secret }
        "taskserv verify" => { orchestrator workflow taskserv verify $names.0 ...($names | skip 1) --infra $o.infra --settings $o.settings --wait=$o.wait --allow-concurrent=$o.allow_concurrent --priority $o.priority --retries $o.retries --timeout $o.timeout --idempotency-key $o.idempotency_key --env $o.environment --secret $o.secret }
        "cluster create" => { orchestrator workflow cluster create $names.0 --infra $o.infra --settings $o.settings --check=$o.check --wait=$o.wait --allow-concurrent=$o.allow_concurrent --priority $o.priority --retries $o.retries --timeout $o.timeout --idempotency-key $o.idempotency_key --env $o.environment --secret $o.secret }
        "cluster verify" => { orchestrator workflow cluster verify $names.0 --infra $o.infra --settings $o.settings --wait=$o.wait --allow-concurrent=$o.allow_concurrent --priority $o.priority --retries $o.retries --timeout $o.timeout --idempotency-key $o.idempotency_key --env $o.environment --secret $o.secret }
        "cluster delete" => { orchestrator workflow cluster delete $names.0 --infra $o.infra --settings $o.settings --check=$o.check --wait=$o.wait --allow-concurrent=$o.allow_concurrent --priority $o.priority --retries $o.retries --timeout $o.timeout --idempotency-key $o.idempotency_key --env $o.environment --secret $o.secret }
    }
}

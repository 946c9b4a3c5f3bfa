# The docker provider: a server is a container, a network a bridge network.
#
# Each operation looks first, then makes a list of the steps that are left, then takes them; check mode
# ends with the list. So what exists is left alone, what broke off half-way is completed, and a plan
# says what would happen because it is what would happen.

use ../fault.nu
use ../task.nu
use docker/client.nu
use docker/container.nu
use docker/names.nu *
use docker/network.nu *
use host/order.nu *
use host/session.nu
use host/workplace.nu

# How often a plan is made anew because another task was quicker with one of its steps.
const ATTEMPTS = 8

def main []: nothing -> nothing {
    print "The docker provider: create, delete, list and run, each with a JSON record on standard input."
}

# Makes a server, or what is missing of it.
def "main create" []: string -> nothing {
    let order = $in | from json
    fault guard { task result (create $order) }
}

# Removes a server, and its network with the last one.
def "main delete" []: string -> nothing {
    let order = $in | from json
    fault guard { task result (delete $order) }
}

# Runs a script in a server, as root.
def "main run" []: string -> nothing {
    let order = $in | from json
    fault guard { task result (run-script $order) }
}

# The infra's servers, as Docker has them.
def "main list" []: string -> nothing {
    let order = $in | from json
    fault guard { task result {servers: (list-servers $order)} }
}

def create [order: record]: nothing -> record {
    let server = $order.server
    mut made = false
    for attempt in 1..$ATTEMPTS {
        let plan = plan-create $order
        if $order.check {
            let action = match $plan.action { "created" => "would-create", "completed" => "would-complete", $other => $other }
            return {name: $server.name, action: $action, container: (object-name $order.infra $server.name), image: $server.image, network: $server.network, steps: $plan.steps}
        }
        # What this task has made is created, however often it had to look again.
        let action = if $made { "created" } else { $plan.action }
        if ($plan.steps | is-empty) { return (outcome $order $action $plan.observed) }
        if (take-steps $order $plan.steps) {
            return (outcome $order $action (container observe $order.infra $server.name))
        }
        $made = $made or $plan.action == "created"
    }
    fault retryable $"server '($server.name)' is being changed by somebody else all the time"
}

# What is left to do for a server to run as it should.
def plan-create [order: record]: nothing -> record<action: string, steps: list<any>, observed: any> {
    let server = $order.server
    let observed = container observe $order.infra $server.name
    if $observed != null { container check-ours $observed $order.infra $server }
    let status = $observed.status?
    let wanted_network = $order.networks | where name == $server.network | first
    let name = object-name $order.infra $server.network
    let endpoint = $observed.networks? | default [] | where name == $name | get --optional 0
    if $status == "running" and $endpoint != null { return {action: "unchanged", steps: [], observed: $observed} }

    let present = find-network $order.infra $wanted_network
    let make_network = if $present == null {
        [{step: "make-network", name: $name, subnet: $wanted_network.subnet, internal: $wanted_network.internal}]
    } else { [] }
    if $observed == null {
        let pull = if (client look-at image [$server.image] | is-not-empty) { [] } else if $server.pull == "missing" {
            [{step: "pull-image", image: $server.image}]
        } else {
            fault permanent (container no-image $server)
        }
        let volumes = $server.volumes | where kind == "volume" | each {|volume| {step: "make-volume", name: $volume.source} }
        return {
            action: "created"
            observed: null
            steps: [
                ...$pull
                ...$make_network
                ...$volumes
                {step: "make-container", name: (object-name $order.infra $server.name), config: (container wanted $server)}
                {step: "start", verb: "start"}
            ]
        }
    }
    # A container that is off its network, or was last on one that has been made anew since.
    let connect = if $endpoint == null {
        [{step: "connect"}]
    } else if $endpoint.id != "" and $endpoint.id != $present.Id? {
        [{step: "disconnect"} {step: "connect"}]
    } else { [] }
    let start = match $status {
        "running" => [],
        "created" | "exited" => [{step: "start", verb: "start"}],
        "paused" => [{step: "start", verb: "unpause"}],
        "restarting" => [{step: "start", verb: "restart"}],
        _ => { fault retryable $"the container of server '($server.name)' is '($status)': wait until Docker has removed it" }
    }
    {action: "completed", steps: [...$make_network ...$connect ...$start], observed: $observed}
}

# Takes the steps of a plan. Returns `false` where another task was quicker with one of them, so that
# the plan is out of date.
def take-steps [order: record, steps: list<any>]: nothing -> bool {
    let server = $order.server
    let total = $steps | length
    for entry in ($steps | enumerate) {
        let step = $entry.item
        task progress $"($server.name): ($step.step | str replace '-' ' ')" --done $entry.index --of $total
        let done = match $step.step {
            "pull-image" => {
                client call [pull --quiet $step.image] --doing $"fetching the image '($step.image)'"
                true
            }
            "make-network" => {
                make-network $order.infra ($order.networks | where name == $server.network | first)
                true
            }
            "make-volume" => {
                make-volume $order.infra $step.name
                true
            }
            "make-container" => (container make $order.infra $server)
            "connect" => {
                container connect $order.infra $server
                true
            }
            "disconnect" => {
                container disconnect $order.infra $server
                true
            }
            "start" => (container bring-up $order.infra $server $step.verb)
        }
        if not $done { return false }
    }
    if $total > 0 { task progress $"($server.name): running" --done $total --of $total }
    true
}

# The server as it is after the work.
def outcome [order: record, action: string, observed: any]: nothing -> record {
    let server = $order.server
    if $observed == null { fault retryable $"the container of server '($server.name)' has been removed in the meantime" }
    {name: $server.name, action: $action} | merge ($observed | facts)
}

# What people want to know of a container.
def facts []: record -> record {
    let observed = $in
    let name = object-name $observed.infra $observed.network
    {
        status: $observed.status
        id: ($observed.id | str substring 0..11)
        container: $observed.container
        image: $observed.image
        address: ($observed.networks | where name == $name | get --optional 0.address | default --empty null)
        network: $observed.network
        ports: $observed.ports
    }
}

def delete [order: record]: nothing -> record {
    let server = $order.server
    let observed = container observe $order.infra $server.name
    if $observed != null and ($observed.infra != $order.infra or $observed.server != $server.name) {
        fault permanent $"the container '($observed.container)' was not made from these settings: it is not removed"
    }
    let action = match [($observed == null) $order.check] { [true _] => "unchanged", [_ true] => "would-delete", _ => "deleted" }
    if not $order.check {
        if $observed != null {
            task progress $"($server.name): stop and remove" --done 0 --of 1
            container remove $order.infra $server.name
            task progress $"($server.name): removed" --done 1 --of 1
        }
        # Also where an earlier attempt got no further than the container.
        remove-unused-network $order.infra ($observed.network? | default ($server.network? | default "default"))
    }
    let steps = if $observed == null { [] } else { [{step: "remove-container", name: $observed.container}] }
    {name: $server.name, action: $action, container: (object-name $order.infra $server.name), steps: $steps}
}

# Runs the script over a session of `docker exec`, which ends with whoever asked for it.
def run-script [order: record]: nothing -> record<exit_code: int, result: any> {
    let order = $order | checked
    let server = $order.server
    let observed = container observe $order.infra $server.name
    if $observed == null { fault permanent $"server '($server.name)' does not exist: create it first" }
    if $observed.infra != $order.infra or $observed.server != $server.name {
        fault permanent $"the container '($observed.container)' was not made from these settings: nothing is run in it"
    }
    if $observed.status != "running" {
        fault permanent $"server '($server.name)' is '($observed.status)': create it again, and what is missing is completed"
    }
    let said = workplace with {|directory|
        session run-script $order $directory {|command| [docker exec --interactive --user "0:0" $observed.id sh -c $command] }
    }
    session refuse-unfit $said $"the image of server '($server.name)'" root
    if $said.broken != null { fault retryable $"server '($server.name)' cannot run the script: ($said.broken)" }
    if $said.exit_code == null {
        let now = container observe $order.infra $server.name | get --optional status | default "gone"
        fault retryable $"the connection to server '($server.name)' was cut while '($order.script)' ran; the server is ($now)"
    }
    {exit_code: $said.exit_code, result: $said.result}
}

def list-servers [order: record]: nothing -> list<any> {
    let ids = client call [ps --all --quiet --no-trunc --filter $"label=($LABEL_INFRA)=($order.infra)"] | lines
    let containers = client look-at container $ids | each { container summary } | where infra == $order.infra and server != null
    $containers | each {|observed|
        let wanted = $order.servers | where name == $observed.server | get --optional 0
        let as_configured = if $wanted == null { null } else { container differences $observed $wanted | is-empty }
        {name: $observed.server, as_configured: $as_configured} | merge ($observed | facts)
    }
}

# Containers that may run containers, and the scripts of the project's taskservs on them, as a provider
# runs them.

use bench.nu *
use check.nu

const OWN = path self ../taskservs

# What containerd's taskserv asks for, which is all that Kubernetes' scripts need of a machine here.
const CAPABILITIES = [SYS_ADMIN NET_ADMIN]

# Starts a machine on a network of its own that goes with its place, and returns its container.
export def start-machine [name: string]: record -> string {
    let infra = $in.infra
    let container = $"($infra).($name)"
    ^docker network create $"($infra).net" | ignore
    let rights = $CAPABILITIES | each {|capability| [--cap-add $capability] } | flatten
    let open_up = [--security-opt seccomp=unconfined --security-opt apparmor=unconfined]
    ^docker run --detach --init --name $container --network $"($infra).net" --hostname $name ...$rights ...$open_up (image) sleep infinity | ignore
    $container
}

# Runs a script of a taskserv of the project's on a machine, with its parameters' defaults, and reads its
# words. `--with` are parameters, `--server` what it is told of its server and of others.
export def script [taskserv: string, step: string, --with: record = {}, --server: record = {}]: string -> record {
    let container = $in
    let folder = $OWN | path join $taskserv
    let defaults = open ($folder | path join taskserv.toml) | get --optional parameters | default {} | items {|name, says| [$name $says.default] } | into record
    let parameters = $defaults | merge $with | items {|name, value| [$"TASKSERV_PARAM_($name | str uppercase)" $"($value)"] } | into record
    let variables = {TASKSERV_NAME: $taskserv, TASKSERV_INFRA: test, TASKSERV_SERVER: node-01, TASKSERV_ADDRESS: node-01, TASKSERV_ROLE: "", TASKSERV_PEERS: ""}
    | merge $server | merge $parameters | items {|name, value| [--env $"($name)=($value)"] } | flatten
    ^docker exec $container rm -rf $"/taskserv/($taskserv)"
    ^docker exec $container mkdir -p /taskserv
    ^docker cp --quiet $folder $"($container):/taskserv/($taskserv)" | ignore
    ^docker exec --workdir $"/taskserv/($taskserv)" ...$variables $container sh $"./($step).sh" | complete | read-words
}

# Runs a command on a machine, and returns what it prints.
export def on-machine [command: string]: string -> string {
    ^docker exec $in sh -ec $command | str trim
}

# The script has ended well; returns its result.
export def good []: record -> any {
    let answer = $in
    if $answer.exit_code != 0 { error make --unspanned {msg: $"exit status ($answer.exit_code)\n($answer.stdout)($answer.stderr)"} }
    $answer.result
}

# The script has failed for good, with a message that holds this.
export def refused [text: string]: record -> nothing {
    let answer = $in
    if not $answer.permanent { error make --unspanned {msg: $"no permanent failure\n($answer.stdout)($answer.stderr)"} }
    check same $answer.exit_code 1
    check holds $answer.failure $text
}

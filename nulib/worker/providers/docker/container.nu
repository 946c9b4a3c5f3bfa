# A server's container: what it should be, what it is, and the calls that make and remove it.

use ../../fault.nu
use ../../plan.nu [canonical digest]
use ../../schema.nu RESOURCE_DEFAULTS
use client.nu
use names.nu *

# How often, and at which intervals, a fresh container is looked at for an end that comes at once.
const LOOKS = 4
const BETWEEN_LOOKS = 100ms

# How often more one is looked at that Docker starts over and over, to see how it ends.
const MORE_LOOKS = 20

# The lines of its log that are shown then.
const LOG_LINES = 15

# What a container is made from, and nothing that may change without making it anew.
export def wanted [server: record]: nothing -> record {
    $server | select image command resources network address ports volumes env labels restart
}

# The keys in which a container was made from another configuration. A key that an older release did
# not know counts as `null`, so that an upgrade leaves alone what nobody has changed.
export def differences [observed: record, server: record]: nothing -> list<string> {
    let config = wanted $server | canonical
    if $observed.digest == ($config | digest) { return [] }
    let before = $observed.config | from json
    $config | columns | where ($config | get $it) != ($before | get --optional $it)
}

# A server as Docker has it: its container, whether that is one of ours, and what it was made from.
export def observe [infra: string, server: string]: nothing -> any {
    let name = object-name $infra $server
    let found = client look-at container [$name] | where Name == $"/($name)"
    if ($found | is-empty) { return null }
    $found | first | summary
}

# What matters of Docker's record of a container.
export def summary []: record -> record {
    let container = $in
    let labels = $container.Config.Labels? | default {}
    {
        id: $container.Id
        container: ($container.Name | str trim --left --char '/')
        infra: ($labels | get --optional $LABEL_INFRA)
        server: ($labels | get --optional $LABEL_SERVER)
        network: ($labels | get --optional $LABEL_NETWORK)
        digest: ($labels | get --optional $LABEL_DIGEST)
        config: ($labels | get --optional $LABEL_CONFIG | default "{}")
        image: $container.Config.Image
        status: (if $container.State.Restarting { "restarting" } else { $container.State.Status })
        exit_code: $container.State.ExitCode
        restarts: $container.RestartCount
        networks: ($container.NetworkSettings.Networks? | default {} | items {|name, network|
            {name: $name, id: ($network.NetworkID? | default ""), address: ($network.IPAddress? | default "")}
        })
        ports: ($container.NetworkSettings.Ports? | default {} | items {|port, bindings|
            $bindings | default [] | each {|binding| $"($binding.HostIp):($binding.HostPort)->($port)" }
        } | flatten)
        limits: {
            cpu_millicores: (($container.HostConfig.NanoCpus? | default 0) // 1_000_000)
            memory_mb: (($container.HostConfig.Memory? | default 0) // 1_048_576)
            max_processes: ($container.HostConfig.PidsLimit? | default 0)
        }
    }
}

# Refuses a container of that name that is not this server's, or was made from another configuration.
export def check-ours [observed: record, infra: string, server: record]: nothing -> nothing {
    if $observed.infra != $infra or $observed.server != $server.name {
        fault permanent $"there is a container '($observed.container)' in Docker that was not made from these settings \(($observed.id | str substring 0..11), image ($observed.image)): remove or rename it"
    }
    let keys = differences $observed $server
    if ($keys | is-empty) { return }
    let before = $observed.config | from json
    let config = wanted $server | canonical
    let changes = $keys | each {|key|
        $"($key): was ($before | get --optional $key | to json --raw), is to be ($config | get $key | to json --raw)"
    }
    (fault permanent $"server '($server.name)' exists with another configuration \(($keys | str join ', ')): delete it and create it again, or put the settings back"
        --details ($changes | str join (char newline)))
}

# Makes the container, without starting it. Returns `false` where another task has just made it, or has
# just removed its network.
export def make [infra: string, server: record]: nothing -> bool {
    let name = object-name $infra $server.name
    let config = wanted $server | canonical
    let network = object-name $infra $server.network
    if $server.resources.disk_mb != null { refuse-if-disk-is-not-enforced }
    let answer = client try-call [
        create --init --name $name --hostname $server.name
        --network $network --network-alias $server.name ...(if $server.address == null { [] } else { [--ip $server.address] })
        --restart $server.restart ...(limits $server.resources)
        ...($server.ports | each {|port| [--publish ($port | published)] } | flatten)
        ...($server.volumes | each {|volume| [--mount ($volume | mount $infra)] } | flatten)
        ...($server.env | items {|key, value| [--env $"($key)=($value)"] } | flatten)
        ...($server.labels | items {|key, value| [--label $"($key)=($value)"] } | flatten)
        --label $"($LABEL_INFRA)=($infra)" --label $"($LABEL_SERVER)=($server.name)" --label $"($LABEL_NETWORK)=($server.network)"
        --label $"($LABEL_CONFIG)=($config | to json --raw)" --label $"($LABEL_DIGEST)=($config | digest)"
        --entrypoint $server.command.0 $server.image ...($server.command | skip 1)
    ]
    if not $answer.ok {
        if $answer.complaint =~ '(?i)is already in use by container|network .* not found' { return false }
        if $answer.complaint =~ '(?i)no such image' { fault permanent (no-image $server) }
        if $answer.complaint =~ '(?i)storage-opt' {
            fault permanent $"this Docker cannot limit the disk of server '($server.name)' to ($server.resources.disk_mb) MiB: leave out `disk_mb`" --details $answer.complaint
        }
        if $answer.complaint =~ '(?i)range of cpus|minimum memory|invalid (mount|value|argument)|bind source path does not exist|invalid reference format' {
            fault permanent $"server '($server.name)' cannot be made: ($answer.complaint | lines | first)" --details $answer.complaint
        }
        client refuse $answer --doing $"making the container of server '($server.name)'"
    }
    # Such as that memory is limited without swap.
    if ($answer.complaint | is-not-empty) { print --stderr $answer.complaint }
    check-limits $infra $server
    true
}

# Refuses a disk limit where the daemon would take it and not keep it.
def refuse-if-disk-is-not-enforced []: nothing -> nothing {
    let status = client call [info --format '{{json .DriverStatus}}']
    if $status =~ 'io.containerd.snapshotter' {
        fault permanent "this Docker keeps images in containerd, which does not enforce `disk_mb`: leave it out"
    }
}

# A kernel without a limit makes Docker warn and go on without it; then the container is removed again,
# unless nobody asked for that limit.
def check-limits [infra: string, server: record]: nothing -> nothing {
    let made = observe $infra $server.name
    if $made == null { return }
    let dropped = $made.limits | columns | where {|key|
        let limit = $server.resources | get $key
        $limit != ($made.limits | get $key) and $limit != ($RESOURCE_DEFAULTS | get $key)
    }
    if ($dropped | is-empty) { return }
    client call [rm --force $made.id]
    fault permanent $"the kernel of this machine cannot limit ($dropped | str join ', ') of server '($server.name)': leave it out"
}

def limits [resources: record]: nothing -> list<string> {
    [
        ...(if $resources.cpu_millicores == null { [] } else { [--cpus ($resources.cpu_millicores / 1000 | into string)] })
        # The sum of memory and swap is the same as the memory: no swap.
        ...(if $resources.memory_mb == null { [] } else { [--memory $"($resources.memory_mb)m" --memory-swap $"($resources.memory_mb)m"] })
        ...(if $resources.disk_mb == null { [] } else { [--storage-opt $"size=($resources.disk_mb)M"] })
        --pids-limit ($resources.max_processes | into string)
    ]
}

def published []: record -> string {
    let port = $in
    let host = [$port.address $port.host] | compact | each { into string } | str join ':'
    let prefix = if ($host | is-empty) { "" } else { $"($host):" }
    $"($prefix)($port.server)/($port.protocol)"
}

def mount [infra: string]: record -> string {
    let volume = $in
    let source = if $volume.kind == "volume" { object-name $infra $volume.source } else { $volume.source }
    let access = if $volume.read_only { ",readonly" } else { "" }
    $"type=($volume.kind),source=($source),target=($volume.target)($access)"
}

# What to say where the image is not on the machine.
export def no-image [server: record]: nothing -> string {
    $"Docker does not have the image '($server.image)' of server '($server.name)': run `docker pull ($server.image)`, or set `pull: missing`"
}

# Puts the container on its network.
export def connect [infra: string, server: record]: nothing -> nothing {
    let address = if $server.address == null { [] } else { [--ip $server.address] }
    let names = [(object-name $infra $server.network) (object-name $infra $server.name)]
    (client call [network connect --alias $server.name ...$address ...$names]
        --doing $"putting server '($server.name)' on network '($server.network)'" | ignore)
}

# Takes the container off a network that is gone, so that it can be put on the one that took its place.
export def disconnect [infra: string, server: record]: nothing -> nothing {
    let names = [(object-name $infra $server.network) (object-name $infra $server.name)]
    (client call [network disconnect --force ...$names]
        --doing $"taking server '($server.name)' off network '($server.network)'" | ignore)
}

# Brings the container to run, by `start`, `unpause` or `restart`, and waits until it is clear that it
# stays. Returns `false` where its network has gone in between.
export def bring-up [infra: string, server: record, verb: string]: nothing -> bool {
    let name = object-name $infra $server.name
    let before = observe $infra $server.name | get --optional restarts | default 0
    let answer = client try-call [$verb $name]
    if not $answer.ok {
        if $answer.complaint =~ '(?i)network .* not found' { return false }
        client refuse $answer --doing $"starting server '($server.name)'"
    }
    mut now: any = null
    for look in 1..($LOOKS + $MORE_LOOKS) {
        sleep $BETWEEN_LOOKS
        $now = observe $infra $server.name
        if $now == null { fault retryable $"the container of server '($server.name)' has been removed while it started" }
        if $now.status != "running" { break }
        if $look >= $LOOKS and $now.restarts <= $before { return true }
    }
    let log = client try-call [logs --tail ($LOG_LINES | into string) $name]
    # A server that cannot run is not started over and over; its container stays for a look.
    client try-call [stop --time "1" $name]
    let lines = [$log.output $log.complaint] | where ($it | is-not-empty) | str join (char newline)
    let last = if ($lines | is-empty) { "it has printed nothing" } else { $"its last line: ($lines | lines | last)" }
    fault retryable $"server '($server.name)' ended at once with exit status ($now.exit_code); ($last)" --details $lines
}

# Stops the container, as its process would have it, and removes it.
export def remove [infra: string, server: string]: nothing -> nothing {
    let name = object-name $infra $server
    client try-call [stop $name]
    let answer = client try-call [rm --force --volumes $name]
    if not $answer.ok and $answer.complaint !~ '(?i)no such container|already in progress' {
        client refuse $answer --doing $"removing server '($server)'"
    }
}

# Networks and volumes: made when the first server needs them. Networks go with the last server,
# volumes stay.

use ../../fault.nu
use ../../values.nu *
use client.nu
use names.nu *

# How often, and for how long, another task's network is waited for.
const LOOKS = 50
const BETWEEN_LOOKS = 100ms

# The network, where it exists. One of the same name that is somebody else's, or that has other
# addresses than wanted, is refused.
export def find-network [infra: string, network: record]: nothing -> any {
    let name = object-name $infra $network.name
    let found = client look-at network [$name] | where Name == $name
    if ($found | is-empty) { return null }
    let found = $found.0
    let labels = $found.Labels? | default {}
    if ($labels | get --optional $LABEL_INFRA) != $infra or ($labels | get --optional $LABEL_NETWORK) != $network.name {
        fault permanent $"there is a network '($name)' in Docker that was not made from these settings: remove or rename it"
    }
    let subnet = $found.IPAM?.Config?.0?.Subnet?
    if $network.subnet != null and $subnet != $network.subnet {
        fault permanent $"the network '($name)' has the addresses ($subnet), not ($network.subnet): delete its servers, and it goes with the last of them"
    }
    if $network.internal != ($found.Internal? | default false) {
        fault permanent $"the network '($name)' is (if $found.Internal { '' } else { 'not ' })internal: delete its servers, and it goes with the last of them"
    }
    $found
}

# Makes the network. It is no failure that another task is quicker.
export def make-network [infra: string, network: record]: nothing -> nothing {
    let name = object-name $infra $network.name
    let subnet = if $network.subnet == null { [] } else { [--subnet $network.subnet] }
    let internal = if $network.internal { [--internal] } else { [] }
    let answer = client try-call [
        network create --driver bridge ...$subnet ...$internal
        --opt $"com.docker.network.bridge.name=(bridge-name $name)"
        --label $"($LABEL_INFRA)=($infra)" --label $"($LABEL_NETWORK)=($network.name)" $name
    ]
    if $answer.ok { return }
    if $answer.complaint =~ '(?i)already exists|conflicts with network' {
        # Another task's network is visible a moment after it has refused ours.
        for _ in 1..$LOOKS {
            if (find-network $infra $network) != null { return }
            sleep $BETWEEN_LOOKS
        }
    }
    if $answer.complaint =~ '(?i)pool overlaps' {
        if (find-network $infra $network) != null { return }
        fault permanent $"the addresses ($network.subnet) of network '($network.name)' are taken(holder $network.subnet)"
    }
    if $answer.complaint =~ '(?i)non-overlapping|fully subnetted' {
        fault permanent $"Docker has no free addresses for network '($network.name)': give it a `subnet`, or remove networks that nobody uses" --details $answer.complaint
    }
    client refuse $answer --doing $"making network '($name)'"
}

# Who holds addresses of this subnet.
def holder [subnet: string]: nothing -> string {
    let range = $subnet | subnet-range
    let ids = client call [network ls --quiet --no-trunc] | lines
    let holders = client look-at network $ids | each {|network|
        $network.IPAM?.Config? | default [] | where ($it.Subnet? | default "" | is-subnet) | where ($it.Subnet | subnet-range | overlaps $range)
            | each {|config| $"network '($network.Name)' with ($config.Subnet)" }
    } | flatten
    if ($holders | is-empty) { " by the host" } else { $": ($holders | str join ', ')" }
}

# Removes the infra's network where no server is on it any more. Says whether it did.
export def remove-unused-network [infra: string, network: string]: nothing -> bool {
    let on_it = client call [ps --all --quiet --filter $"label=($LABEL_INFRA)=($infra)" --filter $"label=($LABEL_NETWORK)=($network)"]
    if ($on_it | is-not-empty) { return false }
    # Whatever else somebody has put on it keeps it alive: Docker removes no network in use.
    (client try-call [network rm (object-name $infra $network)]).ok
}

# Makes a volume, where it does not exist.
export def make-volume [infra: string, volume: string]: nothing -> nothing {
    let labels = [--label $"($LABEL_INFRA)=($infra)" --label $"($LABEL_VOLUME)=($volume)"]
    client call [volume create ...$labels (object-name $infra $volume)] --doing $"making volume '($volume)'" | ignore
}

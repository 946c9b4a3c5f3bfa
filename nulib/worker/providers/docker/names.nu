# What things are called in Docker, and the labels by which they are known again.
#
# The names of infras, servers and networks hold no dot, so a name with one dot is never that of
# another pair.

export const LABEL_INFRA = "orchestrator.infra"
export const LABEL_SERVER = "orchestrator.server"
export const LABEL_NETWORK = "orchestrator.network"
export const LABEL_VOLUME = "orchestrator.volume"
export const LABEL_CONFIG = "orchestrator.config"
export const LABEL_DIGEST = "orchestrator.digest"

# The container of a server, the network or the volume of an infra.
export def object-name [infra: string, name: string]: nothing -> string {
    $"($infra).($name)"
}

# The network's device on the host. It is given, not left to Docker, because Docker refuses a second
# network on a device, and nothing else in it keeps two tasks from making the same network twice.
export def bridge-name [network: string]: nothing -> string {
    $"orc-($network | hash sha256 | str substring 0..9)"
}

# How a server of the settings file is reached: the words for OpenSSH's client.
#
# What a settings file says becomes words of a command line and, for a jump host, part of a shell
# command. So everything is checked against what it may look like, whoever has checked it before.

use ../../fault.nu
use ../host/order.nu quoted

const HOST = '^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\z'
const HOST_IPV6 = '^[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?\z'
const USER = '^[A-Za-z_][A-Za-z0-9._-]*\z'

# How long a connection may take to come about, and how long one that goes through another.
const CONNECT_S = 10
const CONNECT_BEHIND_S = 20

# How often a silent machine is asked whether it is still there, and how often it may fail to answer.
const ALIVE_INTERVAL_S = 5
const ALIVE_COUNT = 3

# What holds for the machine and for the one on the way to it, whatever the user's own configuration
# says: never ask, never trust a key that is not known, never write one down, never hand anything on.
const ALWAYS = [
    [BatchMode yes]
    [StrictHostKeyChecking yes]
    [UpdateHostKeys no]
    [VerifyHostKeyDNS no]
    [NoHostAuthenticationForLocalhost no]
    [ControlMaster no]
    [ControlPath none]
    [ForwardAgent no]
    [ForwardX11 no]
    [PermitLocalCommand no]
    [RemoteCommand none]
    [RequestTTY no]
    [LogLevel INFO]
    [ServerAliveInterval $ALIVE_INTERVAL_S]
    [ServerAliveCountMax $ALIVE_COUNT]
]

# A machine to log in to.
export def "from server" [server: record]: nothing -> record<name: string, host: string, user: any, port: any, identity_file: any, known_hosts_file: any, jump: any> {
    let given = $server.ssh? | default {}
    let target = {
        name: $server.name
        host: ($server.host? | default "")
        user: $given.user?
        port: $given.port?
        identity_file: $given.identity_file?
        known_hosts_file: $given.known_hosts_file?
        jump: (if $given.jump? == null { null } else { $given.jump | parse-jump $server.name })
    }
    check-machine $target $server.name
    for entry in ($target | select identity_file known_hosts_file | transpose key path) {
        if $entry.path == null { continue }
        # OpenSSH replaces `%…` and `${…}` in file names.
        if ($entry.path | describe) != "string" or $entry.path !~ '^/[^\x00-\x1f"\\$%]*\z' {
            fault permanent $"the `($entry.key)` of server '($server.name)' cannot be passed to OpenSSH: use a whole path without quotes, `\\`, `$` and `%`"
        }
        if ($entry.path | path type) not-in ["file" "symlink"] {
            fault permanent $"the `($entry.key)` of server '($server.name)' is not there: ($entry.path)"
        }
    }
    $target
}

# The whole command that has this machine's login shell run something. What OpenSSH itself says goes to
# files of the directory, `log` and `jump-log`, so that it is not mixed with what the machine says.
export def command [directory: string, remote: string]: record -> list<string> {
    let target = $in
    let only = if $target.identity_file == null { [] } else { [-o "IdentitiesOnly=yes"] }
    let jump = if $target.jump == null { [] } else { [-o $"ProxyCommand=($target | jump-command $directory)"] }
    let within = if $target.jump == null { $CONNECT_S } else { $CONNECT_BEHIND_S }
    [ssh -T ...($target | options $within) ...$only -o "ClearAllForwardings=yes" -o "EscapeChar=none" ...$jump -E ($directory | path join log) "--" $target.host $remote]
}

# The machine as people write it, without the user.
export def in-words []: record -> string {
    let target = $in
    let port = if $target.port == null { "" } else { $":($target.port)" }
    let host = if $port != "" and ":" in $target.host { $"[($target.host)]" } else { $target.host }
    $"($host)($port)"
}

# `[user@]host[:port]`, the host of IPv6 in brackets.
def parse-jump [server: string]: string -> record<host: string, user: any, port: any> {
    let text = $in
    let found = $text | parse --regex '^(?:(?P<user>[^@]+)@)?(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:@\[\]]+))(?::(?P<port>\d{1,5}))?\z'
    if ($found | is-empty) { fault permanent $"the `jump` of server '($server)' must be `[user@]host[:port]`, not '($text)'" }
    let found = $found.0
    let jump = {
        host: ([$found.host $found.six] | where ($it | is-not-empty) | first)
        user: ($found.user | default --empty null)
        port: (if ($found.port | is-empty) { null } else { $found.port | into int })
    }
    check-machine $jump $server
    $jump
}

def check-machine [machine: record, server: string]: nothing -> nothing {
    if ($machine.host | describe) != "string" or ($machine.host !~ $HOST and $machine.host !~ $HOST_IPV6) {
        fault permanent $"server '($server)': '($machine.host)' is neither the name nor the address of a host"
    }
    if $machine.user != null and (($machine.user | describe) != "string" or $machine.user !~ $USER) {
        fault permanent $"server '($server)': '($machine.user)' is not the name of a user"
    }
    if $machine.port != null and (($machine.port | describe) != "int" or $machine.port not-in 1..65535) {
        fault permanent $"server '($server)': ($machine.port) is not a port"
    }
}

# The options for a machine, whether it is the one that is wanted or the one on the way.
def options [connect_within_s: int]: record -> list<string> {
    let target = $in
    [
        ...($ALWAYS | each {|option| [-o $"($option.0)=($option.1)"] } | flatten)
        -o $"ConnectTimeout=($connect_within_s)"
        ...(if $target.user == null { [] } else { [-l $target.user] })
        ...(if $target.port == null { [] } else { [-p ($target.port | into string)] })
        ...(if $target.identity_file == null { [] } else { [-i $target.identity_file] })
        ...(if $target.known_hosts_file == null { [] } else { [-o $"UserKnownHostsFile=\"($target.known_hosts_file)\""] })
    ]
}

# OpenSSH's own way through a jump host takes over neither the strict check of its key nor the log, so
# the way is given as a command.
def jump-command [directory: string]: record -> string {
    let target = $in
    let words = [ssh -T ...($target | merge $target.jump | options $CONNECT_S) -E ($directory | path join jump-log)]
    # `%h` and `%p` are the machine behind it, as OpenSSH's configuration has it.
    $"($words | each { quoted } | str join ' ') -W '[%h]:%p' -- ($target.jump.host | quoted)"
}

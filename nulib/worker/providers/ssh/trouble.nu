# Why a connection did not come about or broke, from what OpenSSH wrote, in words that say what to do
# and whether trying again could help.

use ../../fault.nu
use target.nu

# What OpenSSH writes, and what it means. The first that fits counts. `{host}`, `{who}`, `{file}` and
# `{port}` are replaced.
const MEANINGS = [
    [pattern permanent message];
    ['(?i)host identification has changed|host key for .* has changed' true "the key of {host} is not the one in {file}{line}: either the machine was made anew, or somebody is in between. When you know that the new key is right, remove the old one with `ssh-keygen -R '{entry}' -f {file}` and add the new one"]
    ['(?i)host key is known for .* strict checking' true "the key of {host} is not in {file}: compare the fingerprint that `ssh-keyscan -p {port} {address} | ssh-keygen -lf -` shows with the machine's own, then add the key with `ssh-keyscan -p {port} {address} >> {file}`"]
    ['(?i)revoked host key|host key verification failed' true "the key of {host} was refused"]
    ['(?i)unable to negotiate|no matching .* found' true "{host} and this OpenSSH have no algorithm in common"]
    ['(?i)bad configuration option|bad owner or permissions|terminating, \d+ bad' true "the configuration of OpenSSH on this machine is wrong"]
    ['(?i)permission denied|too many authentication failures|no supported authentication methods|access denied' true "{host} refused to let {who} in: wrong user, or a key that it does not accept ({key})"]
    ['(?i)could not resolve hostname' false "the name of {host} is not known here"]
    ['(?i)connection refused' false "{host} does not accept connections: is its SSH server running?"]
    ['(?i)no route to host|network is unreachable|timed out|host is down|not responding' false "{host} does not answer"]
    ['(?i)stdio forwarding failed|open failed' false "{host} cannot be reached from its jump host"]
    ['(?i)connection (closed|reset)|broken pipe|closed by remote host|kex_exchange' false "{host} closed the connection"]
]

# Fails with the reason why the machine was not reached, or not to the end.
export def refuse [
    machine: record     # The machine, from target.nu
    directory: string   # Where OpenSSH's own words are
    --cut               # The script was already running
    --late              # It took too long
]: nothing -> any {
    let log = open-log $directory log
    let jump_log = open-log $directory jump-log
    let reason = explain $machine $log $jump_log
    let details = [$jump_log $log] | where ($it | is-not-empty) | str join (char newline)
    let where_to = $"server '($machine.name)'"
    if $cut {
        let why = $reason.message? | default "the machine or its SSH server ended it"
        (fault retryable $"($where_to): the connection was cut while the script ran \(($why)): the script is ended there, and the next attempt waits until it is gone"
            --details $details)
    }
    if $reason == null {
        let why = if $late { "did not answer in time" } else { $"could not be reached: ($log | lines | last | default 'OpenSSH does not say why')" }
        fault retryable $"($where_to): ($machine | target in-words) ($why)" --details $details
    }
    let message = $"($where_to): ($reason.message)"
    if $reason.permanent { fault permanent $message --details $details }
    fault retryable $message --details $details
}

# What the two logs mean; nothing where they mean nothing that is known.
def explain [machine: record, log: string, jump_log: string]: nothing -> any {
    # What the jump host's client says about the way on is about the machine behind it.
    let beyond = '(?i)open failed|stdio forwarding failed'
    if $machine.jump != null and $jump_log !~ $beyond {
        let found = $jump_log | meaning
        if $found != null {
            let jump = $machine | merge $machine.jump
            return {permanent: $found.permanent, message: ($found.message | fill-in $jump $"the jump host ($jump | target in-words)" $jump_log)}
        }
    }
    let text = if $jump_log =~ $beyond { $jump_log } else { $log }
    let found = $text | meaning
    if $found == null { return null }
    {permanent: $found.permanent, message: ($found.message | fill-in $machine ($machine | target in-words) $text)}
}

def meaning []: string -> any {
    let text = $in
    $MEANINGS | where $text =~ $it.pattern | get --optional 0
}

# The message for this machine. The file and the line are OpenSSH's where it names them.
def fill-in [machine: record, host: string, log: string]: string -> string {
    let offending = $log | parse --regex 'Offending .*key in (?P<file>.+):(?P<line>\d+)' | get --optional 0
    let port = $machine.port | default 22
    let parts = {
        host: $host
        address: $machine.host
        port: $port
        entry: (if $port == 22 { $machine.host } else { $"[($machine.host)]:($port)" })
        file: ($offending.file? | default ($machine.known_hosts_file | default ($nu.home-dir | path join .ssh known_hosts)))
        line: (if $offending == null { "" } else { $", line ($offending.line)" })
        who: (if $machine.user == null { "this user" } else { $"'($machine.user)'" })
        key: (if $machine.identity_file == null { "the agent's keys and those of ~/.ssh were tried" } else { $"tried: ($machine.identity_file); a key with a passphrase needs the agent" })
    }
    let message = $in
    $parts | transpose name value | reduce --fold $message {|part, text| $text | str replace --all $"{($part.name)}" ($part.value | into string) }
}

def open-log [directory: string, name: string]: nothing -> string {
    let path = $directory | path join $name
    if ($path | path exists) { open --raw $path | decode utf-8 | str trim } else { "" }
}

# Calls of the Docker client: the only file that runs `docker`.
#
# An answer is the client's output, or a failure in our own words. What could be another moment's
# answer (a daemon that does not answer, a name that another task has just taken) can be tried again.

use ../../fault.nu

# What the client says when it does not reach a daemon.
const UNREACHABLE = '(?i)cannot connect to the docker daemon|is the docker daemon running|failed to connect to the docker api|error during connect|permission denied while trying to connect|dial (?:tcp|unix)|connection refused|unable to resolve docker endpoint|no such host|i/o timeout|tls handshake'

# Runs the client and returns what it printed.
export def call [
    arguments: list<string>
    --doing: string         # What this is for, for the message where it fails
]: nothing -> string {
    let answer = try-call $arguments
    if not $answer.ok { refuse $answer --doing ($doing | default $"docker ($arguments.0)") }
    $answer.output
}

# Runs the client and returns how that ended. Fails only where there is no client, or no daemon.
export def try-call [arguments: list<string>]: nothing -> record<ok: bool, output: string, complaint: string> {
    if (which docker | is-empty) {
        fault permanent "the Docker client is not installed" --details "Install it, so that `docker version` answers on this machine."
    }
    let answer = ^docker ...$arguments | complete
    let complaint = $answer.stderr | str trim
    if $answer.exit_code != 0 and $complaint =~ $UNREACHABLE {
        let host = $env.DOCKER_HOST? | default --empty "the default socket"
        fault retryable $"Docker cannot be reached at ($host): ($complaint | reason)" --details "Is the daemon running, and may this user talk to it? `docker version` tells."
    }
    {ok: ($answer.exit_code == 0), output: ($answer.stdout | str trim), complaint: $complaint}
}

# Fails with what the daemon said.
export def refuse [answer: record, --doing: string]: nothing -> any {
    fault retryable $"($doing) failed: ($answer.complaint | reason)" --details $answer.complaint
}

# What the daemon knows of things of one kind, by name or id; nothing of those that it does not have.
export def look-at [
    kind: string            # container, network, image
    names: list<string>
]: nothing -> list<any> {
    if ($names | is-empty) { return [] }
    let answer = try-call [$kind inspect ...$names]
    if not $answer.ok and $answer.complaint !~ '(?i)no such|not found' {
        refuse $answer --doing $"looking at ($kind) ($names | str join ', ')"
    }
    $answer.output | default --empty "[]" | from json
}

# What of the client's complaint says why: what the daemon answered, else the last line that is no
# advice.
def reason []: string -> string {
    let lines = $in | lines | str trim | where ($it | is-not-empty)
    let daemon = $lines | where $it =~ 'Error response from daemon: '
    let own = $lines | where not ($it starts-with "Run 'docker") and not ($it starts-with "See 'docker") and not ($it starts-with "WARNING")
    let chosen = if ($daemon | is-not-empty) { $daemon } else { $own }
    $chosen | get --optional (($chosen | length) - 1) | default "no reason given"
        | str replace --regex '^(docker: )?(Error response from daemon: |Error: )?' ''
}

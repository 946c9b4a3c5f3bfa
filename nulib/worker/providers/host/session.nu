# A machine that runs a shell: how its root is reached, asked for facts, and given a script to run.
#
# `ssh` and `local` differ only in the words that bring a shell command to the machine; here is what
# the command is. It goes through the login shell of the machine's user, which may be any, so it holds
# neither a single quote nor a `!` nor a line break, and nothing of what somebody else has written:
# that travels on standard input. The other end is session.sh.

use ../../fault.nu
use order.nu *

const FEED = path self feed.sh
const SESSION = path self session.sh

# The size of the blocks in which the header and the program are read, and of those of tar.
const BLOCK = 512
const TAR_BLOCK = 10240

# Becomes root, and says who logged in and what for. Its arguments are the mark, what root runs, and the
# arguments of that.
const ENTER = [
    'PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin;'
    'echo "$1 fact user $(id -un)"; echo "$1 fact connection ${SSH_CONNECTION:-}";'
    'if test "$(id -u)" = 0; then exec sh -c "$2" "$@"; fi;'
    'if command -v sudo >/dev/null 2>&1; then :; else echo "$1 no-sudo"; exit 0; fi;'
    'if sudo -n -H sh -c : >/dev/null 2>&1 </dev/null; then exec sudo -n -H sh -c "$2" "$@"; fi;'
    'echo "$1 sudo-refused"'
]

# Says what the machine is, and what it lacks.
const LOOK = [
    'if test -r /etc/os-release; then . /etc/os-release; fi;'
    'echo "$0 fact system $(uname -s)"; echo "$0 fact kernel $(uname -r)"; echo "$0 fact machine $(uname -m)";'
    'echo "$0 fact hostname $(uname -n)"; echo "$0 fact os ${PRETTY_NAME:-}";'
    'for tool in dd flock mkfifo mktemp setsid tar timeout; do command -v $tool >/dev/null 2>&1 || echo "$0 lacks $tool"; done;'
    'echo "$0 seen"'
]

# Takes session.sh from standard input and goes on with it.
const UNPACK = [
    'umask 077; dir=$(mktemp -d /tmp/orchestrator.XXXXXXXXXX) || { echo "$0 broken /tmp cannot be written"; exit 0; };'
    'dd bs=512 count=$2 iflag=fullblock of=$dir/session.sh 2>/dev/null; exec sh $dir/session.sh session $0 $dir $3 $4'
]

# What a machine has said: the facts by name, the tools that it lacks, why root cannot be had.
export def look [
    reach: closure      # Makes the command that brings a shell command to the machine
    --within: duration = 30sec
]: nothing -> record<facts: record, lacks: list<string>, refused: any, seen: bool, timed_out: bool> {
    let mark = new-mark
    let words = do $reach (shell-command $mark $LOOK [])
    let answer = ^timeout $"($within / 1sec | math round)s" ...$words | complete
    print --stderr --no-newline $answer.stderr
    let said = $answer.stdout | lines | each {|line| $line | after-mark $mark } | compact
    {
        facts: ($said | where word == fact | get rest | parse --regex '^(?P<name>\S+) ?(?P<value>.*)$' | transpose --header-row --as-record)
        lacks: ($said | where word == lacks | get rest)
        refused: ($said | where word in [no-sudo sudo-refused] | get --optional 0.word)
        seen: ($said | where word == seen | is-not-empty)
        timed_out: ($answer.exit_code == 124)
    }
}

# Runs an order's script on a machine and passes its output on. `exit_code` is nothing where the machine
# has not said how the script ended.
export def run-script [
    order: record       # The order `run`, checked by order.nu
    directory: string   # A private directory of this call
    reach: closure      # Makes the command that brings a shell command to the machine
]: nothing -> record<begun: bool, exit_code: any, result: any, lacks: list<string>, broken: any, refused: any, user: string> {
    let mark = new-mark
    pack $order $directory
    let header = header-of $order
    let sizes = [session files] | each {|part| ls ($directory | path join $part) | get 0.size | into int }
    let command = shell-command $mark $UNPACK [($sizes.0 // $BLOCK) ($sizes.1 // $TAR_BLOCK) (($header | str length --utf-8-bytes) // $BLOCK)]
    let said = $header | ^sh $FEED $directory ...(do $reach $command) | lines | each {|line| $line | pass-on $mark } | compact
    let exits = $said | where word == exit
    {
        begun: ($said | where word == begin | is-not-empty)
        exit_code: (if ($exits | is-empty) { null } else { $exits.0.rest | into int })
        result: ($said | get result | compact | last-result)
        lacks: ($said | where word == lacks | get rest)
        broken: ($said | where word == broken | get --optional 0.rest)
        refused: ($said | where word in [no-sudo sudo-refused] | get --optional 0.word)
        user: ($said | where word == fact | get rest | where $it starts-with "user " | get --optional 0 | default "user " | str substring 5..)
    }
}

# Fails where the machine said why it cannot do what it is asked for.
export def refuse-unfit [
    said: record        # What `look` or `run-script` returned
    machine: string     # The machine, for messages
    user: string        # Who logged in
]: nothing -> nothing {
    match $said.refused {
        "no-sudo" => { fault permanent $"user '($user)' of ($machine) is not root, and there is no sudo: log in as root, or install sudo and let '($user)' use it without a password" }
        "sudo-refused" => { fault permanent $"user '($user)' of ($machine) may not use sudo without a password: log in as root, or add `($user) ALL=\(ALL) NOPASSWD: ALL` to its sudoers" }
    }
    if ($said.lacks | is-not-empty) {
        fault permanent $"($machine) has no ($said.lacks | str join ', '): install what is missing \(on Debian: coreutils, tar, util-linux)"
    }
}

# The facts of a machine that are worth knowing, where it is of a system that is known.
export def check-facts [said: record, machine: string]: nothing -> record {
    let facts = $said.facts
    refuse-unfit $said $machine ($facts.user? | default "")
    if not $said.seen { fault permanent $"($machine) does not run commands for user '($facts.user? | default '')' as a POSIX shell would" }
    if $facts.system != "Linux" { fault permanent $"($machine) runs ($facts.system): only Linux is known" }
    if ($facts.os | is-empty) { fault permanent $"($machine) does not say in /etc/os-release which system it is" }
    {
        os: $facts.os
        kernel: $facts.kernel
        machine: $facts.machine
        hostname: $facts.hostname
        address: ($facts.connection | split row ' ' | get --optional 2)
        user: $facts.user
    }
}

# The command for the login shell.
def shell-command [mark: string, job: list<string>, arguments: list<int>]: nothing -> string {
    $"exec sh -c '($ENTER | str join ' ')' enter ($mark) '($job | str join ' ')' ($arguments | str join ' ')"
}

# What begins a line that is for the provider. A script cannot guess it.
def new-mark []: nothing -> string {
    $"orchestrator-(random chars --length 20)"
}

# What stands behind the mark, and what stands before it: the script's last line may have had no end.
def after-mark [mark: string]: string -> any {
    let parts = $in | split row --number 2 $mark
    if ($parts | length) < 2 { return null }
    let words = $parts.1 | str trim | split row --number 2 ' '
    {before: $parts.0, word: $words.0, rest: ($words.1? | default "")}
}

# Prints a line of the script, or returns what is for the provider: the script's result, a word behind
# the mark, or both.
def pass-on [mark: string]: string -> any {
    let line = $in
    let found = $line | after-mark $mark | default {before: $line, word: null, rest: null}
    let result = if ($found.before starts-with "::result ") { $found.before | str substring 9.. } else { null }
    if $result == null and ($found.word == null or ($found.before | is-not-empty)) { print $found.before }
    if $result == null and $found.word == null { return null }
    {word: $found.word, rest: $found.rest, result: $result}
}

# Writes the program and the files that the machine gets.
def pack [order: record, directory: string]: nothing -> nothing {
    open --raw $SESSION | decode utf-8 | padded | save --raw ($directory | path join session)
    let packed = ^tar -cf ($directory | path join files) -b 20 -C $order.folder . | complete
    if $packed.exit_code != 0 { fault permanent $"the folder ($order.folder) cannot be read: ($packed.stderr | str trim | lines | first)" --details $packed.stderr }
}

# What session.sh has to know, as shell text.
def header-of [order: record]: nothing -> string {
    [
        ""
        $"name=($order | lock-name | quoted)"
        $"script=($order.script | quoted)"
        $"environment=($order.env | exports | quoted)"
        "complete=yes"
    ] | str join (char newline) | padded --front
}

# A text, longer by what a whole number of blocks needs.
def padded [--front]: string -> string {
    let text = $in
    let short = (0 - ($text | str length --utf-8-bytes)) mod $BLOCK
    let padding = "" | fill --character (char newline) --width (($short + $BLOCK) mod $BLOCK)
    if $front { $padding + $text } else { $text + $padding }
}

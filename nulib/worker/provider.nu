# How providers are called, the project's own and the user's alike: each is a program of its own.
#
#     nu -n --no-std-lib --stdin -I <this directory> PROVIDER create|delete|list|run
#
# The order is one JSON record on standard input, the answer is the word `::result {json}`, a failure
# is `::fail [permanent] message` and an exit status that is not 0. Everything else that it prints is
# log. `use task.nu` works in it.

use fault.nu
use schema.nu PROVIDERS

const HERE = path self | path dirname

# How many of the last lines of a script's output are kept for a message.
const TAIL_LINES = 15

# How `timeout` ends where it has ended the provider: in good time, or by force.
const TIMED_OUT = [124 137 (-9)]

# Gives a provider an order and returns its answer.
export def ask [
    provider: string    # Its name, or the path of the user's own
    operation: string   # create, delete or list
    order: record
    --quiet             # Hold back what it prints until it has ended: for several at once
]: nothing -> record {
    let answer = call $provider $operation $order $quiet
    let failure = $answer.words | where ($it starts-with "::fail ") | get --optional 0
    if $failure != null { $failure | read-failure | raise }
    check-exit $provider $answer
    read-result $provider $operation $answer
}

# Has a provider run a script of a folder on a server, and returns how that ended: the script's exit
# status, its result, the failure that it announced, and the last lines of its output. That the provider
# could not do its part is a failure here; that the script failed is an answer, and so is that it took
# too long: the provider is ended then, and with it the script.
export def run-script [
    provider: string    # Its name, or the path of the user's own
    order: record
    limit_sec: int      # How long it may take
    --quiet             # Hold back what it prints until it has ended: for several at once
]: nothing -> record<exit_code: int, result: any, failure: any, tail: string, timed_out: bool> {
    let started = date now
    let answer = call $provider run $order $quiet --limit [timeout --kill-after "10s" $"($limit_sec)s"]
    # The last one counts: the provider's own comes after what the script has said.
    let failure = $answer.words | where ($it starts-with "::fail ") | reverse | get --optional 0
    let failure = if $failure == null { null } else { $failure | read-failure }
    # A provider that somebody else has killed ends alike, but sooner.
    let timed_out = $answer.exit_code in $TIMED_OUT and (date now) - $started >= $limit_sec * 1sec
    if $answer.exit_code != 0 and $failure != null and not $timed_out { $failure | raise }
    let result = if $timed_out { {exit_code: $answer.exit_code} } else {
        check-exit $provider $answer
        read-result $provider run $answer
    }
    if ($result.exit_code? | describe) != "int" {
        fault permanent $"provider '($provider | path basename)' answered 'run' without an `exit_code`"
    }
    # What a script complains about says more than what it reports.
    let complaint = $answer.stderr | lines | where ($it | str trim | is-not-empty)
    let lines = if ($complaint | is-not-empty) { $complaint } else {
        $answer.stdout | lines | where not ($it starts-with "::") and ($it | str trim | is-not-empty)
    }
    {exit_code: $result.exit_code, result: $result.result?, failure: $failure, tail: ($lines | last $TAIL_LINES | str join (char newline)), timed_out: $timed_out}
}

# Runs a provider. What it prints is passed on, but for the words that are its answer. `limit` is the
# command that ends it after a while.
def call [provider: string, operation: string, order: record, quiet: bool, --limit: list<string> = []]: nothing -> record<stdout: string, stderr: string, exit_code: int, words: list<string>> {
    let program = if $provider in $PROVIDERS.name { $HERE | path join providers $"($provider).nu" } else { $provider }
    let words = $limit ++ [$nu.current-exe -n --no-std-lib --stdin -I $HERE $program $operation]
    let input = $order | to json --raw
    let answer = if $quiet {
        $input | ^$words.0 ...($words | skip 1) | complete
    } else {
        ($input | ^$words.0 ...($words | skip 1)
            | tee --stderr { lines | each {|line| print --stderr $line } | ignore }
            | tee { lines | where not ($it | is-answer) | each {|line| print $line } | ignore }
            | complete)
    }
    if $quiet {
        $answer.stdout | lines | where not ($it | is-answer) | each {|line| print $line }
        if ($answer.stderr | is-not-empty) { print --stderr --no-newline $answer.stderr }
    }
    $answer | insert words ($answer.stdout | lines | where ($it | is-answer))
}

def is-answer []: string -> bool {
    ($in starts-with "::result ") or ($in starts-with "::fail ")
}

# What the word of a failure says.
def read-failure []: string -> record<message: string, permanent: bool> {
    let message = $in | str substring 7..
    if ($message starts-with "permanent ") { {message: ($message | str substring 10..), permanent: true} } else { {message: $message, permanent: false} }
}

def raise []: record -> nothing {
    if $in.permanent { fault permanent $in.message } else { fault retryable $in.message }
}

def check-exit [provider: string, answer: record]: nothing -> nothing {
    if $answer.exit_code != 0 {
        fault retryable $"provider '($provider | path basename)' ended with exit status ($answer.exit_code) and did not say why"
    }
}

# The record of a provider's last result.
def read-result [provider: string, operation: string, answer: record]: nothing -> record {
    let name = $provider | path basename
    let results = $answer.words | where ($it starts-with "::result ")
    if ($results | is-empty) { fault permanent $"provider '($name)' gave no answer to '($operation)'" }
    let result = try { $results | last | str substring 9.. | from json } catch { null }
    if ($result | describe --detailed | get type) != "record" {
        fault permanent $"provider '($name)' answered '($operation)' with something that is not a JSON record"
    }
    $result
}

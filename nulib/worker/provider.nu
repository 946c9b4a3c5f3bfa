# How providers are called, the project's own and the user's alike: each is a program of its own.
#
#     nu -n --no-std-lib --stdin -I <this directory> PROVIDER create|delete|list
#
# The order is one JSON record on standard input, the answer is the word `::result {json}`, a failure
# is `::fail [permanent] message` and an exit status that is not 0. Everything else that it prints is
# log. `use task.nu` works in it.

use fault.nu
use schema.nu PROVIDERS

const HERE = path self | path dirname

# Gives a provider an order and returns its answer.
export def ask [
    provider: string    # Its name, or the path of the user's own
    operation: string   # create, delete or list
    order: record
    --quiet             # Hold back what it prints until it has ended: for several at once
]: nothing -> record {
    let program = if $provider in $PROVIDERS.name { $HERE | path join providers $"($provider).nu" } else { $provider }
    let words = [-n --no-std-lib --stdin -I $HERE $program $operation]
    let input = $order | to json --raw
    let answer = if $quiet {
        $input | ^$nu.current-exe ...$words | complete
    } else {
        ($input | ^$nu.current-exe ...$words
            | tee --stderr { lines | each {|line| print --stderr $line } | ignore }
            | tee { lines | where not ($it | is-answer) | each {|line| print $line } | ignore }
            | complete)
    }
    if $quiet {
        $answer.stdout | lines | where not ($it | is-answer) | each {|line| print $line }
        if ($answer.stderr | is-not-empty) { print --stderr --no-newline $answer.stderr }
    }
    let name = $provider | path basename
    let said = $answer.stdout | lines | where ($it | is-answer)
    let failure = $said | where ($it starts-with "::fail ") | get --optional 0
    if $failure != null {
        let message = $failure | str substring 7..
        if ($message starts-with "permanent ") { fault permanent ($message | str substring 10..) }
        fault retryable $message
    }
    if $answer.exit_code != 0 {
        fault retryable $"provider '($name)' ended with exit status ($answer.exit_code) and did not say why"
    }
    let results = $said | where ($it starts-with "::result ")
    if ($results | is-empty) { fault permanent $"provider '($name)' gave no answer to '($operation)'" }
    let result = try { $results | last | str substring 9.. | from json } catch { null }
    if ($result | describe --detailed | get type) != "record" {
        fault permanent $"provider '($name)' answered '($operation)' with something that is not a JSON record"
    }
    $result
}

def is-answer []: string -> bool {
    ($in starts-with "::result ") or ($in starts-with "::fail ")
}

# What tests expect. A wrong expectation fails with both sides.

# The values are the same.
export def same [actual: any, expected: any]: nothing -> nothing {
    if $actual != $expected {
        error make --unspanned {msg: $"expected\n  ($expected | to nuon --serialize)\ngot\n  ($actual | to nuon --serialize)"}
    }
}

# The text holds all of these.
export def holds [text: any, ...parts: string]: nothing -> nothing {
    for part in $parts {
        if $part not-in $"($text)" { error make --unspanned {msg: $"expected a text that holds\n  ($part)\ngot\n  ($text)"} }
    }
}

# The program has ended with 0. One that has not shows what it printed.
export def succeeded [answer: record]: nothing -> nothing {
    if $answer.exit_code != 0 {
        error make --unspanned {msg: $"expected exit status 0, got ($answer.exit_code)\n($answer.stdout)($answer.stderr)"}
    }
}

# It is so.
export def so [fact: bool, what: string]: nothing -> nothing {
    if not $fact { error make --unspanned {msg: $"it is not so: ($what)"} }
}

# The work fails; returns the error.
export def fails [work: closure]: nothing -> record {
    let error = try {
        do $work
        null
    } catch {|error| $error }
    if $error == null { error make --unspanned {msg: "expected a failure, and there was none"} }
    $error
}

# Runs the conformance program on a provider, as people do.

const CONFORMANCE = path self ../providers/conformance.nu

# What the program says of a provider, for the first of its servers in the place's settings: the exit
# status, the names of the checks that failed, and everything that it printed.
export def conformance [provider: string, --with: record = {}]: record -> record<exit_code: int, failed: list<string>, passed: int, text: string> {
    let place = $in
    let answer = with-env $with { ^$nu.current-exe -n --no-std-lib $CONFORMANCE $provider --settings $place.settings | complete }
    let lines = $answer.stdout | lines
    {
        exit_code: $answer.exit_code
        failed: ($lines | where $it starts-with "FAILED  " | str substring 8..)
        passed: ($lines | where $it starts-with "ok      " | length)
        text: ($answer.stdout + $answer.stderr)
    }
}

# Fails unless all checks have passed.
export def conforms [provider: string, --with: record = {}]: record -> nothing {
    let answer = $in | conformance $provider --with $with
    if $answer.exit_code != 0 or $answer.passed < 20 { error make --unspanned {msg: $answer.text} }
}

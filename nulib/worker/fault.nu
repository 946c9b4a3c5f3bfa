# How this program fails: an error says whether trying again could help.
#
# Wrong settings, a name that nobody knows, a container that belongs to somebody else: trying again
# changes nothing, so the engine is told not to. A daemon that does not answer may answer later.

use task.nu

const PERMANENT = "orchestrator::permanent"
const RETRYABLE = "orchestrator::retryable"

# Ends the work for good.
export def permanent [
    message: string     # One line
    --details: string   # More, for people
]: nothing -> any {
    error make --unspanned {msg: $message, code: $PERMANENT, help: $details}
}

# Ends the work for now.
export def retryable [
    message: string     # One line
    --details: string   # More, for people
]: nothing -> any {
    error make --unspanned {msg: $message, code: $RETRYABLE, help: $details}
}

# What a caught error says: its message, its details, and whether it is permanent. An error that is
# none of ours is a defect here or in Nushell: its details are Nushell's own report.
export def describe-error []: record -> record<message: string, details: any, permanent: bool> {
    let error = $in
    let cause = $error.details | innermost
    let ours = $cause.code? in [$PERMANENT $RETRYABLE]
    {
        message: $cause.msg
        details: (if $ours { $cause.help? } else { $error.rendered })
        permanent: ($cause.code? == $PERMANENT)
    }
}

# The error inside the ones that Nushell wraps around it for every closure it has passed.
def innermost []: record -> record {
    let error = $in
    if $error.code? == "nu::shell::eval_block_with_input" and ($error.inner? | is-not-empty) {
        $error.inner.0 | innermost
    } else {
        $error
    }
}

# Runs the work of a program. Where it fails, the engine is told why and whether trying again could
# help, people read the details, and the program ends with exit status 1.
export def guard [work: closure]: nothing -> nothing {
    try { do $work } catch {|error|
        let failure = $error | describe-error
        if ($failure.details | is-not-empty) { print --stderr $failure.details }
        task announce-failure $failure.message --permanent=$failure.permanent
        print --stderr $"Error: ($failure.message)"
        exit 1
    }
}

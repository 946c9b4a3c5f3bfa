# The worker, run from here and not by the engine: to read what is there, and to do the work inside a
# task.
#
# Nushell reads what follows a program as source, so only words that cannot be more than words are let
# through: names are DNS labels, and the settings file is an absolute path.

use ../worker/values.nu is-label

const WORKER = path self ../worker/worker.nu

# Whether this program is part of a task already.
export def inside-a-task []: nothing -> bool {
    $env.ORCHESTRATOR_TASK_ID? | default "" | is-not-empty
}

# Has the worker do the work here. Its log and its words to the engine pass through as they come, except
# for its result, which is returned: what the task's result is, is for the caller to say.
export def perform [
    operation: list<string>                                             # Words such as `server create`
    names: list<string>                                                 # What it is about
    options: record<infra: any, settings: any, check: bool>
]: nothing -> any {
    let words = command-line $operation $names $options
    let answer = (^$nu.current-exe ...$words
        | tee --stderr { lines | each {|line| print --stderr $line } | ignore }
        | tee { lines | where $it not-starts-with "::result " | each {|line| print $line } | ignore }
        | complete)
    $answer | result-of $operation
}

# Asks the worker for something that changes nothing.
export def ask [
    operation: list<string>                             # Words such as `server list`
    names: list<string>                                 # What it is about
    options: record<infra: any, settings: any>
]: nothing -> any {
    let words = command-line $operation $names ($options | insert check false)
    ^$nu.current-exe ...$words | complete | result-of $operation
}

def command-line [operation: list<string>, names: list<string>, options: record]: nothing -> list<string> {
    let bad = $names ++ [$options.infra] | compact | where not ($it | is-label)
    if ($bad | is-not-empty) {
        error make --unspanned {
            msg: $"'($bad.0)' is not a name: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or a digit"
            code: "orchestrator::invalid"
        }
    }
    let settings = if $options.settings == null { [] } else { [--settings ($options.settings | path expand)] }
    let infra = if $options.infra == null { [] } else { [--infra $options.infra] }
    let check = if $options.check { [--check] } else { [] }
    [-n --no-std-lib $WORKER] ++ $operation ++ $names ++ $infra ++ $settings ++ $check
}

# The value that the worker has handed over. Where it failed, its reason and its details are the error.
def result-of [operation: list<string>]: record -> any {
    let answer = $in
    let lines = $answer.stdout | lines
    if $answer.exit_code != 0 {
        let reason = $lines | where $it starts-with "::fail " | get --optional 0
        let message = $reason | default $"'($operation | str join ' ')' ended with exit status ($answer.exit_code)" | str replace --regex '^::fail (permanent )?' ''
        error make --unspanned {
            msg: $message
            code: "orchestrator::failed"
            # The worker ends with its reason as an error too, which need not be read twice.
            help: ($answer.stderr | lines | where $it != $"Error: ($message)" | str join "\n" | str trim)
        }
    }
    let results = $lines | where $it starts-with "::result "
    if ($results | is-empty) { return null }
    $results | last | str substring 9.. | from json
}

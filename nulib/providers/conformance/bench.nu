# What the checks of a provider have in common: asking it, and saying what was expected.

const WORKER = path self ../../worker

# The directory of the worker's modules, for the provider's `use`.
export def worker-directory []: nothing -> string { $WORKER | path expand }

# The program of a provider: a path, or the name of one that the worker carries.
export def program-of [provider: string]: nothing -> string {
    if ($provider | path type) == "file" { $provider | path expand } else { $WORKER | path join providers $"($provider).nu" | path expand }
}

# Gives the provider an order, as text, and returns what it said.
export def ask-raw [
    operation: string
    input: string
]: record -> record<exit_code: int, result: any, results: int, failures: list<string>, lines: list<string>, stderr: string> {
    let bench = $in
    let answer = $input | ^$nu.current-exe -n --no-std-lib --stdin -I (worker-directory) $bench.program $operation | complete
    let lines = $answer.stdout | lines
    let results = $lines | where $it starts-with "::result "
    {
        exit_code: $answer.exit_code
        result: (if ($results | is-empty) { null } else { try { $results | last | str substring 9.. | from json } catch { null } })
        results: ($results | length)
        failures: ($lines | where $it starts-with "::fail ")
        lines: ($lines | where $it not-in $results)
        stderr: $answer.stderr
    }
}

# Gives the provider an order about the server.
export def ask [operation: string, more: record = {}]: record -> record {
    let bench = $in
    let order = {infra: $bench.infra, server: $bench.server, networks: $bench.networks} | merge $more
    $bench | ask-raw $operation ($order | to json --raw)
}

# The same, and the answer must be a good one.
export def ask-well [operation: string, more: record = {}]: record -> record {
    let answer = $in | ask $operation $more
    expect ($answer.exit_code == 0 and ($answer.failures | is-empty)) $"`($operation)` ends well, not with exit status ($answer.exit_code) and ($answer.failures | to nuon): ($answer.stderr)"
    expect ($answer.results == 1) $"`($operation)` answers with one `::result`, not ($answer.results)"
    expect (($answer.result | describe --detailed | get type) == "record") $"`($operation)` answers with a record"
    $answer
}

# The servers that the provider lists, by name.
export def listed []: record -> list<any> {
    let bench = $in
    let answer = $bench | ask-raw list ({infra: $bench.infra, servers: [$bench.server]} | to json --raw)
    expect ($answer.exit_code == 0) $"`list` ends well, not with exit status ($answer.exit_code) and ($answer.failures | to nuon): ($answer.stderr)"
    let servers = $answer.result.servers?
    expect (($servers | describe --detailed | get type) in ["list" "table"]) "`list` answers with `servers`, a list"
    for server in $servers {
        expect (($server.name? | describe) == "string" and ($server.status? | describe) == "string") "each of `servers` has a `name` and a `status`"
    }
    $servers | select name status | sort-by name
}

# A folder with these files.
export def folder-with [files: record]: record -> string {
    let folder = $in.scratch | path join (random chars --length 8)
    mkdir $folder
    $files | items {|name, text| $text | save --raw ($folder | path join $name) } | ignore
    $folder
}

# Runs a script that consists of this text.
export def run-text [
    script: string
    --env-values: record = {}
]: record -> record {
    let bench = $in
    $bench | ask run {folder: ($bench | folder-with {"go.sh": $script}), script: "go.sh", env: $env_values}
}

# The same, and it must have been run.
export def run-well [
    script: string
    --env-values: record = {}
]: record -> record {
    let bench = $in
    let answer = $bench | run-text $script --env-values $env_values
    expect ($answer.exit_code == 0 and $answer.results == 1) $"`run` ends well with one `::result`, not with exit status ($answer.exit_code), ($answer.results) results and ($answer.failures | to nuon): ($answer.stderr)"
    expect ($answer.result.exit_code? != null) "`run` answers with `exit_code`"
    $answer
}

# It must be so.
export def expect [fact: bool, what: string]: nothing -> nothing {
    if not $fact { error make --unspanned {msg: $"expected: ($what)"} }
}

# Both must be the same.
export def expect-same [actual: any, expected: any, what: string]: nothing -> nothing {
    expect ($actual == $expected) $"($what): ($expected | to nuon), not ($actual | to nuon)"
}

# Runs the Nushell tests: every exported command `test …` of the files `*_test.nu` beside this one, each
# in a process of its own.
#
#     nu -n --no-std-lib nulib/tests/run.nu [PATTERN]
#
# The tests whose files have `docker` in their names need a Docker daemon and the image that
# ORCHESTRATOR_TEST_IMAGE names (orchestrator-base:bookworm by default). Without them they are left out,
# which is said; with ORCHESTRATOR_CI=1 they fail.

const HERE = path self | path dirname

# How many tests run at once.
const AT_ONCE = 3

# A test that takes longer hangs.
const LONGEST = "360s"

def main [
    pattern: string = ""    # Only tests whose names hold this text
]: nothing -> nothing {
    let docker = docker-problem
    let promised = ($env.ORCHESTRATOR_CI? | default "") == "1"
    let tests = glob ($HERE | path join "*_test.nu") | sort | each {|file| tests-of $file } | flatten | where ($pattern | str lowercase) in ($it.name | str lowercase)
    let left_out = if $docker == null or $promised { [] } else { $tests | where needs_docker }
    let outcomes = $tests | where name not-in $left_out.name? | par-each --keep-order --threads $AT_ONCE {|test|
        let outcome = if $test.needs_docker and $docker != null { {ok: false, took: 0sec, report: $docker} } else { run-one $test }
        let mark = if $outcome.ok { "ok    " } else { "FAILED" }
        print $"($mark) ($test.name) \(($outcome.took | format duration ms))"
        $test | merge $outcome
    }
    let failed = $outcomes | where not ok
    for test in $failed {
        print $"\n--- ($test.name) \(($test.file | path basename))" ($test.report | str trim)
    }
    if ($left_out | is-not-empty) {
        print $"\nleft out ($left_out | length) tests: ($docker)"
    }
    print $"\n(($outcomes | length) - ($failed | length)) passed, ($failed | length) failed"
    if ($failed | is-not-empty) or ($outcomes | is-empty) { exit 1 }
}

# The tests of a file. Whether they need Docker is in the file's name.
def tests-of [file: string]: nothing -> table<name: string, file: string, needs_docker: bool> {
    open --raw $file | decode utf-8 | parse --regex '(?m)^export def "(?P<name>test [^"]+)"' | each {|found|
        if $found.name !~ '^[a-z0-9 -]+$' { error make --unspanned {msg: $"'($found.name)' cannot be called: use a-z, 0-9, '-' and blanks"} }
        {name: $found.name, file: $file, needs_docker: ("docker" in ($file | path basename))}
    }
}

def run-one [test: record]: nothing -> record<ok: bool, took: duration, report: string> {
    let started = date now
    let answer = ^timeout $LONGEST $nu.current-exe -n --no-std-lib -c $"use ($test.file | to nuon) *; ($test.name)" | complete
    let report = if $answer.exit_code == 124 { $"did not end within ($LONGEST)\n" } else { "" }
    {ok: ($answer.exit_code == 0), took: ((date now) - $started), report: $"($report)($answer.stdout)($answer.stderr)"}
}

# Why the tests that need Docker cannot run; nothing where they can.
def docker-problem []: nothing -> any {
    let image = $env.ORCHESTRATOR_TEST_IMAGE? | default "orchestrator-base:bookworm"
    if (which docker | is-empty) { return "they need the Docker client, which is not installed" }
    let answer = ^docker image inspect $image | complete
    if $answer.exit_code == 0 { null } else { $"they need Docker with the image ($image): ($answer.stderr | str trim)" }
}

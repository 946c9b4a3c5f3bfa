# Says whether a provider keeps the contract of docs/user/providers.md.
#
#     nu nulib/providers/conformance.nu PROVIDER --settings FILE [--infra NAME] [--server NAME]
#
# It makes the server, runs scripts on it, and removes it, so the settings file should describe one that
# may go; a server that was there before is left there. Every check is one line; exit status 0 means
# that all of them passed.

use conformance/bench.nu *
use conformance/scripts.nu
use conformance/servers.nu
use ../worker/fault.nu
use ../worker/settings.nu

def main [
    provider: string        # `docker`, `ssh`, `local`, or the path of a provider
    --settings: string      # A settings file with a server of this provider
    --infra: string         # The infra, where the file does not say it
    --server: string        # The server; the first one of the provider otherwise
]: nothing -> nothing {
    fault guard {
        if $settings == null { fault permanent "name the settings file with --settings" }
        let scratch = mktemp --directory --tmpdir "conformance-XXXXXX"
        let failed = try {
            run-checks (bench-for $provider (settings load $settings --infra $infra) $server $scratch)
        } catch {|error|
            rm --recursive --force $scratch
            error make $error.raw
        }
        rm --recursive --force $scratch
        if $failed > 0 { exit 1 }
    }
}

# What the checks need to know.
def bench-for [provider: string, settings: record, name: any, scratch: string]: nothing -> record {
    let program = program-of $provider
    if ($program | path type) != "file" { fault permanent $"there is no provider '($provider)'" }
    let mine = $settings.servers | where {|server| (program-of $server.provider) == $program and ($name == null or $server.name == $name) }
    if ($mine | is-empty) { fault permanent $"($settings.file) describes no server '($name | default '')' of provider '($provider)'" }
    let bench = {program: $program, infra: $settings.infra, server: $mine.0, networks: $settings.networks, scratch: $scratch}
    $bench | insert was_there ($mine.0.name in ($bench | listed).name)
}

# Runs all checks, in order: each relies on the ones before it. Returns how many failed.
def run-checks [bench: record]: nothing -> int {
    let checks = (servers before) ++ (servers hostile) ++ (scripts all) ++ (servers after)
    let problems = $checks | each {|check|
        let problem = try {
            do $check.work $bench
            null
        } catch {|error| ($error | fault describe-error).message }
        print (if $problem == null { $"ok      ($check.name)" } else { $"FAILED  ($check.name)\n        ($problem)" })
        $problem
    }
    let failed = $problems | length
    print $"\n(($checks | length) - $failed) passed, ($failed) failed"
    $failed
}

#!/usr/bin/env nu
# Moves the engine's records to another storage, thin over `orchestrator storage` of plugin and engine.
#
#     nu nulib/scripts/migrate-storage.nu --interactive
#     nu nulib/scripts/migrate-storage.nu --to filesystem --target-dir /srv/orchestrator
#     nu nulib/scripts/migrate-storage.nu --from filesystem --to filesystem --source-dir ./data --target-dir /srv/orchestrator
#     nu nulib/scripts/migrate-storage.nu --from filesystem --to surrealdb-embedded --source-dir ./data --target-dir ./data
#     nu nulib/scripts/migrate-storage.nu --to surrealdb-server --target-url ws://127.0.0.1:8000
#     nu nulib/scripts/migrate-storage.nu validate --to filesystem --target-dir /srv/orchestrator
#
# Without a source the records are those of the engine, which goes on working where it runs. With --from or
# another word about the source they are those of a storage that no engine works on. The plugin need not be loaded: it is
# found beside the engine.

use programs.nu

# The kinds of storage.
const TYPES = [filesystem surrealdb-embedded surrealdb-server]

# Moves the records.
def main [
    --from (-f): string         # The storage that the records are in (default: the engine's)
    --to (-t): string           # The storage that they go to (default: filesystem)
    --source-dir (-s): path     # The directory of the first
    --source-url: string        # Its server (default: as configured)
    --source-namespace: string  # The namespace there (default: as configured)
    --source-database: string   # The database in it (default: as configured)
    --target-dir (-d): path     # The directory of the second (default: the data directory)
    --target-url: string        # Its server (default: as configured)
    --target-namespace: string  # The namespace there (default: as configured)
    --target-database: string   # The database in it (default: as configured)
    --target-username: string   # The user there (default: as configured)
    --target-password-file: path # The file with the user's password
    --data-dir (-D): path       # The engine's data directory (default: the user's state directory)
    --dry-run (-n)              # Only check, as `validate` does
    --interactive (-i)          # Ask for everything, check, and ask once more
]: nothing -> any {
    let given = {
        from: $from
        to: $to
        source-dir: $source_dir
        source-url: $source_url
        source-namespace: $source_namespace
        source-database: $source_database
        target-dir: $target_dir
        target-url: $target_url
        target-namespace: $target_namespace
        target-database: $target_database
        target-username: $target_username
        target-password-file: $target_password_file
        data-dir: $data_dir
    } | given
    if $interactive { return (wizard $given) }
    if $dry_run { return (checked $given) }
    storage migrate $given
}

# Checks whether the records could be moved; none is changed.
def "main validate" [
    --from (-f): string         # The storage that the records are in (default: the engine's)
    --to (-t): string           # The storage that they go to (default: filesystem)
    --source-dir (-s): path     # The directory of the first
    --source-url: string        # Its server (default: as configured)
    --source-namespace: string  # The namespace there (default: as configured)
    --source-database: string   # The database in it (default: as configured)
    --target-dir (-d): path     # The directory of the second (default: the data directory)
    --target-url: string        # Its server (default: as configured)
    --target-namespace: string  # The namespace there (default: as configured)
    --target-database: string   # The database in it (default: as configured)
    --target-username: string   # The user there (default: as configured)
    --target-password-file: path # The file with the user's password
    --data-dir (-D): path       # The engine's data directory (default: the user's state directory)
]: nothing -> any {
    checked ({
        from: $from
        to: $to
        source-dir: $source_dir
        source-url: $source_url
        source-namespace: $source_namespace
        source-database: $source_database
        target-dir: $target_dir
        target-url: $target_url
        target-namespace: $target_namespace
        target-database: $target_database
        target-username: $target_username
        target-password-file: $target_password_file
        data-dir: $data_dir
    } | given)
}

# What a check has found; ends the script where the records cannot be moved.
def checked [given: record]: nothing -> record {
    let found = storage validate $given
    if not $found.possible {
        print --stderr ($found.checks | where state != ok | each {|check| $"($check.check): ($check.found); ($check.advice)" } | str join "\n")
        exit 1
    }
    $found
}

# Asks for what was not said, shows what a check finds, and moves the records when that is wanted.
def wizard [given: record]: nothing -> any {
    let to = $given.to? | default { choose "Where do the records go to?" }
    let questions = if $to == surrealdb-server {
        [
            [option question];
            [target-url "Its address, such as ws://127.0.0.1:8000 (empty for the configured one):"]
            [target-namespace "The namespace (empty for the configured one, else orchestrator):"]
            [target-database "The database (empty for the configured one, else tasks):"]
            [target-username "The user (empty for the configured one, or where everybody is let in):"]
        ]
    } else {
        [[option question]; [target-dir "Its directory (empty for the data directory):"]]
    }
    let answers = $questions | where {|row| $row.option not-in $given } | reduce --fold {} {|row, answers|
        $answers | insert $row.option (ask $row.question)
    }
    let known = $answers | transpose option value | where value != "" | reduce --fold $given {|row, all|
        $all | insert $row.option (if $row.option == target-dir { $row.value | path expand } else { $row.value })
    }
    let secret = if ($known.target-username? == null) or ($known.target-password-file? != null) { {} } else {
        {target-password-file: (ask "The file with the user's password:" | path expand)}
    }
    let all = $known | merge {to: $to} | merge $secret
    let found = storage validate $all
    print $"from  ($found.from.type) in ($found.from.location)"
    print $"to    ($found.to.type) in ($found.to.location)"
    print ($found.checks | select check state found advice)
    if not $found.possible { exit 1 }
    if (ask "Move the records now? (yes/no)") != "yes" {
        print "Nothing was changed."
        return
    }
    storage migrate $all
}

# A line that somebody types, or that a program has written for us: `input` knows terminals only.
def ask [question: string]: nothing -> string {
    print --no-newline $"($question) "
    let line = if (is-terminal --stdin) { input } else { ^sh -c 'IFS= read -r line || exit 1; printf %s "$line"' }
    $line | str trim
}

# One of the kinds of storage.
def choose [question: string]: nothing -> string {
    for row in ($TYPES | enumerate) { print $"  ($row.index + 1)  ($row.item)" }
    let answer = ask $"($question) \(1 to ($TYPES | length), default 1\)" | default --empty "1"
    let chosen = if $answer in $TYPES { $answer } else { try { $TYPES | get (($answer | into int) - 1) } }
    if $chosen == null {
        error make --unspanned {msg: $"there is no storage ($answer)", help: $"use ($TYPES | str join ', ')"}
    }
    $chosen
}

# Those options that have a value.
def given []: record -> record {
    items {|option, value| [$option $value] } | where $it.1 != null | into record
}

# Lets the plugin do it, which asks the engine or looks itself; of another source, the engine's program.
def storage [command: string, given: record]: nothing -> record {
    if ($given | columns | where {|option| $option == from or $option starts-with source- } | is-empty) {
        return (by-plugin $command $given)
    }
    let words = $given | items {|option, value| [$"--($option)" $value] } | flatten
    let answer = ^(engine) storage $command --json ...$words | complete
    if ($answer.stdout | is-empty) {
        print --stderr --no-newline $answer.stderr
        exit 1
    }
    let found = $answer.stdout | from json
    let place = {|place| {type: $place.backend, location: $place.location} }
    let same = $found | update from { do $place $found.from } | update to { do $place $found.to }
    if $command == "validate" { $same | rename --column {is_possible: possible} | update checks { rename --column {name: check} } } else { $same }
}

def plugin []: nothing -> string {
    programs find nu_plugin_orchestrator ORCHESTRATOR_PLUGIN
}

# The engine's program: the one that the plugin would start.
def engine []: nothing -> string {
    let beside = plugin | path dirname | path join orchestrator
    if ($env.ORCHESTRATOR_ENGINE? | is-empty) and ($beside | path exists) { $beside } else { programs find orchestrator ORCHESTRATOR_ENGINE }
}

# Runs a command of the plugin in a Nushell that has it loaded. The values of the options travel in the
# environment, so that they are never read as source.
def by-plugin [command: string, options: record]: nothing -> record {
    let flags = $options | columns | each {|option| $"--($option) $options.($option)" } | str join " "
    let source = $"let options = $env.ORCHESTRATOR_OPTIONS | from json; orchestrator storage ($command) ($flags) | to nuon"
    let answer = with-env {ORCHESTRATOR_OPTIONS: ($options | to json --raw), ORCHESTRATOR_ENGINE: (engine)} {
        ^$nu.current-exe -n --no-std-lib --plugins (plugin) -c $source | complete
    }
    if $answer.exit_code != 0 {
        print --stderr --no-newline $answer.stderr
        exit 1
    }
    $answer.stdout | from nuon
}

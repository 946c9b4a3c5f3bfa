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
# Without a source the records are those of the engine, which goes on working where it runs. Where it is stopped,
# --config, --storage-… and --surrealdb-… say how it is configured, and so do the variables of the same names. With
# --from or another word about the source they are those of a storage that no engine works on. The plugin need not
# be loaded: it is found beside the engine.

use programs.nu

# The kinds of storage.
const TYPES = [filesystem surrealdb-embedded surrealdb-server]

# How the engine is configured, where it is stopped.
const CONFIGURATION = [config storage-type storage-dir surrealdb-url surrealdb-namespace surrealdb-database surrealdb-username surrealdb-password-file]

# Moves the records.
def main [
    --from (-f): string         # The storage that the records are in (default: that of the engine)
    --to (-t): string           # The storage that they go to (default: filesystem)
    --source-dir (-s): path     # The directory of the first (default: as configured)
    --source-url: string        # Its server (default: as configured)
    --source-namespace: string  # The namespace there (default: as configured)
    --source-database: string   # The database in it (default: as configured)
    --source-username: string   # The user there (default: as configured)
    --source-password-file: path # The file with the user's password
    --target-dir (-d): path     # The directory of the second (default: the data directory)
    --target-url: string        # Its server (default: as configured)
    --target-namespace: string  # The namespace there (default: as configured)
    --target-database: string   # The database in it (default: as configured)
    --target-username: string   # The user there (default: as configured)
    --target-password-file: path # The file with the user's password
    --data-dir (-D): path       # The engine's data directory (default: the user's state directory)
    --config (-c): path         # A TOML file with settings of the engine, where it is stopped
    --storage-type: string      # Where its records live (default: filesystem)
    --storage-dir: path         # The directory of its storage on disk (default: the data directory)
    --surrealdb-url: string     # Its SurrealDB server
    --surrealdb-namespace: string # The namespace there (default: orchestrator)
    --surrealdb-database: string # The database in it (default: tasks)
    --surrealdb-username: string # The user there (default: none)
    --surrealdb-password-file: path # The file with the user's password
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
        source-username: $source_username
        source-password-file: $source_password_file
        target-dir: $target_dir
        target-url: $target_url
        target-namespace: $target_namespace
        target-database: $target_database
        target-username: $target_username
        target-password-file: $target_password_file
        data-dir: $data_dir
        config: $config
        storage-type: $storage_type
        storage-dir: $storage_dir
        surrealdb-url: $surrealdb_url
        surrealdb-namespace: $surrealdb_namespace
        surrealdb-database: $surrealdb_database
        surrealdb-username: $surrealdb_username
        surrealdb-password-file: $surrealdb_password_file
    } | given
    if $interactive { return (wizard $given) }
    if $dry_run { return (checked $given) }
    storage migrate $given
}

# Checks whether the records could be moved; none is changed.
def "main validate" [
    --from (-f): string         # The storage that the records are in (default: that of the engine)
    --to (-t): string           # The storage that they go to (default: filesystem)
    --source-dir (-s): path     # The directory of the first (default: as configured)
    --source-url: string        # Its server (default: as configured)
    --source-namespace: string  # The namespace there (default: as configured)
    --source-database: string   # The database in it (default: as configured)
    --source-username: string   # The user there (default: as configured)
    --source-password-file: path # The file with the user's password
    --target-dir (-d): path     # The directory of the second (default: the data directory)
    --target-url: string        # Its server (default: as configured)
    --target-namespace: string  # The namespace there (default: as configured)
    --target-database: string   # The database in it (default: as configured)
    --target-username: string   # The user there (default: as configured)
    --target-password-file: path # The file with the user's password
    --data-dir (-D): path       # The engine's data directory (default: the user's state directory)
    --config (-c): path         # A TOML file with settings of the engine, where it is stopped
    --storage-type: string      # Where its records live (default: filesystem)
    --storage-dir: path         # The directory of its storage on disk (default: the data directory)
    --surrealdb-url: string     # Its SurrealDB server
    --surrealdb-namespace: string # The namespace there (default: orchestrator)
    --surrealdb-database: string # The database in it (default: tasks)
    --surrealdb-username: string # The user there (default: none)
    --surrealdb-password-file: path # The file with the user's password
]: nothing -> any {
    checked ({
        from: $from
        to: $to
        source-dir: $source_dir
        source-url: $source_url
        source-namespace: $source_namespace
        source-database: $source_database
        source-username: $source_username
        source-password-file: $source_password_file
        target-dir: $target_dir
        target-url: $target_url
        target-namespace: $target_namespace
        target-database: $target_database
        target-username: $target_username
        target-password-file: $target_password_file
        data-dir: $data_dir
        config: $config
        storage-type: $storage_type
        storage-dir: $storage_dir
        surrealdb-url: $surrealdb_url
        surrealdb-namespace: $surrealdb_namespace
        surrealdb-database: $surrealdb_database
        surrealdb-username: $surrealdb_username
        surrealdb-password-file: $surrealdb_password_file
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
    let from = if ($given | names-source) { $given } else { ask-source $given }
    let to = $from.to? | default { choose "Where do the records go to?" }
    let all = $from | merge {to: $to} | ask-end target $to
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

# Asks whether the records are to be taken from where they are now, and if not, from where.
def ask-source [given: record]: nothing -> record {
    let now = answer status ($given | select --optional data-dir ...$CONFIGURATION | given)
    if $now != null {
        let here = $"($now.type) in ($now.location)"
        match $now.state {
            "active" => {
                print $"The records are now in ($here)."
                if (ask "Move these? (yes/no, default yes)") in ["" yes] { return $given }
            }
            "sealed" => { print $"The records have moved from ($here) to ($now.other.type) in ($now.other.location)." }
            _ => { print $"Not all records are in ($here): they were to move there from ($now.other.type) in ($now.other.location)." }
        }
    }
    let from = choose "Where are the records that are to move?"
    $given | merge {from: $from} | ask-end source $from
}

# Asks for the rest of an end, `source` or `target`, which is a storage of this kind.
def ask-end [name: string, kind: string]: record -> record {
    let given = $in
    let questions = if $kind == surrealdb-server {
        [
            [option question];
            [url "Its address, such as ws://127.0.0.1:8000 (empty for the configured one):"]
            [namespace "The namespace (empty for the configured one, else orchestrator):"]
            [database "The database (empty for the configured one, else tasks):"]
            [username "The user (empty for the configured one, or where everybody is let in):"]
        ]
    } else {
        let otherwise = if $name == target { "the data directory" } else { "the configured one" }
        [[option question]; [dir $"Its directory \(empty for ($otherwise)):"]]
    }
    let known = $questions | reduce --fold $given {|row, all|
        let option = $"($name)-($row.option)"
        let answer = if $option in $all { "" } else { ask $row.question }
        if $row.option == dir and $answer =~ '^\w+://' {
            error make --unspanned {msg: $"($answer) is the address of a server and no directory", help: "choose surrealdb-server"}
        }
        if $answer == "" { $all } else { $all | insert $option (if $row.option == dir { $answer | path expand } else { $answer }) }
    }
    let file = $"($name)-password-file"
    if $"($name)-username" not-in $known or $file in $known { return $known }
    $known | insert $file (ask "The file with the user's password:" | path expand)
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

# Whether another source is named than the engine.
def names-source []: record -> bool {
    columns | any {|option| $option == from or $option starts-with source- }
}

# What `orchestrator storage` answers. Where it fails it has said why, and the script ends.
def storage [command: string, given: record]: nothing -> record {
    let answer = answer $command $given
    if $answer == null { exit 1 }
    $answer
}

# The same; nothing where it fails. The plugin asks an engine that runs. With one that is stopped, and with any other
# source, the engine's program does it, before the user's eyes.
def answer [command: string, given: record]: nothing -> any {
    let engine = by-plugin status ($given | select --optional data-dir | given)
    if $engine == null { return }
    if $engine.running and not ($given | names-source) {
        let vain = $given | columns | where $it in $CONFIGURATION
        if ($vain | is-not-empty) {
            error make --unspanned {
                msg: "the engine runs already, and has its configuration"
                help: $"leave out --($vain | str join ', --'), or stop it with `orchestrator stop`"
            }
        }
        return (by-plugin $"storage ($command)" $given)
    }
    # Where only a socket is known, it is the directory in which the plugin would start an engine.
    let data_dir = $engine.data_dir | default { with-env {ORCHESTRATOR_SOCKET: ""} { by-plugin status {} } | get data_dir }
    let said = by-program $command ({data-dir: $data_dir} | merge $given)
    if $said == null { return }
    $said | in-words-of-plugin $command
}

# What the engine's program answers, as the plugin does.
def in-words-of-plugin [command: string]: record -> record {
    let said = $in
    let place = {|place| if $place != null { {type: $place.backend, location: $place.location} } }
    match $command {
        "status" => ($said.place | do $place $in | merge {state: $said.state, other: (do $place $said.other)})
        "validate" => {
            possible: $said.is_possible
            from: (do $place $said.from)
            to: (do $place $said.to)
            checks: ($said.checks | rename --column {name: check})
        }
        "migrate" => {
            id: $said.id
            status: $said.status
            phase: $said.phase
            done: $said.records_done
            total: $said.records_total
            from: (do $place $said.from)
            to: (do $place $said.to)
            started: ($said.started_at | into datetime)
            ended: ($said.ended_at | into datetime)
            checksum: $said.checksum
            advice: $said.advice
        }
    }
}

def plugin []: nothing -> string {
    programs find nu_plugin_orchestrator ORCHESTRATOR_PLUGIN
}

# The engine's program: the one that the plugin would start.
def engine []: nothing -> string {
    let beside = plugin | path dirname | path join orchestrator
    if ($env.ORCHESTRATOR_ENGINE? | is-empty) and ($beside | path exists) { $beside } else { programs find orchestrator ORCHESTRATOR_ENGINE }
}

# What a command of the engine's program answers. Its words and its progress go to where this script's go.
def by-program [command: string, options: record]: nothing -> any {
    let words = $options | items {|option, value| $"--($option)=($value)" }
    ^sh -c '"$@" </dev/null || true' sh (engine) storage $command --json ...$words | from json
}

# What a command of the plugin answers, in a Nushell that has it loaded. The values of the options travel in the
# environment, so that they are never read as source, and the answer in a file, because progress is shown only where
# standard output is a terminal.
def by-plugin [command: string, options: record]: nothing -> any {
    let flags = $options | columns | each {|option| $"--($option) $options.($option)" } | str join " "
    let source = $"let options = $env.ORCHESTRATOR_OPTIONS | from json; orchestrator ($command) ($flags) | to nuon | save --force $env.ORCHESTRATOR_ANSWER"
    let words = [-n --no-std-lib --plugins (plugin) -c $source]
    let variables = {ORCHESTRATOR_OPTIONS: ($options | to json --raw), ORCHESTRATOR_ENGINE: (engine)}
    let file = mktemp --tmpdir orchestrator-XXXXXX
    try { with-env ($variables | insert ORCHESTRATOR_ANSWER $file) { ^$nu.current-exe ...$words } }
    let said = open --raw $file
    rm $file
    $said | from nuon
}

#!/usr/bin/env nu
# Starts the engine: in this terminal, where Ctrl-C ends it, or with --background as a process of its own.
#
#     nu nulib/scripts/start-orchestrator.nu --background
#     nu nulib/scripts/start-orchestrator.nu --storage-type surrealdb-server --surrealdb-url ws://127.0.0.1:8000
#
# An engine that runs already is left as it is, and its status is the answer. The plugin need not be
# loaded: it is found beside the engine.

use programs.nu

# Where HTTP is served unless --port says otherwise.
const PORT = 8080

# Starts the engine, unless it runs already.
def main [
    --background (-b)           # Return when it is ready, and leave it running
    --port (-p): int            # Serve HTTP on this port, for this machine only (default: 8080)
    --data-dir (-D): path       # Its data directory (default: the user's state directory)
    --storage-type (-s): string # Where records live (default: filesystem)
    --storage-dir: path         # The directory of a storage on disk (default: the data directory)
    --surrealdb-url: string     # The SurrealDB server, such as ws://127.0.0.1:8000
    --surrealdb-namespace: string   # The namespace there (default: orchestrator)
    --surrealdb-database: string    # The database in it (default: tasks)
    --surrealdb-username: string    # The user there (default: none)
    --surrealdb-password-file: path # The file with the user's password
    --nu-path (-n): path        # The Nushell that runs scripts (default: this one)
    --provisioning-path (-P): path  # The provisioning program (default: the engine's own)
    --config (-c): path         # A TOML file with settings of the engine
]: nothing -> any {
    let place = {data-dir: $data_dir} | given
    let options = {
        port: $port
        storage-type: $storage_type
        storage-dir: $storage_dir
        surrealdb-url: $surrealdb_url
        surrealdb-namespace: $surrealdb_namespace
        surrealdb-database: $surrealdb_database
        surrealdb-username: $surrealdb_username
        surrealdb-password-file: $surrealdb_password_file
        nu-path: $nu_path
        provisioning-path: $provisioning_path
        config: $config
    } | given
    let status = ask "orchestrator status" $place
    if $status.running {
        # With options that it does not have, this says so.
        ask "orchestrator start" ($place | merge $options)
    } else if $background {
        ask "orchestrator start" ({port: $PORT} | merge $place | merge $options)
    } else {
        let words = {data-dir: $status.data_dir, port: $PORT, nu-path: $nu.current-exe} | merge $options | items {|option, value| [$"--($option)" $"($value)"] } | flatten
        exec (engine) ...$words
    }
}

# Those options that have a value.
def given []: record -> record {
    items {|option, value| [$option $value] } | where $it.1 != null | into record
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
def ask [command: string, options: record]: nothing -> record {
    let flags = $options | columns | each {|option| $"--($option) $options.($option)" } | str join " "
    let source = $"let options = $env.ORCHESTRATOR_OPTIONS | from json; ($command) ($flags) | to nuon"
    let answer = with-env {ORCHESTRATOR_OPTIONS: ($options | to json --raw)} {
        ^$nu.current-exe -n --no-std-lib --plugins (plugin) -c $source | complete
    }
    if $answer.exit_code != 0 {
        print --stderr --no-newline $answer.stderr
        exit 1
    }
    $answer.stdout | from nuon
}

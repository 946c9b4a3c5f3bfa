# The main job, from beginning to end: two servers from a settings file, created in parallel by two tasks
# of one workflow, on an engine with a data directory of its own. `./setup demo` runs it with the plugin
# loaded:
#
#     nu -n --plugins PATH/nu_plugin_orchestrator nulib/scripts/demo.nu --data-dir .demo
#
# The servers stay. Run again, it changes nothing and says so.

const SETTINGS = path self ../examples/settings.yaml
const WORKER = path self ../worker/worker.nu
const INFRA = "demo"

def main [
    --data-dir: path        # The engine's data directory
    --nu-path: path         # The Nushell that runs scripts (default: this one)
]: nothing -> nothing {
    let data_dir = $data_dir | default ".demo" | path expand
    let nu_path = $nu_path | default $nu.current-exe
    # Every command below talks to this engine.
    $env.config.plugins.orchestrator = {data_dir: $data_dir, auto_start: false}
    $env.config.table.mode = "rounded"

    # One that an interrupted run has left may have other options.
    orchestrator stop | ignore
    headline "An engine"
    orchestrator start --nu-path $nu_path | select pid data_dir socket | print

    let failed = try {
        bring-up
        null
    } catch {|error| $error }
    orchestrator stop | ignore
    if $failed != null {
        print --stderr $failed.rendered
        exit 1
    }
}

def bring-up []: nothing -> nothing {
    headline "What would be done"
    let plan = orchestrator workflow server create --infra $INFRA --settings $SETTINGS --check --wait
    expect-completed $plan
    $plan | server-tasks | get result.servers | flatten | select name action container image | print

    headline "Two tasks of one workflow, in parallel"
    let first = orchestrator workflow server create --infra $INFRA --settings $SETTINGS --wait
    expect-completed $first
    let tasks = $first | server-tasks
    $tasks | select name status started completed duration | for-eyes | print
    let together = ($tasks.completed | math min) - ($tasks.started | math max)
    if $together > 0sec { print $"Both ran at once for ($together | whole-milliseconds)." }
    $first | outcome | print

    headline "The containers"
    containers | reject id | for-eyes | print

    headline "The same again"
    let before = containers
    let second = orchestrator workflow server create --infra $INFRA --settings $SETTINGS --wait
    expect-completed $second
    $second | outcome | print
    let changed = $second | outcome | where action != "unchanged"
    if ($changed | is-not-empty) or (containers) != $before {
        error make --unspanned {msg: "the second run should have changed nothing"}
    }
    print "Nothing changes."

    headline "What the engine remembers"
    orchestrator task list --limit 9 | select name status attempt created duration | for-eyes | print
    let words = [$nu.current-exe -n --no-std-lib $WORKER server delete web-01 web-02 --infra $INFRA --settings $SETTINGS]
    print $"\nThe servers stay. To remove them:\n  ($words | str join ' ')"
}

# The tasks that create one server each. The others ask the settings file for the names.
def server-tasks []: record -> table {
    get tasks | where command == "server create"
}

# What they say of their servers.
def outcome []: record -> table {
    server-tasks | get result.servers | flatten | select name action status container address
}

# The servers as Docker has them.
def containers []: nothing -> table {
    let ids = ^docker ps --all --quiet --filter $"label=orchestrator.infra=($INFRA)" | lines
    if ($ids | is-empty) { return [] }
    ^docker inspect ...$ids | from json | each {|container|
        {
            container: ($container.Name | str trim --left --char "/")
            image: $container.Config.Image
            state: $container.State.Status
            started: ($container.State.StartedAt | into datetime)
            id: ($container.Id | str substring 0..11)
        }
    } | sort-by container
}

def expect-completed [workflow: record]: nothing -> nothing {
    if $workflow.status != "Completed" {
        let reasons = $workflow.tasks | where status != "Completed" | each {|task| $"($task.name): ($task.error)" }
        error make --unspanned {msg: $"the workflow ended as ($workflow.status)\n($reasons | str join "\n")"}
    }
}

# A table with times of day and whole milliseconds, which is what one wants to see of a moment ago.
def for-eyes []: table -> table {
    each {|row|
        $row | items {|key, value|
            match ($value | describe) {
                "datetime" => [$key ($value | date to-timezone local | format date "%H:%M:%S%.3f")],
                "duration" => [$key ($value | whole-milliseconds)],
                _ => [$key $value],
            }
        } | into record
    }
}

def whole-milliseconds []: duration -> duration {
    $in - ($in mod 1ms)
}

def headline [text: string]: nothing -> nothing {
    if (is-terminal --stdout) { print $"\n(ansi green_bold)($text)(ansi reset)" } else { print $"\n($text)" }
}

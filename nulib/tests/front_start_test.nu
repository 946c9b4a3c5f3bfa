# The script that starts the engine.

use check.nu
use user.nu *

const SCRIPT = path self ../scripts/start-orchestrator.nu

def start [words: list<any>, --with: record = {}]: record -> record {
    $in | as-user $nu.current-exe ([-n --no-std-lib $SCRIPT] ++ $words) --with $with
}

# A port that nobody listens on.
def free-port []: nothing -> string {
    port | into string
}

export def "test background starts the engine and an engine that runs is left alone" [] {
    with-user {|user|
        let port = free-port
        let first = $user | start [--background --port $port]
        check succeeded $first
        check holds $first.stdout "started_now" "true" $"127.0.0.1:($port)"
        let pid = $user | value "orchestrator status | get pid"
        let again = $user | start [--background]
        check succeeded $again
        check holds $again.stdout "false" $"127.0.0.1:($port)"
        check succeeded ($user | start [])
        check same ($user | value "orchestrator status | get pid") $pid
        # What the running engine cannot be made to do is said.
        let other = $user | start [--background --port (free-port)]
        check same $other.exit_code 1
        check holds $other.stderr "runs already"
    }
}

export def "test options are passed on as data" [] {
    with-user {|user|
        let folder = $user.home | path join "a;touch mark $(touch mark) 'it'"
        let records = $user.home | path join "--records $(touch mark)"
        let answer = $user | start [--background --port (free-port) --data-dir $folder --storage-type filesystem $"--storage-dir=($records)"]
        check succeeded $answer
        check same ($user | value "orchestrator status --data-dir $env.FOLDER | get running" --with {FOLDER: $folder}) true
        check same ($user | value "orchestrator storage status --data-dir $env.FOLDER | get location" --with {FOLDER: $folder}) $records
        $user | value "orchestrator stop --data-dir $env.FOLDER | ignore" --with {FOLDER: $folder}
        check so (not ($user.home | path join mark | path exists)) "nothing of the path was run"
    }
}

export def "test in the foreground the engine has the terminal until it ends" [] {
    with-user {|user|
        let port = free-port
        let steps = '"$@" >said 2>&1 & engine=$!
            until grep --quiet " ready " said; do kill -0 $engine || exit 9; sleep 0.05; done
            curl --silent --fail "http://127.0.0.1:$PORT/health" >health || exit 8
            kill -TERM $engine; wait $engine'
        let answer = $user | as-user sh [-c $steps sh $nu.current-exe -n --no-std-lib $SCRIPT --port $port --data-dir data] --with {PORT: $port}
        check succeeded $answer
        check same (open --raw ($user.home | path join health) | from json | get success) true
        check holds (open --raw ($user.home | path join said)) ($user.home | path join data)
    }
}

export def "test a missing program is named" [] {
    with-user {|user|
        let answer = $user | start [--background] --with {ORCHESTRATOR_PLUGIN: /nowhere/plugin}
        check same $answer.exit_code 1
        check holds $answer.stderr "/nowhere/plugin" "ORCHESTRATOR_PLUGIN"
    }
}

# The front program, as CI and people in other shells use it.

use check.nu
use user.nu *

const CREATE = [server create --infra production --settings ./settings.yaml]

export def "test the program ends with 0 only when all passed" [] {
    with-user {|user|
        let passed = $user | front ($CREATE ++ [--wait])
        check same [$passed.exit_code ($user | servers)] [0 [web-01 web-02]]
        check holds $passed.stdout "create web-01" "Completed"

        rm ($user.made | path join web-01) ($user.made | path join web-02)
        touch ($user.made | path join fail-web-02)
        let failed = $user | front ($CREATE ++ [--wait])
        check same [$failed.exit_code ($user | servers)] [1 [web-01]]
        check holds $failed.stderr "create web-02: Failed: no room for web-02"
        check same ($user | front ($CREATE ++ [--wait --json])).exit_code 1
        check succeeded ($user | front (["server" "create" "web-01"] ++ ($CREATE | skip 2) ++ [--wait]))
    }
}

export def "test without wait the id comes back and can be waited for" [] {
    with-user {|user|
        let id = $user | front $CREATE | get stdout | str trim
        let ended = $user | front-value [workflow wait $id]
        check same [$ended.id $ended.status] [$id Completed]
        check same ($user | front-value [workflow status $id] | get status) Completed
        check same ($user | front-value [workflow list --infra production] | get id) [$id]

        # What a person sees has the id that `workflow status` wants.
        check holds ($user | front [workflow list]).stdout $id

        touch ($user.made | path join fail-web-01)
        rm ($user.made | path join web-01)
        let failing = $user | front-value $CREATE | get id
        check same ($user | front [workflow wait $failing]).exit_code 1
    }
}

export def "test the program answers with json" [] {
    with-user {|user|
        let workflow = $user | front-value ($CREATE ++ [--wait])
        check same ($workflow.tasks | where command == "server create" | get result.servers | flatten | get action) [created created]
        check same ($user | front-value [server names --settings ./settings.yaml]) [web-01 web-02]
        check same ($user | front-value [server list -f ./settings.yaml] | get status) [running running]
    }
}

export def "test every way to write an option" [] {
    with-user {|user|
        for words in [
            [--infra production --settings ./settings.yaml]
            ["--infra=production" "--settings=./settings.yaml"]
            [-I production -f ./settings.yaml]
            [-I production -f ./settings.yaml -p "7" --environment "A=1" -e "B=x=y" -s "token=env:HOME"]
            [-I production -f ./settings.yaml --]
        ] {
            let answer = $user | front ([server create web-01 --check --wait] ++ $words)
            check same [$words $answer.exit_code] [$words 0]
        }
        let task = $user | value "orchestrator task list --kind workflow | where priority == 7"
        check same ($task | length) 1
    }
}

export def "test an order is bounded and repeatable" [] {
    with-user {|user|
        touch ($user.made | path join fail-web-01)
        let limited = [server create web-01 --infra production --settings ./settings.yaml --retries "1" --timeout "90sec" --idempotency-key nightly --json]
        let first = $user | front $limited
        let again = $user | front $limited
        check same [$first.exit_code $again.exit_code] [0 0]
        check same ($first.stdout | from json | get id) ($again.stdout | from json | get id)
        let task = $user | value "orchestrator task list --kind command | get id.0 | orchestrator task get $in | select retries timeout"
        check same $task {retries: 1, timeout: 90sec}
        # The key stands for this order only.
        check same ($user | front ($limited ++ [--priority "1"])).exit_code 1
    }
}

export def "test wrong usage ends with 2 and queues nothing" [] {
    with-user {|user|
        for case in [
            [[] "usage"]
            [[frobnicate] "no command 'frobnicate'"]
            [[server] "no command 'server'"]
            [[server frobnicate] "no command 'server frobnicate'"]
            [[server create --frobnicate] "no option --frobnicate"]
            [[server create -x] "no option -x"]
            [[server create --infra] "--infra needs a value"]
            [[server create "--wait=yes"] "--wait takes no value"]
            [[server create --priority much] "--priority needs a whole number"]
            [[server create --timeout soon] "--timeout needs a time"]
            [[server create --timeout "5"] "--timeout needs a time with its unit"]
            [[server create --environment A] "--environment needs KEY=VALUE"]
            [[server create --settings ./settings.yaml] "--infra is missing"]
            [[server create --infra production] "--settings is missing"]
            [[server create --infra production --settings none.yaml] "does not exist"]
            [[server create Web_01 --infra production --settings ./settings.yaml] "Web_01"]
            [[server delete --infra production --settings ./settings.yaml] "SERVER is missing"]
            [[taskserv create --infra production --settings ./settings.yaml] "TASKSERV is missing"]
            [[cluster create a b --infra production --settings ./settings.yaml] "'b' is one argument too many"]
            [[workflow wait] "WORKFLOW is missing"]
            [[workflow status web-01] "web-01"]
            [[workflow wait web-01] "provisioning: Not a task's id: 'web-01'"]
        ] {
            let answer = $user | front $case.0
            check same [$case.0 $answer.exit_code] [$case.0 2]
            check holds $"($answer.stdout)($answer.stderr)" $case.1
        }
        check same ($user | value "orchestrator task list | length") 0
    }
}

export def "test what cannot be read or waited for is said once" [] {
    with-user {|user|
        let read = $user | front [server list --settings nowhere.yaml]
        check same $read.exit_code 1
        check same ($read.stderr | lines | where $it =~ "there is no settings file" | length) 1
        let waited = $user | front [workflow wait 01890a5d-ac96-774b-bcce-b302099a8057]
        check same $waited.exit_code 1
        check so ($waited.stderr starts-with "provisioning: There is no task") $waited.stderr
    }
}

export def "test help is there for all commands and for each" [] {
    with-user {|user|
        let all = $user | front [--help]
        check succeeded $all
        check holds $all.stdout "server create" "taskserv verify" "cluster delete" "workflow wait"
        check so (not ($all.stdout | str contains "workflow status\n")) "every command says what it does"
        for command in [[server create] [server delete] [server list] [server names] [taskserv create] [taskserv verify] [taskserv list] [cluster create] [cluster verify] [cluster delete] [workflow status] [workflow list] [workflow wait]] {
            let help = $user | front ($command ++ [--help])
            check succeeded $help
            check holds $help.stdout $"usage: provisioning ($command | str join ' ')" "--json"
        }
        check same ($user | value "orchestrator status | get running") false
    }
}

export def "test arguments are data whatever they look like" [] {
    with-user {|user|
        let mark = $user.home | path join mark
        for word in ["--x;^touch mark" "$(touch mark)" "(^touch mark)" "a;touch mark" "`touch mark`" "$env" "{}" "a\nb" "'" '"' ""] {
            for words in [[server create $word --infra production --settings ./settings.yaml --wait] [server names $word --settings ./settings.yaml] [server create --infra $word --settings ./settings.yaml --wait] [server list --infra $word --settings ./settings.yaml]] {
                check so (($user | front $words).exit_code != 0) $"($words) is refused"
            }
            check same ($user | front [server create --infra production --settings $word --wait]).exit_code 2
        }
        check so (not ($mark | path exists)) "nothing of the words was run"
        check same ($user | value "orchestrator task list | length") 0

        let folder = $user.home | path join "--x;^touch mark $(touch mark) 'it' \"is\" `one`"
        mkdir $folder
        cp $user.settings ($folder | path join settings.yaml)
        check same ($user | front-value [server names --settings ($folder | path join settings.yaml)]) [web-01 web-02]
        check succeeded ($user | front [server create --infra production --settings ($folder | path join settings.yaml) --wait])
        check so (not ($mark | path exists)) "nothing of the path was run"
    }
}

export def "test what is not text is refused" [] {
    with-user {|user|
        let program = $user.home | path join nulib bin provisioning
        let answer = $user | as-user sh [-c "exec \"$0\" server names \"$(printf 'a\\377')\" --settings ./settings.yaml" $program]
        check same $answer.exit_code 2
        check holds $answer.stderr "an argument is not UTF-8"
        let separator = $user | front [server names (char --integer 30) --settings ./settings.yaml]
        check same $separator.exit_code 2
        check holds $separator.stderr "control character"
    }
}

export def "test nothing of the command line stays in the engine" [] {
    with-user {|user|
        check succeeded ($user | front ($CREATE ++ [--environment "TOKEN=p4ssword"]))
        let pid = $user | value "orchestrator status | get pid"
        check so (not (open --raw $"/proc/($pid)/environ" | decode utf-8 | str contains "p4ssword")) "the engine's environment has no words"
    }
}

export def "test the programs that it needs are found or named" [] {
    with-user {|user|
        for case in [
            [{PROVISIONING_NU: /nowhere/nu} ["there is no Nushell" "/nowhere/nu" "PROVISIONING_NU"]]
            [{ORCHESTRATOR_PLUGIN: /nowhere/plugin} ["there is no plugin" "/nowhere/plugin" "ORCHESTRATOR_PLUGIN"]]
            [{PROVISIONING_NU: "", PATH: [/usr/bin /bin]} ["there is no Nushell" "nu on the PATH" ".local/share/provisioning-orchestrator/bin/nu"]]
            [{ORCHESTRATOR_PLUGIN: "", CARGO_TARGET_DIR: /nowhere, PATH: [/usr/bin /bin]} ["there is no plugin" "/nowhere/release/nu_plugin_orchestrator" "/nowhere/debug/nu_plugin_orchestrator" "on the PATH"]]
        ] {
            let answer = $user | front [--help] --with $case.0
            check same [$case.0 $answer.exit_code] [$case.0 1]
            check holds $answer.stderr ...$case.1
        }
        let old = $user.home | path join nu
        "#!/bin/sh\necho 0.99.0\n" | save $old
        chmod +x $old
        let answer = $user | front [--help] --with {PROVISIONING_NU: $old}
        check same $answer.exit_code 1
        check holds $answer.stderr "is Nushell 0.99.0" "made for 0.115"
    }
}

export def "test the program is found through a link" [] {
    with-user {|user|
        ^ln --symbolic ($user.home | path join nulib bin provisioning) ($user.home | path join run-it)
        check succeeded ($user | as-user ($user.home | path join run-it) [server names --settings settings.yaml])
    }
}

export def "test another engine is named by its data directory" [] {
    with-user {|user|
        let workflow = $user | front-value ($CREATE ++ [--wait --data-dir ./other])
        check same $workflow.status Completed
        check same ($user | value "orchestrator status | get running") false
        check same ($user | value "orchestrator task list --kind workflow --data-dir other | get id") [$workflow.id]
        $user | value "orchestrator stop --cancel --data-dir other | ignore"
    }
}

export def "test inside a task the program does the work itself" [] {
    with-user {|user|
        let program = $user.home | path join nulib bin provisioning
        let plugin = program nu_plugin_orchestrator ORCHESTRATOR_PLUGIN
        $"#!/bin/sh\nPROVISIONING_NU='($nu.current-exe)' ORCHESTRATOR_PLUGIN='($plugin)' exec '($program)' server create --infra production --settings ./settings.yaml --wait\n" | save ($user.home | path join inside.sh)
        chmod +x ($user.home | path join inside.sh)
        let seen = $user | value "let task = orchestrator task submit inside.sh --retries 0 --wait
            [$task.status $task.result.servers.action (orchestrator task list | length)]"
        check same $seen [Completed [created created] 1]
    }
}

export def "test ctrl-c stops waiting and the work goes on" [] {
    with-user {|user|
        $user | settings [web-01]
        touch ($user.made | path join hold)
        # A shell starts the program, and interrupts it once the server is being made.
        let steps = '"$0" server create --infra production --settings ./settings.yaml --wait 2>said & program=$!
            while ! [ -e made/held ]; do sleep 0.05; done
            kill -INT $program; wait $program; echo $?'
        let answer = $user | as-user sh [-c $steps ($user.home | path join nulib bin provisioning)]
        check same ($answer.stdout | str trim) "1"
        let said = open --raw ($user.home | path join said)
        check holds $said "Stopped waiting"
        let id = $said | parse --regex 'workflow (?<id>[0-9a-f-]{36})' | get 0.id
        check same ($user | front-value [workflow status $id] | get status) Running

        touch ($user.made | path join go)
        check succeeded ($user | front [workflow wait $id])
        check same ($user | servers) [web-01]
    }
}

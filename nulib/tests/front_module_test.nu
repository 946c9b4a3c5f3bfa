# The module `provisioning` and the workflows, with the real plugin and a real engine.

use check.nu
use user.nu *

export def "test the module creates servers and says so when nothing changes" [] {
    with-user {|user|
        let create = "use nulib/provisioning; provisioning server create --infra production --settings settings.yaml --wait"
        let first = $user | value $create
        check same [$first.status ($user | servers)] [Completed [web-01 web-02]]
        check same ($first.tasks | where command == "server create" | get result.servers | flatten | get action | uniq) [created]
        let again = $user | value $create
        check same ($again.tasks | where command == "server create" | get result.servers | flatten | get action | uniq) [unchanged]
    }
}

export def "test the star leaves out the first word" [] {
    with-user {|user|
        let workflow = $user | value "use nulib/provisioning *; server create web-02 --infra production --settings settings.yaml --wait"
        check same [$workflow.status ($user | servers)] [Completed [web-02]]
    }
}

export def "test what only reads needs no engine" [] {
    with-user {|user|
        touch ($user.made | path join web-02)
        let read = $user | value "use nulib/provisioning
            {
                names: (provisioning server names --settings settings.yaml)
                list: (provisioning server list --settings settings.yaml | select name status)
                some: (provisioning server list web-02 --settings settings.yaml | get name)
                running: (orchestrator status | get running)
            }"
        check same $read {names: [web-01 web-02], list: [[name status]; [web-01 absent] [web-02 running]], some: [web-02], running: false}
        let missing = $user | shell "use nulib/provisioning; provisioning server list"
        check same $missing.exit_code 1
        check holds $missing.stderr "--settings"
    }
}

export def "test check mode changes nothing and returns the plan" [] {
    with-user {|user|
        let workflow = $user | value "use nulib/provisioning; provisioning server create --infra production --settings settings.yaml --check --wait"
        check same [$workflow.status ($user | servers)] [Completed []]
        check same ($workflow.tasks.result | compact | get --optional plan | compact | flatten | get step) [touch touch]
    }
}

export def "test servers are deleted" [] {
    with-user {|user|
        touch ($user.made | path join web-01)
        let workflow = $user | value "use nulib/provisioning; provisioning server delete web-01 --infra production --settings settings.yaml --wait"
        check same [$workflow.status ($user | servers)] [Completed []]
    }
}

export def "test a workflow is looked at and waited for by id and by record" [] {
    with-user {|user|
        let seen = $user | value 'use nulib/provisioning *
            let workflow = server create --infra production --settings settings.yaml
            let ended = workflow wait $workflow
            let by_id = workflow status $workflow.id
            let listed = workflow list --infra production
            [$ended.status $by_id.status ($listed | get id | first | $in == $workflow.id) (workflow list --infra other | length) (workflow list | length)]'
        check same $seen [Completed Completed true 0 1]
    }
}

export def "test inside a task the work is done and never submitted" [] {
    with-user {|user|
        "use nulib/provisioning
        def main [] {
            let done = provisioning server create --infra production --settings settings.yaml
            let plan = provisioning server delete web-01 --infra production --settings settings.yaml --check
            print $'::result ({done: $done.servers.action, plan: $plan.servers.name} | to json --raw)'
        }" | save ($user.home | path join inside.nu)
        let seen = $user | value "let task = orchestrator task submit inside.nu --retries 0 --wait
            [$task.status $task.result (orchestrator task list | length) (orchestrator task logs $task.id | get line | where $it =~ '^making' | sort)]"
        check same $seen [Completed {done: [created created], plan: [web-01]} 1 ["making web-01" "making web-02"]]
        check same ($user | servers) [web-01 web-02]
    }
}

export def "test a failure inside a task is the reason of the task" [] {
    with-user {|user|
        touch ($user.made | path join fail-web-02)
        "use nulib/provisioning *\ndef main [] { server create web-02 --infra production --settings settings.yaml }" | save ($user.home | path join inside.nu)
        let task = $user | value "orchestrator task submit inside.nu --wait"
        # It was permanent, so it was not tried again.
        check same [$task.status $task.attempt $task.error] [Failed 1 "no room for web-02"]
    }
}

export def "test an order that means nothing is refused before anything is queued" [] {
    with-user {|user|
        for case in [
            ["server create --settings settings.yaml" "--infra is missing"]
            ["server create --infra production" "--settings is missing"]
            ["server create Web_01 --infra production --settings settings.yaml" "Web_01"]
            ["server create --infra production --settings none.yaml" "does not exist"]
        ] {
            let answer = $user | shell $"use nulib/provisioning *; ($case.0)"
            check same $answer.exit_code 1
            check holds $answer.stderr $case.1
        }
        check same ($user | value "orchestrator task list | length") 0
    }
}

export def "test hostile words reach nothing" [] {
    with-user {|user|
        let mark = $user.home | path join mark
        for name in ["--x;^touch mark" "$(touch mark)" "a;touch mark" "-x" "(^touch mark)"] {
            for place in ["names --settings settings.yaml ...[$env.HOSTILE]" "names --settings settings.yaml --infra $env.HOSTILE"] {
                let answer = $user | shell $"use nulib/provisioning *; server ($place)" --with {HOSTILE: $name}
                check same [$name $answer.exit_code] [$name 1]
                check holds $answer.stderr "is not a name"
            }
        }
        # A path may hold anything.
        let folder = $user.home | path join "a;touch mark $(touch mark) 'it' \"is\" `one`"
        mkdir $folder
        cp $user.settings ($folder | path join settings.yaml)
        check same ($user | value "use nulib/provisioning *; server names --settings $env.FILE" --with {FILE: ($folder | path join settings.yaml)}) [web-01 web-02]
        check so (not ($mark | path exists)) "nothing of the words was run"
    }
}

export def "test without the plugin the module says what to do" [] {
    with-user {|user|
        let answer = $user | as-user $nu.current-exe [-n --no-std-lib -c "use nulib/provisioning; provisioning server create --infra production --settings settings.yaml"]
        check same $answer.exit_code 1
        check holds $answer.stderr "the plugin is not loaded" "plugin use orchestrator"
    }
}

export def "test the documented workflow lines work" [] {
    with-user {|user|
        let seen = $user | value 'use workflows/server_create.nu *
            let workflow = server_create_workflow "production" --settings "./settings.yaml" --wait
            let id = server_create_workflow "production" web-01 --settings "./settings.yaml" | get id
            [$workflow.status (workflow wait $id | get status) (workflow status $id | get status) (workflow list | length)]'
        check same $seen [Completed Completed Completed 2]
        check same ($user | servers) [web-01 web-02]
    }
}

export def "test the drop in takes a file or what was read from it" [] {
    with-user {|user|
        let workflow = $user | value "use workflows/server_create.nu *; on_create_servers_workflow settings.yaml --select [web-02] --wait"
        check same [$workflow.status ($user | servers)] [Completed [web-02]]
        let workflow = $user | value "use workflows/server_create.nu *; open settings.yaml | on_create_servers_workflow $in --wait"
        check same [$workflow.status ($user | servers)] [Completed [web-01 web-02]]
        # The same record is the same file, which only the user can read.
        $user | value "use workflows/server_create.nu *; open settings.yaml | on_create_servers_workflow $in --check --wait | ignore"
        let kept = glob ($user.home | path join ".local/state/provisioning/settings/*")
        check same ($kept | length) 1
        check same (^stat --format %a $kept.0 | str trim) "600"

        open $user.settings | reject infra | to yaml | save --force $user.settings
        let unnamed = $user | shell "use workflows/server_create.nu *; on_create_servers_workflow settings.yaml"
        check same $unnamed.exit_code 1
        check holds $unnamed.stderr "does not say which infra" "--infra"
    }
}

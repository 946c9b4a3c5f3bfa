# Test environments through the module and the front program, as far as no container is needed.

use check.nu
use user.nu *

const DOCS = path self ../../docs/user
const ID = "01890a5d-ac96-774b-bcce-b302099a805b"

# No engine: what is well typed ends here with 1, and what is not ends with 2 before.
const NOWHERE = {ORCHESTRATOR_SOCKET: /nowhere/socket}

export def "test wrong usage of test commands ends with 2" [] {
    with-user {|user|
        for case in [
            [[test quick] "TASKSERV is missing"]
            [[test quick redis postgres] "'postgres' is one argument too many"]
            [[test quick redis --memory lots] "--memory needs a size"]
            [[test quick redis --memory "1b"] "Too small"]
            [[test quick redis --cpu much] "--cpu needs a whole number"]
            [[test quick redis --option port] "--option needs KEY=VALUE"]
            [[test quick redis --fault explode] "There is no fault 'explode'"]
            [[test quick redis --disk-policy maybe] "There is no disk policy 'maybe'"]
            [[test quick redis --keep --no-keep] "Keep it or not?"]
            [[test env] "there is no command 'test env'"]
            [[test env frobnicate] "there is no command 'test env'"]
            [[test env single redis --junit r.xml] "There is nothing to report yet"]
            [[test env cluster etcd] "Which topology?"]
            [[test env status] "Which environment?"]
            [[test env run web-01] "Not an environment's id"]
            [[test env list --status broken] "There is no state 'broken'"]
            [[test env fault $ID explode node] "explode"]
            [[test topology load] "NAME is missing"]
        ] {
            let answer = $user | front $case.0 --with $NOWHERE
            check same [$case.0 $answer.exit_code] [$case.0 2]
            check holds $answer.stderr $case.1
        }
    }
}

export def "test every way to write what is well typed" [] {
    with-user {|user|
        for words in [
            [test quick redis --option "port=7" -o "postgres.port=8" --script a.sh -s b.sh --fault "kill redis" --fault heal]
            [test quick redis --memory "512MiB" --cpu "500" --expires-after "2hr" --timeout "5min" --environment "A=b"]
            [test env server web-01 "[containerd" kubernetes "cilium]" --auto-start]
            [test env server web-01 "redis,postgres"]
            [test env server web-01]
            [test env cluster etcd --topology etcd_cluster --wait --junit r.xml]
            [test env status $ID $ID]
            [test env fault $ID partition a b]
            [test env logs $ID --node a --tail "5" --follow]
            [test env list --status failed --status error]
        ] {
            let answer = $user | front $words --with $NOWHERE
            check same [$words $answer.exit_code] [$words 1]
            check holds $answer.stderr "No engine is running"
        }
    }
}

export def "test help is there for every test command" [] {
    with-user {|user|
        let commands = $user | value "use nulib/provisioning; provisioning | where name =~ ' test ' | get name"
        check so (($commands | length) > 10) "the commands are found"
        for command in $commands {
            let help = $user | front (($command | split row " " | skip 1) ++ [--help])
            check succeeded $help
            check holds $help.stdout $"usage: ($command)" "--json"
        }
    }
}

export def "test the module passes on what is typed and points at what is wrong" [] {
    with-user {|user|
        for case in [
            ["provisioning test quick redis --memory 1b" "Too small"]
            [$"provisioning test env fault ($ID) explode a" "no fault 'explode'"]
            ["{nodes: [{name: a, rol: b}]} | provisioning test env cluster etcd" "rol"]
            ["provisioning test env cluster etcd" "Which topology?"]
            [$"provisioning test env status ($ID)" "No engine is running"]
            ["provisioning test env server web-01 [containerd kubernetes cilium] --auto-start" "No engine is running"]
            ["provisioning test env single postgres --auto-start --auto-cleanup" "No engine is running"]
        ] {
            let answer = $user | shell $"use nulib/provisioning; ($case.0)" --with $NOWHERE
            check same [$case.0 $answer.exit_code] [$case.0 1]
            check holds $answer.stderr $case.1
        }
        let without = $user | as-user $nu.current-exe [-n --no-std-lib -c "use nulib/provisioning/environment.nu; environment make 'test quick' [redis] {}"]
        check same $without.exit_code 1
    }
}

# The blocks of a page that begin with this mark.
def blocks [page: string, mark: string]: nothing -> list<string> {
    open --raw ($DOCS | path join $page) | decode utf-8 | split row "```" | enumerate | where index mod 2 == 1 | get item | where $it starts-with $"($mark)\n" | each {|block| $block | str substring ($mark | str length).. }
}

export def "test the lines of the page for integration servers are well typed" [] {
    with-user {|user|
        let gitlab = blocks ci.md "yaml gitlab" | get 0 | from yaml
        let github = blocks ci.md "yaml github" | get 0 | from yaml
        check same ($gitlab.taskserv.stage in $gitlab.stages) true
        check same $github.jobs.test.strategy.matrix.taskserv $gitlab.taskserv.parallel.matrix.0.TASKSERV
        let lines = $gitlab.taskserv.script ++ ($github.jobs.test.steps | get --optional run | compact) ++ (blocks ci.md sh) ++ (blocks ci.md "sh by-hand") ++ (blocks test-environment-guide.md "sh by-hand")
        let typed = $lines | each { lines } | flatten | where $it =~ 'provisioning test' | each {
            str trim | str replace --regex '^(nulib/bin/)?provisioning' 'provisioning' | str replace --all --regex '"?\$\{\{ [^}]+ \}\}' 'redis' | str replace --regex ' \|\| .*$' ''
        }
        check so (($typed | length) >= 6) "the lines are found"
        let names = "TASKSERV=redis taskserv=redis CI_JOB_ID=1 DATA_DIR=/nowhere"
        for line in $typed {
            let words = $line | str replace provisioning '"$0"' | str replace ' --data-dir "$DATA_DIR"' ""
            let words = $"($names); ($words)"
            let answer = $user | as-user sh [-c $words ($user.home | path join nulib bin provisioning)] --with $NOWHERE
            check same [$line $answer.exit_code] [$line 1]
            check holds $answer.stderr "No engine is running"
        }
    }
}

# Test environments, typed by a user: real containers, from nothing to nothing.

use bench.nu [image]
use check.nu
use user.nu *

const DOCS = path self ../../docs/user
const PROGRAMS = path self ../bin

# What there is in Docker of the environments with these ids.
def left-of [ids: list<any>]: nothing -> list<string> {
    mut left = []
    for id in $ids {
        for kind in [[ps --all] [network ls] [volume ls]] {
            $left ++= ^docker ...$kind --quiet --filter $"label=orchestrator.environment=($id)" | lines
        }
    }
    $left
}

# Gives the work a user whose engine makes nodes from the image of the tests, and removes what the engine's
# environments have left, whatever happens.
def with-tester [work: closure]: nothing -> nothing {
    with-user {|user|
        let error = try {
            do $work $user
            null
        } catch {|error| $error.rendered }
        let ids = $user | value "orchestrator test env list | each {|environment| $environment.id }"
        $user | value "orchestrator test env list | orchestrator test env cleanup --wait | ignore"
        let left = left-of $ids
        $user | value "orchestrator test image prune | ignore"
        if $error != null { error make --unspanned {msg: $error} }
        check same $left []
    }
}

export def "test a quick test passes from nothing and again and leaves nothing" [] {
    with-tester {|user|
        let quick = [test quick redis --base-image (image) --junit out.xml]
        let first = $user | front ($quick ++ [--json])
        check succeeded $first
        let environment = $first.stdout | from json
        check same [$environment.passed $environment.status $environment.error] [true cleaned null]
        check same ($environment.results | select name passed) [[name passed]; ["verify redis" true]]
        check same (left-of [$environment.id]) []
        let report = open --raw ($user.home | path join out.xml) | from xml
        check same [$report.tag $report.attributes.tests $report.attributes.failures $report.attributes.errors] [testsuites "1" "0" "0"]

        let again = $user | value $"orchestrator test quick redis --base-image (image)"
        check same [$again.passed $again.nodes.prepared] [true [true]]
    }
}

export def "test a quick test that fails ends with 1 and is kept for a look" [] {
    with-tester {|user|
        "#!/bin/sh\necho looking; redis-cli ping | grep -q PENG\n" | save ($user.home | path join peng.sh)
        let quick = [test quick redis --base-image (image) --script ./peng.sh --junit out.xml]
        let failed = $user | front $quick
        check same $failed.exit_code 1
        check holds $failed.stdout "verify redis" "peng.sh"
        check holds $failed.stderr "peng.sh" "provisioning test env logs"
        check holds (open --raw ($user.home | path join out.xml)) 'failures="1"'

        let kept = $user | value "orchestrator test env list --status failed"
        check same ($kept | select name passed) [[name passed]; [redis false]]
        let id = $kept.0.id
        check holds ($user | front [test env logs $id --node redis]).stdout "looking"
        check succeeded ($user | front [test env run $id --wait])
        check succeeded ($user | front [test env cleanup $id --wait])
        check same (left-of [$id]) []

        check same ($user | front ($quick ++ [--no-keep])).exit_code 1
        check same ($user | value "orchestrator test env list | length") 0
    }
}

export def "test what cannot be made is said and ends with 1" [] {
    with-tester {|user|
        let answer = $user | front [test quick redis --base-image "nowhere/nothing:1" --junit out.xml]
        check same $answer.exit_code 1
        check holds $answer.stderr "nowhere/nothing:1"
        check holds (open --raw ($user.home | path join out.xml)) 'errors="1"'
        let unknown = $user | front [test quick reddis]
        check same $unknown.exit_code 2
        check holds $unknown.stderr "reddis"
        let pointed = $user | shell "use nulib/provisioning; provisioning test env server web-01 [redis reddis]"
        check holds $pointed.stderr "reddis" "redis reddis]"
    }
}

export def "test a topology becomes a cluster whose nodes can be broken" [] {
    with-tester {|user|
        let cluster = $user | value $"use nulib/provisioning *
            {nodes: [{name: cache-01, taskservs: [redis]} {name: desk}]} | test env cluster pair --base-image (image) --wait"
        check same [$cluster.status ($cluster.nodes.name)] [ready [cache-01 desk]]
        let id = $cluster.id
        let broken = $user | value $"use nulib/provisioning *; test env fault ($id) kill cache-01; test env run ($id) --wait | get passed"
        check same $broken false
        let whole = $user | value $"use nulib/provisioning *
            test env run ($id) --fault ['restart cache-01' 'partition desk' 'heal'] --wait | get results | where name =~ restart or name =~ verify | last | get passed"
        check same $whole true
        check same ($user | value $"use nulib/provisioning *; test env cleanup ($id) --wait | get status") cleaned
    }
}

# What the members said of themselves after a fault of a run, in order of their names.
def etcd-after [fault: string]: table -> table<node: string, members: int, up: int, behind: int> {
    where name == $"verify etcd after fault ($fault)" | sort-by node | each {|result|
        {node: $result.node} | merge ($result.result | select members up behind)
    }
}

export def "test a quorum of etcd writes on without a member which then catches up" [] {
    with-tester {|user|
        let etcd = $user | value $"use nulib/provisioning *; test topology load etcd_cluster | test env cluster etcd --base-image (image) --wait"
        check same [$etcd.status ($etcd.nodes.name)] [ready [etcd-01 etcd-02 etcd-03]]

        # The report says each: without it, and with it again.
        let run = $user | value $"use nulib/provisioning *; test env run ($etcd.id) --fault ['kill etcd-02' 'restart etcd-02'] --wait"
        check so $run.passed $"all pass: ($run.results | to nuon)"
        let without = $run.results | etcd-after "1: kill etcd-02"
        check same ($without | select node members up) [[node members up]; [etcd-01 3 2] [etcd-03 3 2]]
        let again = $run.results | etcd-after "2: restart etcd-02"
        check same ($again | select node members up) [[node members up]; [etcd-01 3 3] [etcd-02 3 3] [etcd-03 3 3]]
        check so ($again | all {|said| $said.behind < 20 }) $"all have caught up: ($again | to nuon)"

        # What was written while it was away is in its own copy, and not only in the leader's.
        let container = $etcd.nodes | each {|node| [$node.name $node.container] } | into record
        $user | value $"use nulib/provisioning *; test env fault ($etcd.id) kill etcd-02 | ignore"
        ^docker exec ($container.etcd-01) etcdctl put while-away written | ignore
        $user | value $"use nulib/provisioning *; test env fault ($etcd.id) restart etcd-02 | ignore"
        check so ($user | value $"use nulib/provisioning *; test env run ($etcd.id) --wait | get passed") "it joins again"
        let own = ^docker exec ($container.etcd-02) etcdctl get --consistency=s --print-value-only while-away | str trim
        check same $own written
    }
}

export def "test a quick test of postgres passes from nothing and from the prepared image" [] {
    with-tester {|user|
        for _ in 1..2 {
            let tested = $user | value $"use nulib/provisioning *; test quick postgres --base-image (image)"
            check same [$tested.passed $tested.status] [true cleaned]
            check same (left-of [$tested.id]) []
        }
        let kept = $user | value $"use nulib/provisioning *; test quick postgres --base-image (image) --keep"
        check same [$kept.passed $kept.nodes.prepared] [true [true]]
    }
}

export def "test a test that takes too long is called off" [] {
    with-tester {|user|
        "#!/bin/sh\nsleep 600\n" | save ($user.home | path join slow.sh)
        let answer = $user | front [test quick redis --base-image (image) --script ./slow.sh --timeout "20sec" --no-keep]
        check same $answer.exit_code 1
        check holds $answer.stderr "called off"
        check same ($user | value "orchestrator test env list | length") 0
    }
}

# The blocks of a page that begin with this mark.
def blocks [mark: string]: string -> list<string> {
    split row "```" | enumerate | where index mod 2 == 1 | get item | where $it starts-with $"($mark)\n" | each {|block| $block | str substring ($mark | str length).. }
}

# The guide.
def guide []: nothing -> string {
    open --raw ($DOCS | path join test-environment-guide.md) | decode utf-8
}

# The parts of the guide that are typed in Nushell, each in a shell of its own: the heading, and the lines of
# all its blocks. The guide's first block comes before each of them.
def chapters []: nothing -> table<heading: string, lines: string> {
    guide | split row "\n## " | skip 1 | each {|chapter|
        {heading: ($chapter | lines | first), lines: ($chapter | blocks nu | str join "\n")}
    } | where lines != ""
}

def type-chapter [heading: string]: nothing -> nothing {
    with-tester {|user|
        let chapter = chapters | where heading == $heading | first
        let lines = [(guide | blocks nu | first) $chapter.lines] | str join "\n"
        $lines | save ($user.home | path join page.nu)
        let answer = $user | shell "source page.nu"
        check succeeded $answer
        check same $answer.stderr ""
        check same ($user | value "orchestrator test env list | length") 0
    }
}

export def "test each chapter of the guide to test environments is typed by a test" [] {
    check same (chapters).heading ["One taskserv, from nothing to nothing" "Step by step" "A server" "A cluster"]
}

export def "test the guide works for one taskserv" [] { type-chapter "One taskserv, from nothing to nothing" }

export def "test the guide works step by step" [] { type-chapter "Step by step" }

export def "test the guide works for a server" [] { type-chapter "A server" }

export def "test the guide works for a cluster" [] { type-chapter "A cluster" }

export def "test every shell line of the guide to test environments works" [] {
    with-tester {|user|
        let found = [$PROGRAMS ($nu.current-exe | path dirname)] ++ $env.PATH
        let lines = guide | blocks sh | str join "\n"
        check succeeded ($user | as-user sh [-e -u -c $lines] --with {PATH: $found})
        check same ($user | value "orchestrator test env list | length") 0
    }
}

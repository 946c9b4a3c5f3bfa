# Clusters: servers first, then what belongs on them.

use bench.nu *
use check.nu
use taskserv_bench.nu *

# A shop of two servers, one of which also belongs elsewhere.
def with-shop [work: closure, --absent]: nothing -> nothing {
    let servers = [{name: web, taskservs: [app]} {name: db} {name: other}]
    let clusters = [
        {name: shop, type: store, servers: [web db], taskservs: [agent]}
        {name: lab, type: store, servers: [other]}
        {name: audit, servers: [other db], taskservs: [agent]}
    ]
    with-folders $servers --more {clusters: $clusters} --absent=$absent {|place|
        $place | add-taskserv base
        $place | add-taskserv app {depends_on: [base]}
        $place | add-taskserv agent {depends_on: [base]}
        do $work $place
    }
}

export def "test the plan of a cluster makes servers before taskservs" [] {
    with-shop --absent {|place|
        let server = {|name| {name: $"create ($name)", operation: "server create", names: [$name], after: [], labels: {server: $name}} }
        let taskserv = {|name, server, after| {name: $"($name) on ($server)", operation: "taskserv create", names: [$name $server], after: ([$"create ($server)"] ++ $after), labels: {server: $server, taskserv: $name}} }
        let answer = $place | worker [cluster plan create shop]
        check same $answer.result {infra: $place.infra, tasks: [
            (do $server web) (do $server db)
            (do $taskserv base web []) (do $taskserv app web ["base on web"]) (do $taskserv agent web ["base on web"])
            (do $taskserv base db []) (do $taskserv agent db ["base on db"])
        ]}
        check same ($place | worker [cluster plan verify shop]).result.tasks.name ["base on web" "app on web" "agent on web" "base on db" "agent on db"]
        check same ($place | worker [cluster plan verify shop]).result.tasks.after [[] [] [] [] []]
        # All clusters of a type.
        check same ($place | worker [cluster plan create store]).result.tasks.name ["create web" "create db" "create other" "base on web" "app on web" "agent on web" "base on db" "agent on db" "base on other" "agent on other"]
        check same (ls ($place.directory | path join homes) | length) 0
    }
}

export def "test a cluster is made verified and made again" [] {
    with-shop --absent {|place|
        let answer = $place | worker [cluster create shop]
        check same [$answer.exit_code $answer.failure] [0 null]
        check same $answer.result.clusters [shop]
        check same ($answer.result.servers | select name action) [[name action]; [web created] [db created]]
        check same ($answer.result.taskservs | each { $"($in.name) on ($in.server)" }) ["base on web" "app on web" "agent on web" "base on db" "agent on db"]
        check same ($place | log-of web | where ($it ends-with install)) ["base install" "app install" "agent install"]
        check same ($place | worker [cluster create shop]).result.servers.action [unchanged unchanged]
        check same ($place | worker [cluster verify shop]).result.taskservs.action [verified verified verified verified verified]
    }
}

export def "test check mode of a cluster changes nothing and has one plan" [] {
    with-shop --absent {|place|
        let answer = $place | worker [cluster create shop --check]
        check same $answer.result.servers.action [would-create would-create]
        check same ($answer.result.plan | first 3 | select server step) [[server step]; [web make-folder] [db make-folder] [web install]]
        check same ($answer.result.plan | where step == verify | length) 5
        check same ($place | worker [cluster create shop --check]).result.plan_digest $answer.result.plan_digest
        check same (ls ($place.directory | path join homes) | length) 0
    }
}

export def "test what fails on one server leaves the other unharmed" [] {
    let servers = [{name: web, taskservs: [app], labels: {fail: yes}} {name: db, taskservs: [app]}]
    with-folders $servers --more {clusters: [{name: shop, servers: [web db]}]} --absent {|place|
        $place | add-taskserv app
        let answer = $place | worker [cluster create shop]
        check same [$answer.exit_code $answer.permanent] [1 false]
        check same ($answer.result.servers | select name action) [[name action]; [web failed] [db created]]
        check same ($answer.result.taskservs | select name server action) [[name server action]; [app db created]]
        check holds $answer.failure "1 of 3 servers and taskservs failed: web: no room"
    }
}

export def "test delete removes a clusters servers and none that another needs" [] {
    with-shop {|place|
        let refused = $place | worker [cluster delete shop]
        check same [$refused.exit_code $refused.permanent] [1 true]
        check holds $refused.failure "server 'db' belongs to cluster 'audit' as well"
        check holds ($place | worker [cluster plan delete shop]).failure "server 'db' belongs to cluster 'audit' as well"
        check same (ls ($place.directory | path join homes) | length) 3

        $place | describe-servers [{name: web} {name: db} {name: other}] --more {
            defaults: {provider: "./provider.nu", options: {home: ($place.directory | path join homes)}}
            clusters: [{name: shop, servers: [web db]} {name: lab, servers: [other]}]
        }
        check same ($place | worker [cluster plan delete shop]).result.tasks [
            {name: "delete web", operation: "server delete", names: [web], after: [], labels: {server: web}}
            {name: "delete db", operation: "server delete", names: [db], after: [], labels: {server: db}}
        ]
        check same ($place | worker [cluster delete shop]).result.servers.action [deleted deleted]
        check same (ls --short-names ($place.directory | path join homes)).name [other]
    }
}

export def "test a cluster that nobody describes is refused with the names" [] {
    with-shop {|place|
        for words in [[create nope] [verify nope] [delete nope] [plan create nope]] {
            let answer = $place | worker [cluster ...$words]
            check same [$answer.exit_code $answer.permanent] [1 true]
            check holds $answer.failure "no cluster with the name or the type 'nope': there is shop (type store), lab (type store), audit"
        }
        check holds ($place | worker [cluster plan frob shop]).failure "use create, verify, delete"
        check holds ($place | worker [cluster create]).failure "name the cluster"
        $place | describe-servers [{name: web, taskservs: [nope]}] --more {defaults: {provider: "./provider.nu"}, clusters: [{name: k, servers: [web]}]}
        let answer = $place | worker [cluster create k]
        check same [$answer.permanent $answer.result] [true null]
        check holds $answer.failure "there is no taskserv 'nope'"
    }
}

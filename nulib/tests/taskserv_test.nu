# Taskservs: which there are, what is brought where and in which order, and what is said about mistakes.

use bench.nu *
use check.nu
use taskserv_bench.nu *
use ../worker/fault.nu
use ../worker/schema.nu *
use ../worker/taskservs.nu

const OWN = path self ../taskservs
const DOCS = path self ../../docs/user/taskservs.md
const EXAMPLE = path self ../examples/cluster.yaml

export def "test a plan has a task for each taskserv on each server" [] {
    with-folders [{name: a, taskservs: [app]} {name: b} {name: c}] --more {clusters: [{name: k, servers: [b], taskservs: [app]}]} {|place|
        $place | add-taskserv base
        $place | add-taskserv lib {depends_on: [base]}
        $place | add-taskserv app {depends_on: [lib base]}
        let tasks = {|server| [
            {name: $"base on ($server)", operation: "taskserv create", names: [base $server], after: [], labels: {server: $server, taskserv: base}}
            {name: $"lib on ($server)", operation: "taskserv create", names: [lib $server], after: [$"base on ($server)"], labels: {server: $server, taskserv: lib}}
            {name: $"app on ($server)", operation: "taskserv create", names: [app $server], after: [$"lib on ($server)" $"base on ($server)"], labels: {server: $server, taskserv: app}}
        ] }
        let answer = $place | worker [taskserv plan create app]
        check same $answer.result {infra: $place.infra, tasks: ((do $tasks a) ++ (do $tasks b))}
        check same ($place | worker [taskserv plan create app b --check]).result.tasks (do $tasks b)
        check same ($place | worker [taskserv plan verify app]).result.tasks ([a b] | each {|server|
            {name: $"app on ($server)", operation: "taskserv verify", names: [app $server], after: [], labels: {server: $server, taskserv: app}}
        })
    }
}

export def "test what a taskserv depends on is brought first" [] {
    with-folders [{name: a, taskservs: [app]} {name: b, taskservs: [app]} {name: c}] {|place|
        $place | add-taskserv base
        $place | add-taskserv app {depends_on: [base]}
        let answer = $place | worker [taskserv create app]
        check same [$answer.exit_code $answer.failure] [0 null]
        check same ($answer.result.taskservs | select name server action) [[name server action]; [base a created] [app a created] [base b created] [app b created]]
        for server in [a b] {
            check same ($place | log-of $server) ["base install" "base start" "base verify" "app install" "app start" "app verify"]
        }
        check same ($place | log-of c) []
        # The engine has made a task of each: then one call does one of them.
        $place | worker [taskserv create base a --only]
        check same ($place | log-of a | skip 6) ["base install" "base start" "base verify"]
        $place | worker [taskserv create app a --only]
        check same ($place | log-of a | skip 9) ["app install" "app start" "app verify"]
        check same ($place | worker [taskserv verify app b]).result.taskservs.0.action verified
        check same ($place | log-of b | skip 6) ["app verify"]
    }
}

export def "test a taskserv that was there already is unchanged" [] {
    with-folders [{name: a, taskservs: [app]}] {|place|
        let once = "[ -e \"$HOME/done\" ] && { echo '::result {\"changed\": false}'; exit 0; }\ntouch \"$HOME/done\"\necho '::result {\"changed\": true}'\n"
        $place | add-taskserv app --scripts {install.sh: $once, start.sh: "echo '::result {\"changed\": false}'", verify.sh: "echo '::result {\"answer\": 42}'"}
        check same ($place | worker [taskserv create app]).result.taskservs [[name server action verified]; [app a created {answer: 42}]]
        check same ($place | worker [taskserv create app]).result.taskservs [[name server action verified]; [app a unchanged {answer: 42}]]
    }
}

export def "test progress says where the work is" [] {
    with-folders [{name: a, taskservs: [app]}] {|place|
        $place | add-taskserv app
        check same ($place | worker [taskserv create app]).progress [
            "::progress 0/3 app on a: install" "::progress 1/3 app on a: start" "::progress 2/3 app on a: verify" "::progress 3/3 app on a: verified"
        ]
    }
}

export def "test a script that fails is named with its last line" [] {
    with-folders [{name: a, taskservs: [app]} {name: b, taskservs: [app]}] {|place|
        $place | add-taskserv base --scripts {install.sh: "echo begin; echo 'disk is full' >&2; exit 7"}
        $place | add-taskserv app {depends_on: [base]}
        let answer = $place | worker [taskserv create app a]
        check same [$answer.exit_code $answer.permanent] [1 false]
        check holds $answer.failure "base on a: install.sh ended with exit status 7; its last line: disk is full"
        check holds $answer.stdout "begin\n"
        check same ($answer.result.taskservs | select name action) [[name action]; [base failed] [app skipped]]
        check same ($place | log-of a) []
        let answer = $place | worker [taskserv create app]
        check holds $answer.failure "2 of 2 taskservs failed" "base on a" "base on b"

        $place | add-taskserv base --scripts {install.sh: "echo '::fail permanent no packages for this system'; exit 1"}
        let answer = $place | worker [taskserv create app a]
        check same [$answer.exit_code $answer.permanent $answer.failure] [1 true "base on a: install.sh: no packages for this system"]
    }
}

export def "test a failed verification is no reason to try again" [] {
    with-folders [{name: a, taskservs: [app]}] {|place|
        $place | add-taskserv app --scripts {verify.sh: "echo 'answers 41'; exit 1"}
        for operation in [verify create] {
            let answer = $place | worker [taskserv $operation app]
            check same [$answer.exit_code $answer.permanent] [1 true]
            check same $answer.failure "app on a: verify.sh ended with exit status 1; its last line: answers 41"
            check same $answer.result.taskservs.0.action failed
        }
        # That the server could not be asked is one, unless the provider says otherwise.
        "exit 1" | save --force ($place.directory | path join provider.nu)
        check same ($place | worker [taskserv verify app]).permanent false
    }
}

export def "test readiness is waited for" [] {
    with-folders [{name: a, taskservs: [app]}] {|place|
        let third = "echo x >> \"$HOME/looks\"; [ \"$(wc -l < \"$HOME/looks\")\" -ge 3 ] && exit 0; echo 'still loading' >&2; exit 1"
        $place | add-taskserv app {ready: {within_sec: 30}} --scripts {ready.sh: $third}
        check succeeded ($place | worker [taskserv create app])
        check same ($place | log-of a) ["app install" "app start" "app verify"]

        $place | add-taskserv app {ready: {within_sec: 1}} --scripts {ready.sh: "echo 'still loading' >&2; exit 1"}
        let answer = $place | worker [taskserv create app]
        check same [$answer.exit_code $answer.permanent] [1 false]
        check same $answer.failure "app on a is not ready within 1 s; its last line: still loading"
    }
}

export def "test a script that takes too long is ended" [] {
    with-folders [{name: a, taskservs: [app]}] {|place|
        $place | add-taskserv app {timeouts: {install_sec: 1}} --scripts {install.sh: "echo $$ > \"$HOME/pid\"; echo begun >&2; exec sleep 300"}
        let answer = $place | worker [taskserv create app]
        check same [$answer.exit_code $answer.permanent] [1 false]
        check holds $answer.failure "app on a: install.sh took longer than its 1 s"
        let pid = open --raw ($place.directory | path join homes a pid) | str trim
        check same (^ps -o stat= -p $pid | complete | get stdout | str trim | str replace --regex '^Z.*' '') ""
    }
}

export def "test scripts get their variables and install knows no peers" [] {
    let servers = [
        {name: a, taskservs: [app], address: "10.9.0.2", network: n, taskserv_options: {app: {port: 7000, note: "it's $HOME; `x`"}}}
        {name: b, taskservs: [app], taskserv_options: {app: {role: replica}}}
        {name: c}
        {name: d, taskservs: [app]}
    ]
    let more = {
        networks: {n: {subnet: "10.9.0.0/24"}}
        clusters: [{name: k, servers: [a b c], taskserv_options: {app: {port: 6000, fast: true}}}]
    }
    with-folders $servers --more $more {|place|
        let print_all = "for step in \"$0\"; do env | grep '^TASKSERV_' | sort >> \"$HOME/${step##*/}.env\"; done\n"
        $place | add-taskserv app {roles: [primary replica], parameters: {
            port: {type: "integer 1 65535", default: 5000, about: x}
            fast: {type: boolean, default: false, about: x}
            note: {type: text, default: "none", about: x}
        }} --scripts {install.sh: $print_all, start.sh: $print_all}
        check same ($place | worker [taskserv create app]).failure null
        let seen = {|server, step| open --raw ($place.directory | path join homes $server $"($step).sh.env") | decode utf-8 | lines }
        let of_a = ["TASKSERV_ADDRESS=10.9.0.2" TASKSERV_NAME=app TASKSERV_PARAM_FAST=true "TASKSERV_PARAM_NOTE=it's $HOME; `x`" TASKSERV_PARAM_PORT=7000 TASKSERV_ROLE=primary TASKSERV_SERVER=a $"TASKSERV_INFRA=($place.infra)"]
        check same (do $seen a install) ($of_a | sort)
        check same (do $seen a start) ($of_a ++ ["TASKSERV_PEERS=b b replica"] | sort)
        check so ("TASKSERV_PEERS=a 10.9.0.2 primary" in (do $seen b start)) "b knows a by its address"
        check so ("TASKSERV_ADDRESS=b" in (do $seen b start)) "b is known by its name"
        check so ("TASKSERV_PARAM_PORT=6000" in (do $seen b start)) "the cluster's options are b's"
        check so ("TASKSERV_PEERS=" in (do $seen d start)) "d is in no cluster"
        # Also where only one server is asked for.
        rm ($place.directory | path join homes b start.sh.env)
        $place | worker [taskserv create app b --only]
        check so ("TASKSERV_PEERS=a 10.9.0.2 primary" in (do $seen b start)) "b alone knows a as well"
        check so ("TASKSERV_PARAM_PORT=5000" in (do $seen d start)) "d has the default"
    }
}

export def "test check mode contacts nobody" [] {
    with-folders [{name: a, taskservs: [app]}] {|place|
        $place | add-taskserv base
        $place | add-taskserv app {depends_on: [base]}
        "exit 1" | save --force ($place.directory | path join provider.nu)
        let answer = $place | worker [taskserv create app --check]
        check same [$answer.failure $answer.result.check] [null true]
        check same ($answer.result.taskservs | select name action) [[name action]; [base would-create] [app would-create]]
        check same ($answer.result.plan | each { $"($in.taskserv) on ($in.server): ($in.step)" }) [
            "base on a: install" "base on a: start" "base on a: verify" "app on a: install" "app on a: start" "app on a: verify"
        ]
        check same ($place | worker [taskserv create app --check]).result.plan_digest $answer.result.plan_digest
        check same ($place | worker [taskserv verify app --check]).result.plan [[server taskserv step]; [a app verify]]
        check same ($place | log-of a) []
    }
}

export def "test names that nobody knows are refused with what there is" [] {
    with-folders [{name: a, taskservs: [app]} {name: b}] {|place|
        $place | add-taskserv app
        $place | add-taskserv other
        $place | add-taskserv broken {depends_on: [nowhere]}
        for case in [
            [[create nope] "there is no taskserv 'nope': there is app, broken, cilium, containerd, etcd, kubernetes, other, postgres, redis"]
            [[create app b] "server 'b' does not have the taskserv 'app': it has none"]
            [[create other] "no server of" "has the taskserv 'other'"]
            [[create app z] "describes no server 'z': it has a, b"]
            [[create broken] "no server of"]
            [[verify nope] "there is no taskserv 'nope'"]
            [[plan create nope] "there is no taskserv 'nope'"]
            [[plan delete app] "'delete' cannot be planned: use create, verify"]
            [[create] "name the taskserv"]
            [["create" "../x"] "'../x' is not a taskserv name"]
            [["create" "a;b"] "'a;b' is not a taskserv name"]
            [[create app "B_"] "'B_' is not a server name"]
        ] {
            let answer = $place | worker [taskserv ...$case.0]
            check same [$case.0 $answer.exit_code $answer.permanent] [$case.0 1 true]
            for part in ($case | skip 1) { check holds $answer.failure $part }
        }
        check same ($place | log-of a) []
    }
}

export def "test a circle and a dependency that is not there are named" [] {
    with-folders [{name: a, taskservs: [x gone]}] {|place|
        $place | add-taskserv x {depends_on: [y]}
        $place | add-taskserv y {depends_on: [z]}
        $place | add-taskserv z {depends_on: [y]}
        $place | add-taskserv gone {depends_on: [nowhere]}
        for words in [[taskserv plan create] [taskserv create]] {
            let answer = $place | worker [...$words x]
            check same [$answer.exit_code $answer.permanent] [1 true]
            check same $answer.failure "taskservs depend on each other in a circle: y → z → y"
            check holds ($place | worker [...$words gone]).failure "there is no taskserv 'nowhere', which 'gone' depends on"
        }
        check same ($place | log-of a) []
    }
}

export def "test every mistake of a taskserv toml is named with its file and key" [] {
    with-folders [{name: a, taskservs: [app]}] {|place|
        let file = $place.directory | path join taskservs app taskserv.toml
        for case in [
            ['' "the file has no `description`"]
            ['description = "x"
depend_on = []' "unknown key `depend_on`" "did you mean `depends_on`?"]
            ['description = "x"
depends_on = ["A"]' "depends_on[0]" "must be a name"]
            ['description = "x"
depends_on = ["app"]' "depends_on" "cannot depend on itself"]
            ['description = "x"
ports = ["port"]' "ports[0]" "'port' is no parameter that is a whole number"]
            ['description = "x"
[parameters.Port]
type = "text"
about = "x"' "`Port` cannot be a key of parameters"]
            ['description = "x"
[parameters.port]
type = "number"
about = "x"' "parameters.port.type" "not the text 'number'"]
            ['description = "x"
[parameters.port]
type = "integer 1 9"
default = 10
about = "x"' "parameters.port.default" "a whole number from 1 to 9, not the number 10"]
            ['description = "x"
roles = ["a"]
[parameters.role]
type = "text"
about = "x"' "`role` is taken"]
            ['description = "x"
[needs]
memory_mb = "lots"' "needs.memory_mb"]
            ['description = "x"
[timeouts]
install_sec = 0' "timeouts.install_sec"]
            ["description = \"x\"\nports = [" ":2: this is not TOML"]
        ] {
            $place | add-taskserv app
            $case.0 | save --force $file
            let answer = $place | worker [taskserv plan create app]
            check same [$case.0 $answer.exit_code $answer.permanent] [$case.0 1 true]
            check holds $answer.failure $file ...($case | skip 1)
        }
        $place | add-taskserv app {ready: {within_sec: 1}}
        check holds ($place | worker [taskserv plan create app]).failure "has no ready.sh"
    }
}

export def "test parameters are checked before anything is done" [] {
    for case in [
        [{app: {prot: 1}} "server 'a': taskserv 'app' has no parameter `prot`: it has port, name"]
        [{app: {name: x, port: 0}} "the parameter `port` of taskserv 'app' must be a whole number from 1 to 9, not the number 0"]
        [{app: {port: 1}} "needs its parameter `name`"]
        [{app: {name: x}, ap: {name: x}} "server 'a' has options for a taskserv 'ap', which it does not have: it has app"]
    ] {
        with-folders [{name: a, taskservs: [app], taskserv_options: $case.0}] {|place|
            $place | add-taskserv app {parameters: {port: {type: "integer 1 9", default: 5, about: x}, name: {type: label, about: x}}}
            for words in [[create app] [create app --check]] {
                let answer = $place | worker [taskserv ...$words]
                check same [$answer.exit_code $answer.permanent] [1 true]
                check holds $answer.failure $case.1
            }
            check same ($place | log-of a) []
        }
    }
}

export def "test a server that lacks what a taskserv needs is refused" [] {
    with-place {|place|
        $place | describe-servers [{name: a, taskservs: [big vm], resources: {memory_mb: 64}}]
        $place | add-taskserv big {needs: {memory_mb: 65}}
        $place | add-taskserv vm {needs: {systemd: true}}
        let answer = $place | worker [taskserv create big --check]
        check same [$answer.permanent $answer.failure] [true "taskserv 'big' needs 65 MiB of memory, and server 'a' is limited to 64"]
        check same ($place | worker [taskserv create vm]).failure "taskserv 'vm' needs systemd, which server 'a' of provider 'docker' does not have"
    }
}

export def "test a taskserv beside the settings comes before the one of the project" [] {
    with-folders [{name: a}] {|place|
        $place | add-taskserv redis {description: "mine"}
        let all = ($place | worker [taskserv list]).result.taskservs
        check same $all.name [cilium containerd etcd kubernetes postgres redis]
        check same ($all | where name == redis | select description where | first) {description: mine, where: ($place.directory | path join taskservs redis)}
        check same ($place | worker [taskserv list postgres]).result.taskservs.where [($OWN | path join postgres)]
    }
}

export def "test the taskservs of the project are right" [] {
    let all = taskservs available [$OWN]
    check same $all.name [cilium containerd etcd kubernetes postgres redis]
    for one in $all {
        let taskserv = taskservs read $one.folder
        # Without options they can be brought to any server.
        check so ($taskserv | taskservs choices a {} | get parameters | columns | is-not-empty) "they have parameters"
        for script in (glob ($one.folder | path join "*.sh")) { check same (^sh -n $script | complete | get exit_code) 0 }
    }
    # A folder is all that a taskserv is, so each has its own copy of what they share.
    for file in [[name, by]; [apt.sh 6] [service.sh 2] [bundle.sh 2] [upstream.sh 2]] {
        let copies = glob ($OWN | path join "*" $file.name) | each {|copy| open --raw $copy | decode utf-8 }
        check same [$file.name ($copies | length) ($copies | uniq | length)] [$file.name $file.by 1]
    }
}

export def "test the cluster of kubernetes in the documentation is brought in order with its roles" [] {
    let described = open --raw $DOCS | decode utf-8 | split row "### kubernetes" | last | parse --regex '(?s)```yaml\n(?P<text>.*?)```' | get 0.text | from yaml
    let token = "abcdef.0123456789abcdef"
    let clusters = $described.clusters | update taskserv_options.kubernetes.token $token
    let print_all = "env | grep -E '^TASKSERV_(ROLE|PEERS|PARAM_TOKEN)=' | sort >\"$HOME/$TASKSERV_NAME.env\"\n"
    with-folders $described.servers --more {clusters: $clusters} {|place|
        # The project's own descriptions, with scripts that write down what they were told.
        for name in [containerd kubernetes cilium] {
            let about = open ($OWN | path join $name taskserv.toml) | reject ready
            $place | add-taskserv $name $about --scripts {start.sh: $print_all}
        }
        let tasks = ($place | worker [cluster plan create k8s]).result.tasks | select name after
        for server in [master-01 worker-01] {
            check same ($tasks | where name == $"cilium on ($server)" | get 0.after) [$"create ($server)" $"kubernetes on ($server)"]
            check same ($tasks | where name == $"kubernetes on ($server)" | get 0.after) [$"create ($server)" $"containerd on ($server)"]
        }
        check same ($place | worker [cluster create k8s]).failure null
        let seen = {|server, name| open --raw ($place.directory | path join homes $server $"($name).env") | decode utf-8 | lines }
        check same (do $seen master-01 kubernetes) [$"TASKSERV_PARAM_TOKEN=($token)" "TASKSERV_PEERS=worker-01 worker-01 worker" TASKSERV_ROLE=controlplane]
        check same (do $seen worker-01 kubernetes) [$"TASKSERV_PARAM_TOKEN=($token)" "TASKSERV_PEERS=master-01 master-01 controlplane" TASKSERV_ROLE=worker]
        check same (do $seen worker-01 cilium) ["TASKSERV_PEERS=master-01 master-01 controlplane" TASKSERV_ROLE=worker]
    }
    with-folders $described.servers --more {clusters: $clusters, defaults: {image: x}} {|place|
        let answer = $place | worker [taskserv create cilium --check]
        check same $answer.permanent true
        check holds $answer.failure "taskserv 'containerd' needs capabilities, which server 'master-01' of provider 'docker' does not have"
    }
}

export def "test a system without apt is refused for good" [] {
    with-place {|place|
        let variables = {PATH: [$place.directory], TASKSERV_PARAM_PORT: "1", TASKSERV_PARAM_BIND: x, TASKSERV_PARAM_PROTECTED_MODE: "true", TASKSERV_PARAM_LISTEN_ADDRESSES: x, TASKSERV_SERVER: a, TASKSERV_PEERS: ""}
        for name in [redis postgres etcd containerd] {
            cd ($OWN | path join $name)
            let answer = with-env $variables { ^/bin/sh ./install.sh | complete } | read-words
            check same [$answer.exit_code $answer.permanent] [1 true]
            check holds $answer.failure "no apt-get: only Debian and Ubuntu"
            let verified = with-env $variables { ^/bin/sh ./verify.sh | complete } | read-words
            check same [$verified.exit_code $verified.permanent] [1 true]
            check holds $verified.failure "is not installed"
        }
    }
}

export def "test what a provider does wrong with a script is said" [] {
    with-folders [{name: a, taskservs: [app]}] {|place|
        $place | add-taskserv app
        for case in [
            ['print "::fail permanent no such host"; exit 1' true "no such host"]
            ['print "::fail host is down"; exit 1' false "host is down"]
            # The script said why it failed, and then the connection was cut: that it was cut counts.
            ['print "::fail permanent disk is full"; print "::fail connection cut"; exit 1' false "connection cut"]
            ['print "::result {}"' true "answered 'run' without an `exit_code`"]
            ['print "hello"' true "gave no answer to 'run'"]
            # Somebody has killed it: that is not the time limit.
            ['^kill -KILL $nu.pid' false "exit status -9"]
        ] {
            $"def \"main run\" []: string -> nothing { ($case.0) }\ndef main [] {}" | save --force ($place.directory | path join provider.nu)
            let answer = $place | worker [taskserv create app]
            check same [$case.0 $answer.exit_code $answer.permanent] [$case.0 1 $case.1]
            check holds $answer.failure $case.2
        }
    }
}

export def "test the documentation of taskservs has the tables of the schema" [] {
    let page = open --raw $DOCS | decode utf-8
    for name in ($TASKSERV_SECTIONS | columns) { check holds $page (section-in-markdown $name) }
}

export def "test the example of a cluster is right and is the one of the documentation" [] {
    with-place {|place|
        let own = $place | update settings $EXAMPLE | update infra shop
        check same ($own | worker [cluster plan create store]).result.tasks.name ["create cache-01" "create db-01" "redis on cache-01" "postgres on db-01"]
        let text = open --raw $EXAMPLE | decode utf-8 | lines | where not ($it starts-with "#") | str join (char newline)
        check holds (open --raw $DOCS | decode utf-8) $text
    }
}

export def "test the documentation has the options of the projects taskservs" [] {
    let page = open --raw $DOCS | decode utf-8
    for one in (taskservs available [$OWN]) {
        for parameter in (taskservs read $one.folder | get parameters | transpose name says) {
            check holds $page $"| `($parameter.name)` | " $parameter.says.about
        }
    }
}

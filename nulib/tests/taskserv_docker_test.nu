# Taskservs on servers of docker: real packages, real services.

use bench.nu *
use check.nu
use taskserv_bench.nu *

const WORKER = path self ../worker/worker.nu

const DOCS = path self ../../docs/user/taskservs.md

# The longest that something may take that comes in moments.
const PATIENCE = 60sec

# Waits until it is so.
def wait-until [what: string, look: closure]: nothing -> nothing {
    let end = (date now) + $PATIENCE
    while not (do $look) {
        if (date now) > $end { error make --unspanned {msg: $"this never came: ($what)"} }
        sleep 50ms
    }
}

# Starts the worker and kills it with all that it has started as soon as it has printed this, as a
# machine that fails would.
def cut-off [words: list<string>, text: string]: record -> nothing {
    let place = $in
    let log = $place.directory | path join "cut.log"
    let pid = ^setsid sh -c 'log=$1; shift; "$@" >"$log" 2>&1 & echo $!' sh $log $nu.current-exe -n --no-std-lib $WORKER ...$words --infra $place.infra --settings $place.settings | str trim
    let session = ^ps -o sid= -p $pid | str trim
    wait-until $"($text) in the worker's output" { ($log | path exists) and $text in (open --raw $log | decode utf-8) }
    ^pkill -KILL -s $session
}

export def "test redis and postgres answer and an install that was cut off is completed" [] {
    with-place {|place|
        let options = {redis: {port: 6380}, postgres: {port: 5433}}
        $place | describe-servers [{name: db-01, taskservs: [redis postgres], taskserv_options: $options}] --more {clusters: [{name: shop, servers: [db-01]}]}
        $place | worker [server create]
        let early = $place | worker [taskserv verify redis]
        check same [$early.exit_code $early.permanent] [1 true]
        check holds $early.failure "redis on db-01: verify.sh: Redis is not installed"

        # In the middle of dpkg's work.
        $place | cut-off [taskserv create redis] "Unpacking redis-server"
        let answer = $place | worker [cluster create shop]
        check same [$answer.exit_code $answer.failure] [0 null]
        check same ($answer.result.taskservs | select name action) [[name action]; [redis created] [postgres created]]
        check same ($place | inside db-01 [redis-cli -p "6380" PING]) PONG
        check same ($place | inside db-01 [runuser -u postgres -- psql -p "5433" -Atc "SELECT 6 * 7"]) "42"
        check same ($place | inside db-01 [dpkg --audit]) ""

        let before = $place | inside db-01 [sh -c "ps -eo pid,args | grep -E 'redis-server|bin/postgres' | grep -v grep"]
        let again = $place | worker [cluster create shop]
        check same $again.result.taskservs.action [unchanged unchanged]
        check same $again.result.taskservs.verified.0.ping PONG
        check same ($place | inside db-01 [sh -c "ps -eo pid,args | grep -E 'redis-server|bin/postgres' | grep -v grep"]) $before

        # Another port is taken over.
        $place | describe-servers [{name: db-01, taskservs: [redis postgres], taskserv_options: {redis: {port: 6381}, postgres: {port: 5434}}}]
        check same ($place | worker [taskserv create redis]).result.taskservs.action [created]
        check same ($place | worker [taskserv create postgres]).result.taskservs.action [created]
        check same ($place | inside db-01 [redis-cli -p "6381" PING]) PONG
        check same ($place | inside db-01 [sh -c "ps -eo comm= | grep -c redis-server"]) "1"
        check same ($place | inside db-01 [runuser -u postgres -- psql -p "5434" -Atc "SELECT 6 * 7"]) "42"

        # A service that has died is a failed verification, and the next create brings it back.
        $place | inside db-01 [redis-cli -p "6381" SHUTDOWN NOSAVE]
        let dead = $place | worker [taskserv verify redis]
        check same [$dead.exit_code $dead.permanent] [1 true]
        check holds $dead.failure "to PING on port 6381" "refused"
        check same ($place | worker [taskserv create redis]).result.taskservs.action [created]
    }
}

export def "test a script ends with who asked for it" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01, taskservs: [slow]}]
        $place | add-taskserv slow --scripts {install.sh: "echo begun; sleep 3333", start.sh: "", verify.sh: ""}
        $place | worker [server create]
        $place | cut-off [taskserv create slow] "begun"
        wait-until "the end of the script" { (^docker exec $"($place.infra).web-01" pgrep -f "^sleep 3333" | complete).exit_code != 0 }
        # The next attempt is not held up.
        $place | add-taskserv slow --scripts {install.sh: "id -u; pwd; ls -ld . | cut -c1-10", start.sh: "", verify.sh: ""}
        let answer = $place | worker [taskserv create slow]
        check succeeded $answer
        check holds $answer.stdout "\n0\n"
        # Nothing of it stays.
        wait-until "an empty /tmp" { ($place | inside web-01 [ls /tmp]) == "" }
    }
}

export def "test a server that is not there is no place for a taskserv" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01, taskservs: [app]}]
        $place | add-taskserv app --scripts {install.sh: "", start.sh: "", verify.sh: ""}
        check succeeded ($place | worker [taskserv create app --check])
        let absent = $place | worker [taskserv create app]
        check same [$absent.permanent $absent.failure] [true "server 'web-01' does not exist: create it first"]
        check same ($place | docker-state | get containers) []

        $place | worker [server create]
        ^docker stop --time 1 $"($place.infra).web-01"
        let stopped = $place | worker [taskserv create app]
        check same $stopped.permanent true
        check holds $stopped.failure "server 'web-01' is 'exited'"
        let unreachable = $place | worker [taskserv create app] --with {DOCKER_HOST: $"unix://($place.directory)/dead.sock"}
        check same $unreachable.permanent false
        check holds $unreachable.failure "Docker cannot be reached"
        ^docker rm --force $"($place.infra).web-01"
        ^docker run --detach --name $"($place.infra).web-01" (image) sleep infinity
        check holds ($place | worker [taskserv create app]).failure "not made from these settings: nothing is run in it"
    }
}

export def "test a server that goes away in the middle is worth another try" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01, taskservs: [app]}]
        $place | add-taskserv app --scripts {install.sh: "echo going; kill -TERM 1; sleep 60", start.sh: "", verify.sh: ""}
        $place | worker [server create]
        # Nothing starts it again.
        ^docker update --restart no $"($place.infra).web-01"
        let answer = $place | worker [taskserv create app]
        check same [$answer.exit_code $answer.permanent] [1 false]
        check holds $answer.failure "the connection to server 'web-01' was cut while 'install.sh' ran"
    }
}

# The example of the documentation: its files by name.
def documented-example []: nothing -> record {
    let text = open --raw $DOCS | decode utf-8 | split row "### An example" | last | split row "### taskserv.toml" | first
    $text | parse --regex '(?s)`(?:taskservs/clock/)?(?P<file>[a-z]+\.(?:sh|toml))`[^\n]*\n\n```\w+\n(?P<text>.*?)```' | each {|found| [$found.file $found.text] } | into record
}

export def "test the example of the documentation works" [] {
    with-place {|place|
        let files = documented-example
        check same ($files | columns) [taskserv.toml install.sh start.sh ready.sh verify.sh]
        let folder = $place.directory | path join taskservs clock
        mkdir $folder
        $files | items {|file, text| $text | save ($folder | path join $file) } | ignore
        $place | describe-servers [{name: web-01, taskservs: [clock]}]
        $place | worker [server create]
        let made = $place | worker [taskserv create clock]
        check same [$made.exit_code $made.failure] [0 null]
        check same $made.result.taskservs.action [created]
        check same ($place | worker [taskserv create clock]).result.taskservs.action [unchanged]

        # With other settings it is started anew.
        $place | describe-servers [{name: web-01, taskservs: [clock], taskserv_options: {clock: {interval_sec: 2}}}]
        check same ($place | worker [taskserv create clock]).result.taskservs.action [created]
        check same ($place | inside web-01 [sh -c "ps -eo args | grep -c '^sh /usr/local/bin/clock'"]) "1"
        # The service outlives the scripts, and is seen to have died.
        check succeeded ($place | worker [taskserv verify clock])
        $place | inside web-01 [sh -c "kill $(cat /run/clock.pid); echo 1000 > /run/clock"]
        check holds ($place | worker [taskserv verify clock]).failure "the clock has stopped"
    }
}

export def "test two taskservs on one server at the same time" [] {
    with-place {|place|
        $place | describe-servers [{name: web-01, taskservs: [one two]}]
        let order = "echo \"$TASKSERV_NAME in\" >> /log; while [ \"$(grep -c in /log)\" -lt 2 ]; do sleep 0.05; done"
        for name in [one two] { $place | add-taskserv $name --scripts {install.sh: $order, start.sh: "", verify.sh: ""} }
        $place | worker [server create]
        # Each waits for the other: they end only if they run at the same time.
        let answers = [one two] | par-each {|name| $place | worker [taskserv create $name] }
        check same $answers.exit_code [0 0]
    }
}

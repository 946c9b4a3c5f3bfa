# The local provider: this machine. The scripts do no harm to it.

use bench.nu *
use check.nu
use conforming.nu *
use sshd.nu [ask until]

def with-local [work: closure]: nothing -> nothing {
    with-place {|place|
        {infra: $place.infra, servers: [{name: here, provider: local}]} | to yaml | save $place.settings
        do $work $place
    }
}

export def "test local keeps the contract" [] {
    with-local {|place| $place | conforms local }
}

export def "test local says what this machine is and never removes it" [] {
    with-local {|place|
        let made = ($place | worker [server create]).result.servers.0
        check same $made.action unchanged
        check same $made.kernel (^uname -r | str trim)
        check so ($made.os | is-not-empty) "the system has a name"
        check same ($place | worker [server list]).result.servers.status [running]
        let removed = ($place | worker [server delete here]).result.servers.0
        check same $removed.action unchanged
        check holds $removed.reason "not removed"
    }
}

export def "test a script ends when nobody is at the other end any more" [] {
    with-local {|place|
        let folder = $place.directory | path join waits
        let pids = $place.directory | path join pids
        mkdir $folder
        'echo $PPID $$ >"$PIDS"; while :; do sleep 0.1; done' | save ($folder | path join go.sh)
        let order = {infra: $place.infra, server: {name: here}, folder: $folder, script: "go.sh", env: {PIDS: $pids}}
        job spawn {
            until "the script runs" { ($pids | path exists) and (open --raw $pids | decode utf-8 | str ends-with "\n") }
            # Above the script are the holder of its lock, the session, and what feeds the session.
            let all = ps --long
            let session = $all | where pid == (open --raw $pids | decode utf-8 | split words | first | into int) | get 0.ppid
            let feeding = $all | where pid == $session | get 0.ppid
            kill ...($all | where ppid == $feeding and pid != $session | get pid)
        }
        let answer = $place | ask local run $order
        check same [$answer.exit_code $answer.permanent] [1 false]
        check holds $answer.failure "ended"
        let script = open --raw $pids | decode utf-8 | split words | last | into int
        check same (ps | where pid == $script | length) 0
    }
}

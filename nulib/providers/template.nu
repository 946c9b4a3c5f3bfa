# A provider to begin with: copy it, and put your own machines in the place of its directories.
#
# Its servers are directories under ~/.local/state/orchestrator-template/INFRA, and what is run on a
# server runs there, as the user that you are. So it works anywhere, needs nothing, and keeps the whole
# contract of docs/user/providers.md; `nu nulib/providers/conformance.nu` says whether it still does
# when you have changed it.
#
# It is run with the worker's directory as a place to look for modules: `task.nu` says things to the
# engine, `fault.nu` ends with a reason, `order.nu` checks the order `run`.

use fault.nu
use providers/host/order.nu *
use task.nu

# Runs the script of a place: PLACE SCRIPT LOCK. The lock is held until the script is gone, and not handed
# on to what the script starts (`flock -o`). The output goes through pipes of its own, so that a daemon
# which keeps them open does not keep the provider waiting.
const RUN = '
    mkfifo "$1/out" "$1/err"
    cat <"$1/out" & out=$!
    cat <"$1/err" >&2 & err=$!
    flock -o "$3" sh -c ". \"\$1/env\"; rm \"\$1/env\"; cd \"\$1/files\" && exec sh \"./\$2\"" sh "$1" "$2" >"$1/out" 2>"$1/err" </dev/null
    echo $? >"$1/status"
    { sleep 3; kill $out $err; } >/dev/null 2>&1 & drain=$!
    wait $out $err 2>/dev/null
    kill $drain'

def main []: nothing -> nothing {
    print "A template of a provider: create, delete, list and run, each with a JSON record on standard input."
}

# Makes a server. What exists is left alone, what broke off half-way is completed.
def "main create" []: string -> nothing {
    let text = $in
    fault guard {
        let order = $text | about-server
        let home = $order | home-of-server
        let ready = $home | path join ready
        # Look first, then say or do what is left.
        let steps = if ($ready | path exists) { [] } else { [{step: make-directory, path: $home}] }
        if ($steps | is-empty) {
            task result {action: unchanged, status: running, path: $home, steps: []}
        } else if $order.check {
            task result {action: would-create, steps: $steps}
        } else {
            task progress $"($order.server.name): make directory" --done 0 --of 1
            # Nobody else is let in.
            ^mkdir -p -m 700 $home
            # The last step says that all others are done.
            touch $ready
            task progress $"($order.server.name): ready" --done 1 --of 1
            task result {action: created, status: running, path: $home}
        }
    }
}

# Removes a server. Of one that has left the settings file the order holds only `name` and `provider`.
def "main delete" []: string -> nothing {
    let text = $in
    fault guard {
        let order = $text | about-server
        let home = $order | home-of-server
        let exists = $home | path exists
        if $exists and not $order.check { rm --recursive --force $home }
        task result {
            action: (match [$exists $order.check] { [false _] => "unchanged", [_ true] => "would-delete", _ => "deleted" })
            steps: (if $exists { [{step: remove-directory, path: $home}] } else { [] })
        }
    }
}

# Every server of the infra that exists, whether the settings file still describes it or not.
def "main list" []: string -> nothing {
    let text = $in
    fault guard {
        let order = $text | about-servers
        let home = $order | home-of-infra
        let names = if ($home | path exists) { ls --short-names $home | get name } else { [] }
        task result {
            servers: ($names | each {|name|
                {name: $name, status: (if ($home | path join $name ready | path exists) { "running" } else { "incomplete" })}
            })
        }
    }
}

# Runs a script of a folder on a server.
def "main run" []: string -> nothing {
    let text = $in
    fault guard {
        let order = $text | about-script
        let home = $order | home-of-server
        if not ($home | path join ready | path exists) { fault retryable $"server '($order.server.name)' does not exist" }
        let place = mktemp --directory --tmpdir-path $home "run-XXXXXXXXXX"
        try {
            let answer = run-in $place $order
            rm --recursive --force $place
            task result $answer
        } catch {|error|
            rm --recursive --force $place
            error make $error.raw
        }
    }
}

# Copies the folder to the place, runs the script there, and passes its output on line by line.
def run-in [place: string, order: record]: nothing -> record<exit_code: int, result: any> {
    let copied = ^cp -R $"($order.folder)/." $"($place)/files" | complete
    if $copied.exit_code != 0 { fault retryable $"the folder ($order.folder) could not be copied: ($copied.stderr | str trim)" }
    # Values may be secret: they go through a private file and never through arguments.
    $order.env | exports | save --raw ($place | path join env)
    let lock = $order | home-of-server | path join $"($order | lock-name).lock"
    let said = ^sh -c $RUN sh $place $order.script $lock
        | lines | each {|line|
            if ($line starts-with "::result ") { $line | str substring 9.. } else { print $line }
        } | compact
    {exit_code: (open --raw ($place | path join status) | decode utf-8 | str trim | into int), result: ($said | last-result)}
}

# Where the servers of an infra are.
def home-of-infra []: record -> string {
    let order = $in
    $env.XDG_STATE_HOME? | default --empty ("~/.local/state" | path expand) | path join orchestrator-template $order.infra
}

# Where a server is.
def home-of-server []: record -> string {
    let order = $in
    $order | home-of-infra | path join $order.server.name
}

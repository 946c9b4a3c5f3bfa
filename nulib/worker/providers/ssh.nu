# The ssh provider: a server is an existing machine that is reached with OpenSSH's own client.
#
# Nothing is made and nothing is removed: `create` looks whether the machine can be worked on, `run`
# runs a script on it as root. Keys of machines come from known_hosts alone, which is never written.

use ../fault.nu
use ../task.nu
use host/order.nu *
use host/session.nu
use host/workplace.nu
use ssh/target.nu
use ssh/trouble.nu

# How many machines are looked at once by `list`.
const AT_ONCE = 16

# How long one look may take, the connection included.
const LOOK_WITHIN = 25sec

def main []: nothing -> nothing {
    print "The ssh provider: create, delete, list and run, each with a JSON record on standard input."
}

# Looks whether the machine answers, has the key that is known, lets us be root, and is of a system that
# we know.
def "main create" []: string -> nothing {
    let text = $in
    fault guard {
        let order = $text | about-server
        let machine = target from server $order.server
        require-client
        if $order.check {
            task result {
                action: unchanged
                host: $machine.host
                steps: [{step: "look-at-machine", machine: ($machine | target in-words), user: $machine.user, looks_at: [reachable host-key login root system]}]
            }
        } else {
            task result ({action: unchanged, status: running, host: $machine.host} | merge (look $machine))
        }
    }
}

# Removes nothing: the machine was not made from here.
def "main delete" []: string -> nothing {
    let text = $in
    fault guard {
        let order = $text | about-server
        task result {action: unchanged, reason: $"the machine of server '($order.server.name)' was not made by this program: it is not removed", steps: []}
    }
}

# Which of the machines can be worked on.
def "main list" []: string -> nothing {
    let text = $in
    fault guard {
        let order = $text | about-servers
        require-client
        let servers = $order.servers | par-each --keep-order --threads $AT_ONCE {|server|
            let about = {name: $server.name, host: $server.host?}
            try {
                $about | merge {status: running} | merge (look (target from server $server))
            } catch {|error|
                $about | merge {status: unreachable, reason: ($error | fault describe-error).message}
            }
        }
        task result {servers: $servers}
    }
}

# Runs a script on the machine.
def "main run" []: string -> nothing {
    let text = $in
    fault guard {
        let order = $text | about-script
        let machine = target from server $order.server
        require-client
        let said = workplace with {|directory|
            let said = with-env {SHELL: /bin/sh} { session run-script $order $directory {|command| $machine | target command $directory $command } }
            if $said.exit_code == null and $said.refused == null and ($said.lacks | is-empty) {
                if $said.broken != null { fault retryable $"server '($machine.name)': ($said.broken)" }
                trouble refuse $machine $directory --cut=$said.begun
            }
            $said
        }
        session refuse-unfit $said ($machine | target in-words) $said.user
        task result {exit_code: $said.exit_code, result: $said.result}
    }
}

# The facts of a machine, or the reason why there are none.
def look [machine: record]: nothing -> record {
    workplace with {|directory|
        let said = with-env {SHELL: /bin/sh} { session look --within $LOOK_WITHIN {|command| $machine | target command $directory $command } }
        if ($said.facts | is-empty) { trouble refuse $machine $directory --late=$said.timed_out }
        session check-facts $said ($machine | target in-words)
    }
}

def require-client []: nothing -> nothing {
    if (which ssh | is-empty) {
        fault permanent "OpenSSH's client is not installed" --details "Install it, so that `ssh -V` answers on this machine (on Debian: openssh-client)."
    }
}

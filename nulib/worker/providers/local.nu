# The local provider: the server is the machine that this runs on. It is there already, so nothing is
# made and nothing is removed; scripts run as root, by `sudo` where need be.

use ../fault.nu
use ../task.nu
use host/order.nu *
use host/session.nu
use host/workplace.nu

def main []: nothing -> nothing {
    print "The local provider: create, delete, list and run, each with a JSON record on standard input."
}

# Looks at this machine. Nothing is made.
def "main create" []: string -> nothing {
    let text = $in
    fault guard {
        let order = $text | about-server
        task result (if $order.check {
            {action: unchanged, status: running, steps: [{step: "look-at-machine"}]}
        } else {
            {action: unchanged, status: running} | merge (session check-facts (session look {|command| [sh -c $command] }) "this machine")
        })
    }
}

# Removes nothing.
def "main delete" []: string -> nothing {
    let text = $in
    fault guard {
        let order = $text | about-server
        task result {action: unchanged, reason: $"server '($order.server.name)' is this machine: it is not removed", steps: []}
    }
}

# This machine, under each of the names that the settings file gives it.
def "main list" []: string -> nothing {
    let text = $in
    fault guard {
        let order = $text | about-servers
        task result {servers: ($order.servers | each {|server| {name: $server.name, status: running} })}
    }
}

# Runs a script on this machine.
def "main run" []: string -> nothing {
    let text = $in
    fault guard {
        let order = $text | about-script
        let said = workplace with {|directory| session run-script $order $directory {|command| [sh -c $command] } }
        session refuse-unfit $said "this machine" $said.user
        if $said.broken != null { fault retryable $"this machine cannot run the script: ($said.broken)" }
        if $said.exit_code == null { fault retryable $"what ran '($order.script)' on this machine was ended from outside" }
        task result {exit_code: $said.exit_code, result: $said.result}
    }
}

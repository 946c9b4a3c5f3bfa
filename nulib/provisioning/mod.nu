# Provisioning from Nushell: thin commands over the plugin, which has to be loaded before.
#
#     plugin use orchestrator
#     use nulib/provisioning
#     provisioning server create web-01 --infra production --settings ./settings.yaml --wait
#
# What changes something is handed to the engine, which makes a workflow of it. What only reads asks the
# worker directly and needs no engine. Inside a task, where ORCHESTRATOR_TASK_ID is set, the same commands
# do the work themselves: a task that submitted its own work again would never end.
#
# `use provisioning *` leaves out the first word: `server create …`.

export use server.nu
export use taskserv.nu
export use cluster.nu
export use workflow.nu
export use test.nu

# Lists the commands of this module.
@category provisioning
@example "what can be done with servers" 'provisioning | where name =~ server'
export def main []: nothing -> table<name: string, description: string> {
    scope commands | where name =~ '^provisioning .' | sort-by name | select name description
}

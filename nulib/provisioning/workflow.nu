# Workflows that have been submitted: how they are, and waiting for them.

# Shows a workflow with its tasks, as it is now.
@category provisioning
@example "by its id" 'provisioning workflow status 01890a5d-ac96-774b-bcce-b302099a8057'
@example "its failed tasks" 'provisioning workflow status 01890a5d-ac96-774b-bcce-b302099a8057 | get tasks | where status == Failed'
export def status [
    workflow: oneof<string, record>     # Its id, or a record with its id
]: nothing -> record {
    orchestrator task get $workflow
}

# Lists workflows, newest first.
@category provisioning
@example "the last five of an infra" 'provisioning workflow list --infra production | first 5'
export def list [
    --infra (-I): string    # Only those of this infra
]: nothing -> table {
    if $infra == null {
        orchestrator task list --kind workflow
    } else {
        orchestrator task list --kind workflow --group $infra
    }
}

# Waits until a workflow has ended, and returns it with its tasks. Ctrl-C stops waiting, not the workflow.
@category provisioning
@example "by its id" 'provisioning workflow wait 01890a5d-ac96-774b-bcce-b302099a8057'
export def wait [
    workflow: oneof<string, record>     # Its id, or a record with its id
]: nothing -> record {
    orchestrator task wait $workflow
}

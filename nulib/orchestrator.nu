# What a script can say to the engine that runs it, as a module to `use` from anywhere.
#
#     use nulib/orchestrator.nu *
#     task progress "copied web.conf" --done 3 --of 10

export use worker/task.nu

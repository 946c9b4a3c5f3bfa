# Settings that a script holds as a record, as the file that tasks read.
#
# A task may run later, again, or after a restart of the machine, so its settings must outlive the script.
# They are kept under their own digest: the same settings are one file, and no file ever changes.

use ../worker/plan.nu digest

# The file of these settings: the one that is named, or one that is written for the record.
#
# A record does not say where its relative paths start, so the worker refuses those that are not there:
# settings with relative paths are given as the file itself.
export def path []: [string -> string, record -> string] {
    let settings = $in
    if ($settings | describe --detailed | get type) == "string" { return ($settings | path expand) }
    let directory = $env.XDG_STATE_HOME? | default --empty ("~/.local/state" | path expand) | path join provisioning settings
    let file = $directory | path join $"($settings.infra? | default 'settings')-($settings | digest | str substring 0..15).yaml"
    if not ($file | path exists) {
        mkdir $directory
        # Settings may hold what is nobody else's business. The name changes when all is written, so
        # that no task reads half of a file.
        let draft = mktemp --tmpdir-path $directory "draft-XXXXXX.yaml"
        $settings | to yaml | save --force $draft
        mv --force $draft $file
    }
    $file
}

# The infra that a settings file names.
export def infra []: string -> string {
    let file = $in
    let infra = open --raw $file | from yaml | get --optional infra
    if $infra == null {
        error make --unspanned {msg: $"($file) does not say which infra it describes", code: "orchestrator::invalid", help: "name it with --infra"}
    }
    $infra
}

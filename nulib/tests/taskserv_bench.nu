# What tests of taskservs and clusters have in common: servers that are folders, so that scripts run in
# no time, and taskservs that write down that they were there.

use bench.nu *

# A provider whose servers are folders. Scripts run on this machine, with the server's folder as their
# home.
const PROVIDER = r#'
use task.nu

def home [order: record]: nothing -> string { $order.server.options.home | path join $order.server.name }

def "main create" []: string -> nothing {
    let order = $in | from json
    let home = home $order
    if ($home | path exists) { task result {action: unchanged}; return }
    if $order.check { task result {action: would-create, steps: [{step: make-folder}]}; return }
    if ("fail" in $order.server.labels) { print "::fail no room"; exit 1 }
    mkdir $home
    task result {action: created}
}

def "main delete" []: string -> nothing {
    let order = $in | from json
    if not $order.check { rm --recursive --force (home $order) }
    task result {action: deleted}
}

def "main run" []: string -> nothing {
    let order = $in | from json
    let home = home $order
    if not ($home | path exists) { print "::fail permanent there is no such server"; exit 1 }
    cd $order.folder
    let answer = with-env ($order.env | insert HOME $home) { ^sh $"./($order.script)" | complete }
    $answer.stdout | lines | where not ($it starts-with "::result ") | each {|line| print $line }
    print --stderr --no-newline $answer.stderr
    let said = $answer.stdout | lines | where ($it starts-with "::result ")
    let result = if ($said | is-empty) { null } else { $said | last | str substring 9.. | from json }
    task result {exit_code: $answer.exit_code, result: $result}
}

def main [] {}
'#

# Gives the work a place with that provider. `servers` are made at once, unless told otherwise.
export def with-folders [servers: list<any>, work: closure, --more: record = {}, --absent]: nothing -> nothing {
    with-place {|place|
        $PROVIDER | save ($place.directory | path join provider.nu)
        mkdir ($place.directory | path join homes)
        let defaults = {provider: "./provider.nu", options: {home: ($place.directory | path join homes)}}
        $place | describe-servers $servers --more ({defaults: $defaults} | merge $more)
        if not $absent { for server in $servers { mkdir ($place.directory | path join homes $server.name) } }
        do $work $place
    }
}

# Adds a taskserv beside the settings file. Scripts that are not said write their name into the server's
# log; `about` is added to its `taskserv.toml`.
export def add-taskserv [name: string, about: record = {}, --scripts: record = {}]: record -> nothing {
    let folder = $in.directory | path join taskservs $name
    mkdir $folder
    {description: $"the ($name) of a test"} | merge $about | to toml | save --force ($folder | path join taskserv.toml)
    let usual = [install start verify] | each {|step| [$"($step).sh" $"echo ($name) ($step) >> \"$HOME/log\"\n"] } | into record
    $usual | merge $scripts | items {|file, text| $text | save --force ($folder | path join $file) } | ignore
}

# What the scripts have written down on a server.
export def log-of [server: string]: record -> list<string> {
    let file = $in.directory | path join homes $server log
    if ($file | path exists) { open --raw $file | decode utf-8 | lines } else { [] }
}

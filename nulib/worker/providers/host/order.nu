# Orders that can be relied on, and what a script's answer is made of: the same for every provider that
# runs scripts.

use ../../fault.nu
use ../../values.nu [is-label is-list is-mapping]

# An order about one server. What is none is refused for good.
export def about-server []: string -> record {
    let order = $in | about-infra
    if not ($order.server? | is-mapping) or not ($order.server.name? | is-label) { fault permanent "the order names no server" }
    $order
}

# An order about the servers of an infra.
export def about-servers []: string -> record {
    let order = $in | about-infra
    if not ($order.servers? | is-list) or not ($order.servers | all { ($in | is-mapping) and ($in.name? | is-label) }) {
        fault permanent "the order has no `servers`"
    }
    $order
}

def about-infra []: string -> record {
    let text = $in
    let order = try { $text | from json } catch { null }
    if not ($order | is-mapping) or not ($order.infra? | is-label) { fault permanent "the order is no JSON record with an `infra`" }
    $order
}

# The order `run`, checked.
export def about-script []: string -> record {
    $in | about-server | checked
}

# The order `run` with parts that can be relied on: a real folder, a file of it as the script, names
# that are names, values that are texts.
export def checked []: record -> record {
    let order = $in
    let folder = $order.folder? | default ""
    if ($folder | describe) != "string" or not ($folder starts-with "/") or ($folder | path type) != "dir" {
        fault permanent $"there is no folder '($folder)': name an existing one with its whole path"
    }
    let script = $order.script? | default ""
    let steps = if ($script | describe) == "string" { $script | path split } else { [] }
    if ($steps | is-empty) or ".." in $steps or ($script starts-with "/") or $script =~ '[\x00\r\n]' or ($folder | path join $script | path type) not-in ["file" "symlink"] {
        fault permanent $"the folder ($folder) has no script '($script)'"
    }
    let env_given = $order.env? | default {}
    for entry in ($env_given | transpose name value) {
        if $entry.name !~ '^[A-Za-z_][A-Za-z0-9_]*\z' { fault permanent $"'($entry.name)' cannot be the name of an environment variable" }
        if ($entry.value | describe) not-in ["string" "int" "bool"] or "\u{0}" in ($entry.value | into string) {
            fault permanent $"the value of ($entry.name) is no text"
        }
    }
    $order | upsert env ($env_given | items {|name, value| [$name ($value | into string)] } | into record)
}

# What two runs must share to wait for each other: the folder's own name, as far as a file can have it.
# It is the same folder wherever it was unpacked.
export def lock-name []: record -> string {
    $in.folder | path expand | path basename | str replace --all --regex '[^A-Za-z0-9._-]' '_' | str substring 0..<100
}

# The record that the last of a script's results is; nothing where it has none.
export def last-result []: list<string> -> any {
    let texts = $in
    if ($texts | is-empty) { return null }
    let value = try { $texts | last | from json } catch { null }
    if ($value | describe --detailed | get type) == "record" { $value } else { null }
}

# Environment variables as shell text. Their values may hold anything.
export def exports []: record -> string {
    $in | items {|name, value| $"export ($name)=($value | quoted)\n" } | str join
}

# A text as one word of a shell.
export def quoted []: string -> string {
    $"'($in | str replace --all "'" "'\\''")'"
}

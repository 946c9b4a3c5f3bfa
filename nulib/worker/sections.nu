# Checks values against the tables of schema.nu: what a mapping may hold, and what each value is.
#
# A mistake is a path and a sentence. Who reads the file says where the path is in it.

use schema.nu *
use values.nu *

# The mistakes of a mapping, by the table of its section.
export def check-section [name: string, value: any, path: list<any>]: nothing -> list<any> {
    let table = section $name
    let known = $table.key
    let unknown = $value | columns | where $it not-in $known | each {|key|
        let near = $known | where ($it | str distance $key) <= 2
        let hint = if ($near | is-empty) { "" } else { $": did you mean `($near.0)`?" }
        {path: ($path ++ [$key]), problem: $"unknown key `($key)` in ($path | in-words)($hint) \(allowed: ($known | str join ', '))"}
    }
    let missing = $table | where required and ($value | get --optional $it.key) == null | each {|row|
        {path: $path, problem: $"($path | in-words) has no `($row.key)`"}
    }
    let wrong = $table | where key in ($value | columns) | each {|row|
        let item = $value | get $row.key
        if $item == null {
            if $row.required { return [] }
            return [{path: ($path ++ [$row.key]), problem: $"`($row.key)` has no value: give it (type-in-words $row.type), or remove the line"}]
        }
        check-value ($row.type | split row ' ') $item ($path ++ [$row.key])
    } | flatten
    $unknown ++ $missing ++ $wrong
}

# The mistakes of a value, by its type.
export def check-value [type: list<string>, value: any, path: list<any>]: nothing -> list<any> {
    let arguments = $type | skip 1
    match ($type | first) {
        "section" => {
            if not ($value | is-mapping) { return (wrong-type $type $value $path) }
            check-section $arguments.0 $value $path
        }
        "list" => {
            if not ($value | is-list) { return (wrong-type $type $value $path) }
            $value | enumerate | each {|entry| check-value $arguments $entry.item ($path ++ [$entry.index]) } | flatten
        }
        "map" => {
            if not ($value | is-mapping) { return (wrong-type $type $value $path) }
            $value | items {|key, item|
                let here = $path ++ [$key]
                let rule = $key | key-rule $arguments.0
                let bad_key = if $rule == null { [] } else { [{path: $here, problem: $"`($key)` cannot be a key of ($path | in-words): ($rule)"}] }
                $bad_key ++ (check-value ($arguments | skip 1) $item $here)
            } | flatten
        }
        _ => { if ($value | fits $type) { [] } else { wrong-type $type $value $path } }
    }
}

def wrong-type [type: list<string>, value: any, path: list<any>]: nothing -> list<any> {
    [{path: $path, problem: $"`($path | in-words)` must be (type-in-words ($type | str join ' ')), not ($value | kind)"}]
}

# Why a text cannot be a key of a mapping; nothing where it can.
def key-rule [keys: string]: string -> any {
    let key = $in
    match $keys {
        "label" => { if not ($key | is-label) { $"use (type-in-words label)" } }
        "parameter" => { if $key !~ '^[a-z][a-z0-9_]*$' { "use a-z, digits and '_', beginning with a letter" } }
        "variable" => { if $key !~ '^[A-Za-z_][A-Za-z0-9_]*$' { "use letters, digits and '_', not beginning with a digit" } }
        "label-key" => {
            if $key starts-with "orchestrator." { "what begins with `orchestrator.` is taken"
            } else if $key !~ '^[A-Za-z0-9][A-Za-z0-9._/-]*$' { "use letters, digits and . _ / -" }
        }
    }
}

# A path as people write it, such as servers[0].image.
export def in-words []: list<any> -> string {
    let path = $in
    if ($path | is-empty) { return "the file" }
    $path | each {|step| if ($step | describe) == "int" { $"[($step)]" } else { $".($step)" } } | str join | str trim --left --char '.'
}

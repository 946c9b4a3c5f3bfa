# Reads a command line as shells know it, by the signature of a Nushell command. What is typed stays
# data: nothing is evaluated.

# What the words mean: the arguments in their order, one that is a list as a list, and a value for every flag that the command has;
# null where it was not given, so that the command's own default holds.
export def parse [
    words: list<string>     # What was typed after the command
    signature: table        # The command's parameters, as `scope commands` has them
]: nothing -> record<arguments: list<any>, flags: record> {
    let named = $signature | where parameter_type in [named switch]
    let positional = $signature | where parameter_type == positional
    let rest = $signature | where parameter_type == rest
    mut flags = $named | each {|flag| [$flag.parameter_name (if $flag.parameter_type == switch { false })] } | into record
    mut arguments = []
    mut waiting = $words
    mut only_arguments = false
    while ($waiting | is-not-empty) {
        let word = $waiting.0
        $waiting = $waiting | skip 1
        if $only_arguments or $word == "-" or $word not-starts-with "-" {
            $arguments ++= [$word]
            continue
        }
        if $word == "--" {
            $only_arguments = true
            continue
        }
        let written = $word | parse-flag
        let known = if $written.short { $named | where short_flag == $written.name } else { $named | where parameter_name == $written.name }
        if ($known | is-empty) { wrong $"there is no option ($written.shown)" }
        let flag = $known.0
        if $flag.parameter_type == switch {
            if $written.value != null { wrong $"($written.shown) takes no value" }
            $flags = $flags | upsert $flag.parameter_name true
            continue
        }
        let text = if $written.value != null { $written.value } else {
            if ($waiting | is-empty) { wrong $"($written.shown) needs a value" }
            let next = $waiting.0
            $waiting = $waiting | skip 1
            $next
        }
        let before = $flags | get $flag.parameter_name
        $flags = $flags | upsert $flag.parameter_name (value-of $written.shown $flag.syntax_shape $text $before)
    }
    let given = $arguments | length
    let missing = $positional | skip $given | where not $it.is_optional
    if ($missing | is-not-empty) { wrong $"($missing.0.parameter_name | str uppercase) is missing" }
    # A list takes all words that are left, with the brackets that it has in Nushell or without.
    let lists = $positional | enumerate | where $it.item.syntax_shape starts-with "list" | get index
    if ($lists | is-not-empty) {
        let before = $arguments | first ([$given $lists.0] | math min)
        return {arguments: ($before ++ [($arguments | skip $lists.0 | as-list)]), flags: $flags}
    }
    if $given > ($positional | length) and ($rest | is-empty) { wrong $"'($arguments | last)' is one argument too many" }
    {arguments: $arguments, flags: $flags}
}

# The names in words such as `[a b]`, `a,b` or `a b`.
def as-list []: list<string> -> list<string> {
    str join " " | str trim | str replace --regex '^\[(.*)\]$' '$1' | split row --regex '[ ,]+' | where $it != ""
}

# `--name`, `--name=value` or `-n`.
def parse-flag []: string -> record<name: string, shown: string, value: any, short: bool> {
    let word = $in
    if $word starts-with "--" {
        let parts = $word | str substring 2.. | split row --number 2 "="
        {name: $parts.0, shown: $"--($parts.0)", value: ($parts | get --optional 1), short: false}
    } else {
        {name: ($word | str substring 1..), shown: $word, value: null, short: true}
    }
}

# A text as the value that the flag takes. A record is given as `key=value`, as often as it has keys; a flag
# that takes anything is a list, given as often as it has items.
def value-of [flag: string, shape: string, text: string, before: any]: nothing -> any {
    match $shape {
        "int" => { try { $text | into int } catch { wrong $"($flag) needs a whole number, not '($text)'" } }
        "filesize" => { try { $text | into filesize } catch { wrong $"($flag) needs a size such as 512MiB, not '($text)'" } }
        # One of these may be given as often as needed.
        "any" => { $before | default [] | append $text }
        "duration" => {
            # Nushell takes a bare number for nanoseconds, which nobody means.
            if $text =~ '^[+-]?[0-9]+$' { wrong $"($flag) needs a time with its unit, such as 10min, not '($text)'" }
            try { $text | into duration } catch { wrong $"($flag) needs a time such as 10min, not '($text)'" }
        }
        "record" => {
            let parts = $text | split row --number 2 "="
            if ($parts | length) != 2 or ($parts.0 | is-empty) { wrong $"($flag) needs KEY=VALUE" }
            $before | default {} | upsert $parts.0 $parts.1
        }
        _ => $text
    }
}

# Ends the reading: the command line is wrong.
export def wrong [message: string]: nothing -> any {
    error make --unspanned {msg: $message, code: "provisioning::usage"}
}

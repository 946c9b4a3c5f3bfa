# What a script can say to the engine that runs it, and what the engine hands to the script.
#
# A line that begins with `::` is a word to the engine; every other line is log. These commands write
# the words so that a value can never break a line in two or be taken for another word. Without an
# engine they print the same lines and nothing more, so a script can be tried by hand.

# The shortest value that the engine masks, in characters: a shorter one would blot out half of the log.
const SHORTEST_MASK = 4

# What the engine keeps of a result, in bytes.
const LARGEST_RESULT = 1MiB

# Says how far the work is: `3` of `10`, or a percentage, or only what is going on.
@example "three of ten are done" { progress "copied web.conf" --done 3 --of 10 }
@example "nearly half is done" { progress --percent 45 }
export def progress [
    message: string = ""    # What was just done, or is being done
    --done: int             # How many steps are done
    --of: int               # How many steps there are
    --percent: int          # How much is done, from 0 to 100; instead of --done and --of
]: nothing -> nothing {
    let measure = match [$done $of $percent] {
        [null null null] => {
            if ($message | is-empty) { error make --unspanned {msg: "progress needs a message, --percent, or --done and --of"} }
            ""
        }
        [null null $p] => {
            if $p not-in 0..100 { error make --unspanned {msg: $"($p) is not a percentage: use 0 to 100"} }
            $"($p)%"
        }
        [$d $o null] if $d != null and $o != null => {
            if $o < 1 or $d not-in 0..$o { error make --unspanned {msg: $"($d) of ($o) is no progress: use 0 to ($o) of at least 1"} }
            $"($d)/($o)"
        }
        _ => { error make --unspanned {msg: "progress takes --percent, or --done together with --of"} }
    }
    print (["::progress" $measure (one-line $message)] | where ($it | is-not-empty) | str join " ")
}

# Hands over the result of the task: any value that JSON can hold. The last one counts.
@example "a result" { {servers: 2, ready: true} | result }
export def result [value?: any]: [any -> nothing, nothing -> nothing] {
    let given = if $value == null { $in } else { $value }
    let json = $given | to json --raw
    if ($json | str length --utf-8-bytes | into filesize) > $LARGEST_RESULT {
        error make --unspanned {msg: $"the result has more than ($LARGEST_RESULT)", help: "write it to a file and hand over the file's name"}
    }
    print $"::result ($json)"
}

# Keeps a value out of everything that is stored of this attempt's output, from here on.
@example "a password that the script has just made" { mask (random chars --length 24) }
export def mask [value: string]: nothing -> nothing {
    let lines = $value | lines | str trim | where ($it | str length --chars) >= $SHORTEST_MASK
    if ($lines | is-empty) {
        error make --unspanned {msg: $"a value of fewer than ($SHORTEST_MASK) characters cannot be masked", help: "take a longer secret"}
    }
    for line in $lines { print $"::mask ($line)" }
}

# Ends the script as failed, with the reason. The engine tries again unless the failure is permanent.
@example "no point in trying again" { fail "web-01 is not in the settings file" --permanent }
export def fail [
    message: string     # Why
    --permanent         # Trying again would not help
]: nothing -> any {
    announce-failure $message --permanent=$permanent
    error make --unspanned {msg: $message}
}

# Says why the script fails, without ending it: for a script that ends in its own way.
export def announce-failure [message: string, --permanent]: nothing -> nothing {
    let line = one-line $message
    if $permanent {
        print $"::fail permanent ($line)"
    } else if $line starts-with "permanent" {
        # The word after `::fail` must not be taken from the message.
        print $"::fail failed: ($line)"
    } else {
        print $"::fail ($line)"
    }
}

# The task's parameters, as they were submitted. Pipe the input of `main` into it: parameters of more
# than 64 KiB come on standard input only.
@example "in a script" { def main [] { let params = $in | params; print $params.region } }
export def params []: any -> any {
    let given = $in
    let text = if ($given | is-empty) { $env.ORCHESTRATOR_PARAMS? | default "" } else { $given }
    if ($text | is-empty) { return {} }
    try { $text | from json } catch { error make --unspanned {msg: "the task's parameters are not JSON"} }
}

# The task's secrets, by name.
@example "all of them" { (secrets).database_password }
export def secrets []: nothing -> record {
    let path = $env.ORCHESTRATOR_SECRETS? | default ""
    if ($path | is-empty) { return {} }
    open --raw $path | decode utf-8 | from json
}

# One secret of the task.
@example "one of them" { secret database_password }
export def secret [name: string]: nothing -> string {
    let all = secrets
    if $name not-in ($all | columns) {
        let known = if ($all | is-empty) { "the task has none" } else { $"the task has ($all | columns | str join ', ')" }
        error make --unspanned {msg: $"the task has no secret '($name)'", help: $"($known); submit it with `--secret {($name): 'env:VARIABLE'}`"}
    }
    $all | get $name
}

# A text without what would end the line.
def one-line [text: string]: nothing -> string {
    $text | str replace --all --regex '[\r\n\x0b\x0c\x{85}\x{2028}\x{2029}]+' ' ' | str trim
}

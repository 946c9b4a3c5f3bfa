# Finds the line of a YAML text on which a value stands, so that a message can show it.
#
# It reads the layout only (indentation, dashes, keys) and is called when there is something to
# report; what the text means is for Nushell's own reader to say. What stands inside brackets or comes
# by an alias is reported with the line of what holds it.

# A text with the places of its keys and list items, to find several things in.
export def layout []: string -> record<lines: list<string>, entries: table> {
    {lines: ($in | lines), entries: ($in | entries)}
}

# The line on which the value with this path stands, and the column (from 1) at which its key or its
# dash begins. The path holds keys and list positions, such as [servers 0 image]. What the text does
# not hold is reported with the innermost thing around it that it does hold.
export def locate-path [path: list]: record<lines: list<string>, entries: table> -> record<line: int, column: int, text: string> {
    let text = $in
    for length in ($path | length)..<0 {
        let prefix = $path | first $length
        let found = $text.entries | where path == $prefix
        if ($found | is-empty) { continue }
        let entry = $found | first
        let here = $text.lines | at $entry.line $entry.column
        let keys = $path | skip $length | where ($it | describe) == "string"
        if ($keys | is-empty) { return $here }
        # The keys are not laid out on lines of their own: look for one after the other between
        # brackets below.
        let next = $text.entries | where line > $entry.line and column <= $entry.column
        let end = if ($next | is-empty) { $text.lines | length } else { $next.0.line - 1 }
        mut place = $here
        for key in $keys {
            let found = $text.lines | find-key $key $place $end
            if $found == null { break }
            $place = $found
        }
        return $place
    }
    $text.lines | at 1 1
}

# The next place of a key, up to a line; nothing where there is none.
def find-key [key: string, after: record, end: int]: list<string> -> any {
    let lines = $in
    let pattern = '^(?P<before>.*?[\s{,"\x27]|)' + ($key | escape-regex) + '["\x27]?\s*:'
    for number in $after.line..$end {
        let skip = if $number == $after.line { $after.column - 1 } else { 0 }
        let match = $lines | get ($number - 1) | str substring $skip.. | parse --regex $pattern
        if ($match | is-not-empty) { return ($lines | at $number ($skip + ($match.0.before | str length) + 1)) }
    }
    null
}

# The line on which a mapping names this key for the second time; nothing where none does.
export def locate-duplicate [key: string]: record<lines: list<string>, entries: table> -> any {
    let text = $in
    let again = $text.entries | where ($it.path | is-not-empty) and ($it.path | last) == $key
        | group-by { $in.path | to json --raw } | values | where ($it | length) > 1
    if ($again | is-empty) { return null }
    $text.lines | at $again.0.1.line $again.0.1.column
}

# The line with its number and a column in it.
export def at [line: int, column: int]: list<string> -> record<line: int, column: int, text: string> {
    {line: $line, column: $column, text: ($in | get --optional ($line - 1) | default "")}
}

# Every key and list item of the text, with its path and place.
export def entries []: string -> table<path: list<any>, line: int, column: int> {
    mut found = []
    mut stack = []
    mut number = 0
    # The indentation of the key whose block of text (`|` or `>`) is being skipped.
    mut text_block: oneof<int, nothing> = null
    for line in ($in | lines) {
        $number += 1
        mut rest = $line | str trim --right
        mut column = ($rest | str length) - ($rest | str trim --left | str length)
        $rest = $rest | str trim --left
        if ($rest | is-empty) { continue }
        if $text_block != null {
            if $column > $text_block { continue }
            $text_block = null
        }
        if ($rest starts-with "#") or $rest in ["---" "..."] { continue }
        while ($rest == "-") or ($rest starts-with "- ") {
            let here = $column
            $stack = $stack | where indent < $here or ($it.indent == $here)
            let same = ($stack | is-not-empty) and ($stack | last).indent == $here and ($stack | last).kind == "list"
            if $same {
                let top = $stack | last
                $stack = ($stack | drop) ++ [($top | update current ($top.current + 1))]
            } else {
                $stack ++= [{indent: $here, kind: "list", base: ($stack | top-path), current: 0}]
            }
            $found ++= [{path: ($stack | top-path), line: $number, column: ($here + 1)}]
            let after = $rest | str substring 1.. | str trim --left
            $column += ($rest | str length) - ($after | str length)
            $rest = $after
        }
        let key = $rest | read-key
        if $key == null { continue }
        let here = $column
        $stack = $stack | where indent < $here or ($it.indent == $here and $it.kind == "map")
        if ($stack | is-not-empty) and ($stack | last).indent == $here {
            $stack = ($stack | drop) ++ [($stack | last | update current $key.name)]
        } else {
            $stack ++= [{indent: $here, kind: "map", base: ($stack | top-path), current: $key.name}]
        }
        $found ++= [{path: ($stack | top-path), line: $number, column: ($here + 1)}]
        if $key.value =~ '^(?:[&!]\S*\s+)*[|>][-+0-9]*(?:\s+#.*)?$' { $text_block = $here }
    }
    $found
}

# The path of the innermost open item.
def top-path []: list<any> -> list<any> {
    if ($in | is-empty) { [] } else { $in | last | $in.base ++ [$in.current] }
}

# The key at the beginning of a text, and what follows its colon; nothing where there is none.
def read-key []: string -> any {
    let match = $in | parse --regex `^(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<plain>[^\s"'\[\]{}#&*!|>%@,-][^#]*?|-[^\s#][^#]*?))\s*:(?:\s+(?P<value>.*))?$`
    if ($match | is-empty) { return null }
    let m = $match.0
    {name: $"($m.double)($m.single)($m.plain)", value: ($m.value | default "")}
}

def escape-regex []: string -> string {
    $in | str replace --all --regex '([\\.+*?()\[\]{}^$|#-])' '\$1'
}

# The values of a settings file that are more than a text: what they are, and whether they are right.

use schema.nu [CAPABILITIES PROVIDERS]

# What kind of thing a value is, for messages.
export def kind []: any -> string {
    let value = $in
    if ($value | is-endless) { return "an endless number: a text that holds `.inf` or `.nan` needs quotes" }
    match ($value | describe --detailed | get type) {
        "record" => $"the mapping ($value | in-short)"
        "list" | "table" => $"the list ($value | in-short)"
        "string" => (if ($value | is-empty) { "an empty text" } else { $"the text '($value | str replace --all "\n" ' ')'" })
        "int" | "float" => $"the number ($value)"
        "bool" => $"($value)"
        "nothing" => "nothing"
        $other => $"a ($other)"
    }
}

def in-short []: any -> string {
    let text = $in | to json --raw
    if ($text | str length) <= 40 { $text } else { $"($text | str substring 0..38)…" }
}

# Whether a value is, or holds, a float that is no number. Nushell's reader of YAML makes one of every
# unquoted text that has `.inf` or `.nan` in it, such as `db.infra.example`.
export def is-endless []: any -> bool {
    let value = $in
    match ($value | describe --detailed | get type) {
        "float" => ($"($value)" =~ '(?i)inf|nan')
        "record" => ($value | values | any { is-endless })
        "list" | "table" => ($value | any { is-endless })
        _ => false
    }
}

# Names in a row, for messages.
export def listed []: list<any> -> string {
    let names = $in
    if ($names | is-empty) { "none" } else { $names | str join ", " }
}

# Whether a value is a mapping.
export def is-mapping []: any -> bool {
    ($in | describe --detailed | get type) == "record"
}

# Whether a value is a list.
export def is-list []: any -> bool {
    ($in | describe --detailed | get type) in ["list" "table"]
}

# Whether a value is a DNS label (RFC 1123): what names infras, servers, networks and clusters.
export def is-label []: any -> bool {
    ($in | describe) == "string" and $in =~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\z'
}

# Whether a value is of a type of schema.nu that is neither a section nor a list nor a map.
export def fits [type: list<string>]: any -> bool {
    let value = $in
    let kind = $value | describe
    let text = $kind == "string" and ($value | is-not-empty) and "\u{0}" not-in $value
    match $type.0 {
        "label" => ($value | is-label)
        "text" => ($text and $value !~ '[\r\n]')
        "boolean" => ($kind == "bool")
        "integer" => ($kind == "int" and $value >= ($type.1 | into int) and $value <= ($type.2 | into int))
        "choice" => ($text and $value in ($type | skip 1))
        "subnet" => ($text and ($value | is-subnet))
        "address" => ($text and ($value | is-address))
        "image" => ($text and $value =~ '^[A-Za-z0-9][A-Za-z0-9._/:@-]*\z')
        "provider" => ($text and (($value | is-provider-path) or $value =~ '^[a-z0-9-]+\z'))
        "command" => ($text or (($value | is-list) and ($value | is-not-empty) and ($value | all { $in | is-argument })))
        "port" => (($value | parse-port) != null)
        "volume" => ($text and ($value | parse-volume) != null)
        "value" => ($kind in ["string" "int" "bool"] and ($kind != "string" or "\u{0}" not-in $value))
        "anything" => (not ($value | is-endless))
        "port-or-parameter" => (($kind == "int" and $value in 1..65535) or ($text and $value =~ '^[a-z][a-z0-9_]*\z'))
        "capability" => ($text and $value in $CAPABILITIES)
        "parameter-type" => ($text and $value =~ '^(text|boolean|label|address|integer -?\d{1,18} -?\d{1,18}|choice( \S+)+)\z')
    }
}

def is-argument []: any -> bool {
    ($in | describe) == "string" and "\u{0}" not-in $in
}

# Whether a text names a provider of the user's own.
export def is-provider-path []: string -> bool {
    ("/" in $in) or ($in ends-with ".nu")
}

# A path made absolute, seen from a folder.
export def "path expand-from" [folder: string]: string -> string {
    # `~` is the user's own folder, wherever the path is seen from.
    let path = if ($in | str starts-with "~") { $in | path expand --no-symlink } else { $in }
    $folder | path join $path | path expand --no-symlink
}

# A published port: the host's address and port where they are said, the server's port, the protocol.
# Nothing where the value is no port.
export def parse-port []: any -> any {
    let value = $in
    if ($value | describe) not-in ["string" "int"] { return null }
    let found = $value | into string | parse --regex '^(?:(?:(?P<address>\d+\.\d+\.\d+\.\d+):)?(?P<host>\d{1,5}):)?(?P<server>\d{1,5})(?:/(?P<protocol>tcp|udp|sctp))?\z'
    if ($found | is-empty) { return null }
    let found = $found.0
    let ports = [$found.host $found.server] | where ($it | is-not-empty) | into int
    if ($ports | any { $in < 1 or $in > 65535 }) { return null }
    if ($found.address | is-not-empty) and not ($found.address | is-address) { return null }
    {
        address: ($found.address | default --empty null)
        host: (if ($found.host | is-empty) { null } else { $found.host | into int })
        server: ($found.server | into int)
        protocol: ($found.protocol | default --empty "tcp")
    }
}

# A volume: a path of the host (`bind`) or a name (`volume`), the path in the server, and whether it is
# read-only. Nothing where the text is no volume.
export def parse-volume []: string -> any {
    let found = $in | parse --regex '^(?P<source>[^:,"\r\n]+):(?P<target>/[^:,"\r\n]*)(?::(?P<mode>ro|rw))?\z'
    if ($found | is-empty) { return null }
    let found = $found.0
    let kind = if $found.source =~ '^\.{0,2}/' { "bind" } else if ($found.source | is-label) { "volume" } else { return null }
    {kind: $kind, source: $found.source, target: $found.target, read_only: ($found.mode == "ro")}
}

# Whether a text is an IPv4 address.
export def is-address []: string -> bool {
    $in =~ '^\d{1,3}(\.\d{1,3}){3}\z' and ($in | split row '.' | all { ($in | into int) <= 255 })
}

# Whether a text is an IPv4 network with room for a server: an address whose host part is zero, and a
# prefix of 8 to 29 bits.
export def is-subnet []: string -> bool {
    let parts = $in | split row '/'
    if ($parts | length) != 2 or not ($parts.0 | is-address) or $parts.1 !~ '^\d{1,2}\z' { return false }
    let bits = $parts.1 | into int
    $bits in 8..29 and (($parts.0 | address-number) mod (2 ** (32 - $bits))) == 0
}

# An address as a number.
export def address-number []: string -> int {
    $in | split row '.' | into int | reduce --fold 0 {|part, number| $number * 256 + $part }
}

# A number as an address.
export def number-address []: int -> string {
    let number = $in
    [24 16 8 0] | each {|shift| ($number | bits shr $shift) mod 256 } | str join '.'
}

# The first and the last address of a network, as numbers.
export def subnet-range []: string -> record<first: int, last: int> {
    let parts = $in | split row '/'
    let first = $parts.0 | address-number
    {first: $first, last: ($first + 2 ** (32 - ($parts.1 | into int)) - 1)}
}

# Whether two ranges of addresses share one.
export def overlaps [other: record<first: int, last: int>]: record<first: int, last: int> -> bool {
    $in.first <= $other.last and $other.first <= $in.last
}

# Reads a settings file: the only place where its text becomes servers.
#
# `load` returns servers with everything filled in, or fails with every mistake of the file, each with
# its line. What may stand in a file is in schema.nu; values that must fit each other (a network that a
# server names, an address in a subnet) are checked here.

use fault.nu
use schema.nu *
use sections.nu *
use values.nu *
use yaml_lines.nu *

# How many mistakes are shown at once.
const SHOWN = 20

# What the file describes, with defaults filled in and paths made absolute. `names` are the names of all
# servers. With `--only`, the others are not looked at beyond their names, so that one of a thousand
# servers costs no more than one; with `--mates` those are that share a cluster with one of them.
export def load [
    path: string            # The settings file
    --infra: string         # The infra that is asked for; the file's own where it says one
    --only: list<string>    # The servers that are asked for; all of them otherwise
    --mates                 # And the other servers of their clusters
]: nothing -> record<file: string, infra: string, names: list<string>, networks: table, servers: table, clusters: table> {
    let file = $path | path expand
    let text = read-text $file
    let settings = parse-text $file $text
    let only = if $mates and $only != null { $only ++ ($settings | mates $only) } else { $only }
    let entries = choose-servers $settings $only
    let problems = (check-section settings (if ($settings.servers? | default [] | is-list) { $settings | upsert servers [] } else { $settings }) []) ++ ($entries | each {|entry|
        check-value [section server] $entry.item [servers $entry.index]
    } | flatten)
    if ($problems | is-not-empty) { refuse $file $text $problems }
    let infra = agree-on-infra $file $text $settings.infra? $infra
    let defaults = $settings.defaults? | default {}
    let folder = $file | path dirname
    let servers = $entries | each {|entry| complete-server $entry.item $defaults $folder | insert index $entry.index }
    let networks = {default: {}} | merge ($settings.networks? | default {}) | items {|name, network|
        {name: $name, subnet: $network.subnet?, internal: ($network.internal? | default false)}
    }
    let problems = check-relations $settings $servers $networks
    if ($problems | is-not-empty) { refuse $file $text $problems }
    {
        file: $file
        infra: $infra
        names: ($settings | server-names)
        networks: $networks
        servers: ($servers | reject --optional index)
        clusters: ($settings.clusters? | default [] | each {|cluster| {type: null, taskservs: [], taskserv_options: {}} | merge $cluster })
    }
}

# The entries of the servers that are asked for, with their positions in the file. Entries of a file
# that is wrong in its outline are left to the check.
def choose-servers [settings: record, only: any]: nothing -> table<index: int, item: any> {
    let servers = $settings.servers? | default []
    if not ($servers | is-list) { return [] }
    let all = $servers | enumerate
    if $only == null { return $all }
    $all | where not ($it.item | is-mapping) or ($it.item.name? == null) or $it.item.name in $only
}

# The servers that share a cluster with one of these. Clusters that are wrong are left to the check.
def mates [names: list<any>]: record -> list<any> {
    let clusters = $in.clusters? | default []
    if not ($clusters | is-list) { return [] }
    let members = $clusters | where ($it | is-mapping) | get --optional servers | where ($it | is-list)
    $members | where {|servers| $servers | any { $in in $names } } | flatten | uniq
}

# The names of all servers, those of entries without one left out.
def server-names []: record -> list<any> {
    $in.servers? | default [] | where ($it | is-mapping) | get --optional name | compact
}

def read-text [file: string]: nothing -> string {
    match ($file | path type) {
        null => { fault permanent $"there is no settings file ($file)" }
        "dir" => { fault permanent $"($file) is a directory: name the settings file in it" }
        _ => {
            try { open --raw $file | decode utf-8 } catch {|error|
                fault permanent $"the settings file ($file) cannot be read: ($error.msg)"
            }
        }
    }
}

# The text's mapping. What the reader of YAML refuses is reported with the line that it names.
def parse-text [file: string, text: string]: nothing -> record {
    let settings = try { $text | from yaml --key-resolution verbatim } catch {|error| refuse-syntax $file $text $error }
    if $settings == null { fault permanent $"the settings file ($file) is empty" }
    if not ($settings | is-mapping) {
        fault permanent $"($file): a settings file is one mapping, and this is ($settings | kind)"
    }
    $settings
}

def refuse-syntax [file: string, text: string, error: record]: nothing -> any {
    let report = $error.rendered | str replace --all --regex '\n\s*\|?\s*' ' '
    let cause = $report | parse --regex '`->\s+x\s+(?P<what>.*?)\s+at char \d+ line (?P<line>\d+) column (?P<column>\d+)'
    if ($cause | is-not-empty) {
        let cause = $cause.0
        # The reader counts columns from 0.
        let place = $text | lines | at ($cause.line | into int) (($cause.column | into int) + 1)
        return (refuse-at $file [{place: $place, problem: $"this is not YAML: ($cause.what)"}])
    }
    let what = $error.details.labels.0?.text? | default $error.msg
    let key = $what | parse --regex 'The key "(?P<key>.*)" already appeared' | get --optional 0.key
    let place = if $key == null { null } else { $text | layout | locate-duplicate $key }
    if $place != null {
        return (refuse-at $file [{place: $place, problem: $"the key `($key)` is here for the second time"}])
    }
    fault permanent $"($file): ($what)"
}

# Fails with these problems, each a path and a sentence.
def refuse [file: string, text: string, problems: list<any>]: nothing -> any {
    let layout = $text | layout
    refuse-at $file ($problems | each {|problem| {place: ($layout | locate-path $problem.path), problem: $problem.problem} })
}

# Fails with these problems, each a place and a sentence.
def refuse-at [file: string, problems: list<any>]: nothing -> any {
    let problems = $problems | uniq | sort-by place.line place.column
    let name = $file | path basename
    let first = $problems.0
    let others = if ($problems | length) == 1 { "" } else { $" \(and (($problems | length) - 1) more)" }
    let shown = $problems | first $SHOWN | each {|problem|
        let number = $problem.place.line | into string
        let margin = "" | fill --width ($number | str length)
        # Columns are counted in bytes where they are found, and in characters where they are shown.
        let before = $problem.place.text | str substring 0..<($problem.place.column - 1) | str length --chars
        let pointer = "" | fill --width $before
        [
            $"($file):($number):($before + 1): ($problem.problem)"
            $" ($number) | ($problem.place.text | str replace --all "\t" ' ')"
            $" ($margin) | ($pointer)^"
        ] | str join (char newline)
    }
    let rest = ($problems | length) - ($shown | length)
    let rest = if $rest > 0 { [$"… and ($rest) more"] } else { [] }
    (fault permanent $"($name):($first.place.line): ($first.problem)($others): `($first.place.text | str trim)`"
        --details ($shown ++ $rest | str join (char newline)))
}

def agree-on-infra [file: string, text: string, own: any, asked: any]: nothing -> string {
    if $asked != null and not ($asked | is-label) {
        fault permanent $"'($asked)' is not a name for an infra: use (type-in-words label)"
    }
    if $own == null and $asked == null {
        fault permanent $"($file) does not say its `infra`: name one with --infra"
    }
    if $own != null and $asked != null and $own != $asked {
        refuse $file $text [{path: [infra], problem: $"the file describes infra '($own)', not '($asked)'"}]
    }
    $own | default $asked
}

# A server with everything that it and the defaults leave out.
def complete-server [server: record, defaults: record, folder: string]: nothing -> record {
    let merged = $MERGED | each {|key| [$key ($defaults | get --optional $key | default {} | merge ($server | get --optional $key | default {}))] } | into record
    let whole = $SERVER_DEFAULTS | merge $defaults | merge $server | merge $merged
    let provider = if ($whole.provider | is-provider-path) { $whole.provider | path expand-from $folder } else { $whole.provider }
    $whole | merge {
        provider: $provider
        command: (if ($whole.command | is-list) { $whole.command } else { [sh -c $whole.command] })
        resources: ($RESOURCE_DEFAULTS | merge $whole.resources)
        ports: ($whole.ports | each { parse-port })
        volumes: ($whole.volumes | each { parse-volume } | each {|volume|
            if $volume.kind == "bind" { $volume | update source { path expand-from $folder } } else { $volume }
        })
        env: ($whole.env | as-texts)
        ssh: ($whole.ssh | items {|key, value|
            [$key (if $key in [identity_file known_hosts_file] { $value | path expand-from $folder } else { $value })]
        } | into record)
        labels: ($whole.labels | as-texts)
    } | select name ...($SERVER_DEFAULTS | columns)
}

def as-texts []: record -> record {
    $in | items {|key, value| [$key ($value | into string)] } | into record
}

# What must fit together.
def check-relations [settings: record, servers: list<any>, networks: list<any>]: nothing -> list<any> {
    [
        ...(check-unique ($settings | server-names) [servers])
        ...(check-unique ($settings.clusters? | default [] | get --optional name) [clusters])
        ...($networks | check-subnets)
        ...($servers | check-providers $settings)
        ...($servers | check-networks $settings $networks)
        ...($settings.clusters? | default [] | check-clusters ($settings | server-names))
    ]
}

# A name that comes again in a list.
def check-unique [values: list<any>, path: list<any>]: nothing -> list<any> {
    $values | uniq --repeated | each {|value|
        let places = $values | enumerate | where item == $value
        $places | skip 1 | each {|place|
            {path: ($path ++ [$place.index name]), problem: $"`($path | in-words)` has '($value)' more than once"}
        }
    } | flatten
}

# Networks whose addresses are no network, or another's.
def check-subnets []: list<any> -> list<any> {
    let networks = $in | where subnet != null | each {|network| $network | insert range ($network.subnet | subnet-range) }
    $networks | enumerate | each {|entry|
        let path = [networks $entry.item.name subnet]
        $networks | skip ($entry.index + 1) | where ($it.range | overlaps $entry.item.range) | each {|other|
            {path: [networks $other.name subnet], problem: $"the networks '($entry.item.name)' and '($other.name)' share addresses: ($entry.item.subnet) and ($other.subnet)"}
        }
    } | flatten
}

# Providers that do not exist, or need what a server does not say.
def check-providers [settings: record]: list<any> -> list<any> {
    $in | each {|server|
        let path = [servers $server.index]
        let known = $PROVIDERS | where name == $server.provider
        if ($server.provider | is-provider-path) {
            if ($server.provider | path type) != "file" {
                return [{path: ($settings | where-said $path provider), problem: $"there is no provider ($server.provider)"}]
            }
            return []
        }
        if ($known | is-empty) {
            return [{path: ($settings | where-said $path provider), problem: $"there is no provider '($server.provider)': use ($PROVIDERS.name | str join ', '), or the path of your own"}]
        }
        let needs = $known.0.needs | where ($server | get $it | is-empty) | each {|key|
            {path: $path, problem: $"server '($server.name)' has no `($key)`, which provider '($server.provider)' needs"}
        }
        let refuses = $known.0.refuses | where ($server | get $it | is-not-empty) | each {|key|
            {path: ($settings | where-said $path $key), problem: $"provider '($server.provider)' has no use for `($key)`: server '($server.name)'"}
        }
        $needs ++ $refuses
    } | flatten
}

# Networks that no one describes, and addresses that do not lie in theirs or are taken twice.
def check-networks [settings: record, networks: list<any>]: list<any> -> list<any> {
    let servers = $in
    $servers | each {|server|
        let path = [servers $server.index]
        let network = $networks | where name == $server.network
        if ($network | is-empty) {
            return [{path: ($settings | where-said $path network), problem: $"server '($server.name)' is on network '($server.network)', which the file does not describe \(there is ($networks.name | str join ', '))"}]
        }
        if $server.address == null { return [] }
        let here = $path ++ [address]
        let subnet = $network.0.subnet
        if $subnet == null {
            return [{path: $here, problem: $"server '($server.name)' wants the address ($server.address), so its network '($server.network)' needs a `subnet`"}]
        }
        let taken = $servers | where index < $server.index and network == $server.network and address == $server.address
        if ($taken | is-not-empty) {
            return [{path: $here, problem: $"the servers '($taken.0.name)' and '($server.name)' want the same address ($server.address)"}]
        }
        let range = $subnet | subnet-range
        let number = $server.address | address-number
        # The first address names the network, the second is the gateway's, the last reaches all.
        if $number < $range.first + 2 or $number > $range.last - 1 {
            return [{path: $here, problem: $"server '($server.name)' cannot have the address ($server.address): use one from (($range.first + 2) | number-address) to (($range.last - 1) | number-address)"}]
        }
        []
    } | flatten
}

# Servers of clusters that no one describes.
def check-clusters [names: list<any>]: list<any> -> list<any> {
    $in | enumerate | each {|entry|
        $entry.item.servers | enumerate | where item not-in $names | each {|server|
            {path: [clusters $entry.index servers $server.index], problem: $"cluster '($entry.item.name)' names server '($server.item)', which the file does not describe"}
        }
    } | flatten
}

# The path at which a key of a server was said: in the server, else in the defaults.
def where-said [server: list<any>, key: string]: record -> list<any> {
    let settings = $in
    if $key in ($settings.servers | get $server.1 | columns) { return ($server ++ [$key]) }
    if $key in ($settings.defaults? | default {} | columns) { return [defaults $key] }
    $server
}

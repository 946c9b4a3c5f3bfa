# What a settings file and a `taskserv.toml` may hold: one table a section. The check of a file, the
# messages about its mistakes and the tables in the documentation all come from here.
#
# A type is a word with its arguments:
#   label                   a DNS label: 1 to 63 of a-z, 0-9 and '-', no '-' at either end
#   text                    a text on one line, not empty
#   boolean                 true or false
#   integer MIN MAX         a whole number within the bounds
#   choice A B …            one of the words
#   subnet, address         an IPv4 network such as 10.80.0.0/24, an IPv4 address
#   image                   the name of an image
#   provider                a provider's name, or the path of the user's own
#   command                 a list of texts, or one text for `sh -c`
#   port, volume            see the table
#   value                   a text, a whole number or a boolean; taken as text
#   anything                whatever the provider makes of it
#   port-or-parameter       the number of a port, or the name of the parameter that says it
#   parameter-type          one of these types, for the value of a parameter
#   section NAME            a mapping with the keys of that section
#   list TYPE               a list
#   map KEYS TYPE           a mapping whose keys are `label`s, `variable` names, `label-key`s or names of
#                           `parameter`s

export const SECTIONS = {
    settings: [
        [key required type about];
        [infra false "label" "The infrastructure that the file describes. `--infra` may repeat it, and must be given where the file does not say it."]
        [defaults false "section defaults" "What every server has unless it says otherwise: the keys of a server, except `name`, `address` and `taskserv_options`. `resources`, `labels`, `env`, `ssh` and `options` are taken over key by key, all else as a whole."]
        [networks false "map label section network" "The networks that servers can be on, by name. A network `default` always exists; naming it here changes it."]
        [servers false "list section server" "The servers."]
        [clusters false "list section cluster" "Servers that belong together."]
    ]
    server: [
        [key required type about];
        [name true "label" "Its name, unique in the file. Also its host name, and the name that other servers on its network reach it by."]
        [provider false "provider" "Who makes it: `docker` (the default), `ssh` (an existing machine), `local` (this machine), or the path of a provider of your own, relative to the settings file."]
        [image false "image" "The image that it is made from. `docker` needs one."]
        [pull false "choice never missing" "Whether an image that the machine does not have is fetched: `never` (the default) or `missing`."]
        [host false "text" "The address of an existing machine: a name or an IP address. `ssh` needs one, `docker` and `local` take none."]
        [ssh false "section ssh" "How that machine is reached. Only for `ssh` and providers of your own."]
        [command false "command" "What it runs: a list of words, or one text for `sh -c`. The default is `sleep infinity`."]
        [resources false "section resources" "How much it may use."]
        [network false "label" "The network that it is on. The default is `default`."]
        [address false "address" "Its address, where it must be a certain one. Its network needs a `subnet` then."]
        [ports false "list port" "Ports that the host passes on: `8080:80`, `127.0.0.1:8080:80`, `53:53/udp`, or `80` for a free port of the host."]
        [volumes false "list volume" "`/path/on/host:/path` or `./beside/the/settings:/path`, both of which must exist, or `name:/path` for a volume that outlives the server. `:ro` at the end makes it read-only."]
        [env false "map variable value" "Environment variables of what it runs. They are kept readable with the server: no place for secrets."]
        [labels false "map label-key value" "Labels of your own. `orchestrator.` at the beginning is taken."]
        [restart false "choice no on-failure always unless-stopped" "When it is started again after it has ended. The default is `unless-stopped`."]
        [taskservs false "list label" "The taskservs that belong on it. Creating the server does not install them."]
        [taskserv_options false "map label map parameter value" "Parameters of its taskservs, by the taskserv's name: `redis: {port: 6380}`. They come before those of its clusters."]
        [options false "map label-key anything" "Handed to a provider of your own as it is. The others take none."]
    ]
    resources: [
        [key required type about];
        [cpu_millicores false "integer 10 1024000" "Processor time, in thousandths of a processor. Without it there is no limit."]
        [memory_mb false "integer 6 16777216" "Memory, in MiB, without swap on top. Without it there is no limit."]
        [disk_mb false "integer 16 1073741824" "The size of its own file system, in MiB. Refused where the daemon cannot enforce it."]
        [max_processes false "integer 1 4194304" "Processes and threads at once. The default is 4096."]
    ]
    ssh: [
        [key required type about];
        [user false "text" "The user to log in as: root, or one that may use `sudo` without a password. Without it OpenSSH's own configuration decides."]
        [port false "integer 1 65535" "The port of its SSH server. Without it OpenSSH's own configuration decides."]
        [identity_file false "text" "The private key, as a path relative to the settings file. Without it the agent and OpenSSH's own configuration decide."]
        [jump false "text" "The machine to go through, as `[user@]host[:port]`. Its key is checked as well."]
        [known_hosts_file false "text" "The file with the keys of known machines, as a path relative to the settings file, instead of your own `~/.ssh/known_hosts`. It is never written."]
    ]
    network: [
        [key required type about];
        [subnet false "subnet" "Its addresses, such as `10.80.0.0/24`. The default is a free range that the daemon chooses."]
        [internal false "boolean" "Whether nothing outside can be reached from it. The default is `false`."]
    ]
    cluster: [
        [key required type about];
        [name true "label" "Its name, unique in the file."]
        [type false "label" "What kind of cluster it is, such as `kubernetes`."]
        [servers true "list label" "The names of its servers."]
        [taskservs false "list label" "The taskservs that belong on each of them."]
        [taskserv_options false "map label map parameter value" "Parameters of these taskservs, by the taskserv's name: `redis: {port: 6380}`."]
    ]
}

# The sections of a `taskserv.toml`.
export const TASKSERV_SECTIONS = {
    taskserv: [
        [key required type about];
        [description true "text" "What it is, in a line."]
        [depends_on false "list label" "The taskservs that must be there first, on the same server."]
        [needs false "section needs" "What a server must have for it."]
        [ports false "list port-or-parameter" "The ports that it listens on: numbers, or the names of the parameters that say them."]
        [roles false "list label" "What a server can be in a cluster, such as `primary` and `replica`. The first is what a server is unless its parameter `role` says otherwise."]
        [parameters false "map parameter section parameter" "What can be chosen, by name."]
        [ready false "section ready" "When it is ready. Without it, it is as soon as `start.sh` has ended."]
        [timeouts false "section timeouts" "How long its scripts may take."]
    ]
    needs: [
        [key required type about];
        [memory_mb false "integer 1 16777216" "Memory, in MiB. A server that is limited to less is refused."]
        [capabilities false "list capability" "What it may do on the machine's kernel beyond what a container may: capabilities(7), without `CAP_`. The servers of `docker` do not have them."]
        [privileged false "boolean" "Whether it needs all rights on the machine's kernel. The servers of `docker` do not have them."]
        [systemd false "boolean" "Whether it needs systemd. The servers of `docker` do not have it."]
    ]
    parameter: [
        [key required type about];
        [type true "parameter-type" "What its value is: `text`, `boolean`, `integer MIN MAX`, `choice A B …`, `label` or `address`."]
        [default false "anything" "Its value where the settings do not say it. Without it, they must."]
        [about true "text" "What it is for."]
    ]
    ready: [
        [key required type about];
        [within_sec true "integer 1 3600" "How long it may take from the end of `start.sh` until `ready.sh` ends with exit status 0."]
    ]
    timeouts: [
        [key required type about];
        [install_sec false "integer 1 86400" "`install.sh`. The default is 900."]
        [start_sec false "integer 1 86400" "`start.sh`. The default is 120."]
        [verify_sec false "integer 1 86400" "`verify.sh`, and each run of `ready.sh`. The default is 60."]
    ]
}

# The capabilities of Linux, without `CAP_`.
export const CAPABILITIES = [
    AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE
    DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE
    MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG
    SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE
    SYS_TIME SYS_TTY_CONFIG WAKE_ALARM
]

# The providers that this program carries, the keys of a server that each needs, and the ones that it
# has no use for.
export const PROVIDERS = [
    [name needs refuses];
    [docker [image] [host ssh options]]
    [ssh [host] [image address ports volumes env options]]
    [local [] [host ssh image address ports volumes env options]]
]

# What a server has that neither it nor `defaults` says.
export const SERVER_DEFAULTS = {
    provider: docker
    image: null
    pull: never
    host: null
    ssh: {}
    command: ["sleep" "infinity"]
    resources: {}
    network: default
    address: null
    ports: []
    volumes: []
    env: {}
    labels: {}
    restart: unless-stopped
    taskservs: []
    taskserv_options: {}
    options: {}
}

# What `resources` says unless told otherwise. `null` is no limit.
export const RESOURCE_DEFAULTS = {cpu_millicores: null, memory_mb: null, disk_mb: null, max_processes: 4096}

# Keys of a server whose mappings are merged with those of `defaults`.
export const MERGED = [resources labels env ssh options]

# The table of one section.
export def section [name: string]: nothing -> table<key: string, required: bool, type: string, about: string> {
    if $name == "defaults" {
        return ($SECTIONS.server | where key not-in [name address taskserv_options] | update required false)
    }
    $SECTIONS | merge $TASKSERV_SECTIONS | get $name
}

# A type in words, for messages and for the documentation.
export def type-in-words [type: string]: nothing -> string {
    let words = $type | split row ' '
    let arguments = $words | skip 1
    match ($words | first) {
        "label" => "a name (1 to 63 of a-z, 0-9 and '-')"
        "text" => "a text"
        "boolean" => "true or false"
        "integer" => $"a whole number from ($arguments.0) to ($arguments.1)"
        "choice" => $"one of ($arguments | str join ', ')"
        "subnet" => "an IPv4 network such as 10.80.0.0/24"
        "address" => "an IPv4 address"
        "image" => "the name of an image"
        "provider" => $"one of ($PROVIDERS.name | str join ', '), or the path of a provider of your own"
        "command" => "a text or a list of texts"
        "port" => "a port such as `8080:80`, `127.0.0.1:8080:80`, `53:53/udp` or `80`"
        "volume" => "a volume such as `/path/on/host:/path`, `./beside/the/settings:/path` or `name:/path`, with `:ro` at the end to make it read-only"
        "value" => "a text, a whole number, or true or false"
        "anything" => "anything"
        "port-or-parameter" => "a port from 1 to 65535 or the name of a parameter"
        "capability" => "a capability of Linux such as `SYS_ADMIN`"
        "parameter-type" => "text, boolean, integer MIN MAX, choice A B …, label or address"
        "section" => "a mapping"
        "list" => $"a list, each item ($arguments | str join ' ' | type-in-words $in)"
        "map" => $"a mapping, each value ($arguments | skip 1 | str join ' ' | type-in-words $in)"
    }
}

# The documentation's table of one section, in Markdown.
export def section-in-markdown [name: string]: nothing -> string {
    let rows = section $name | each {|row|
        let needed = if $row.required { " (required)" } else { "" }
        $"| `($row.key)`($needed) | (type-in-words $row.type) | ($row.about) |"
    }
    ["| key | type | meaning |" "|---|---|---|" ...$rows] | str join (char newline)
}

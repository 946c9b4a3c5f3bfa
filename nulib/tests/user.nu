# A user for tests of the fronts: a home and an engine of their own, the real plugin, and servers that are
# files, made by a provider of their own, so that no test needs Docker to create one.

const TREE = path self ../..
const MODULES = path self ..

# The program that cargo has built, or that a variable names.
export def program [name: string, variable: string]: nothing -> string {
    let target = $env.CARGO_TARGET_DIR? | default --empty ("~/.cache/orchestrator-target" | path expand)
    let file = $env | get --optional $variable | default --empty ($target | path join debug $name)
    if not ($file | path exists) {
        error make --unspanned {msg: $"there is no ($file): build it with `cargo build --workspace`, or name it in ($variable)"}
    }
    $file
}

# What the provider does before it creates a server: nothing, unless a file says otherwise. `fail-NAME`
# makes it fail, `hold` keeps it until `go` is there.
const PROVIDER = '
use task.nu

def "main create" []: string -> nothing {
    let order = $in | from json
    let folder = $order.server.options.folder
    let file = $folder | path join $order.server.name
    if ($file | path exists) { task result {action: unchanged}; return }
    if $order.check { task result {action: would-create, steps: [{step: touch, name: $file}]}; return }
    if ($folder | path join hold | path exists) {
        touch ($folder | path join held)
        while not ($folder | path join go | path exists) { sleep 20ms }
    }
    if ($folder | path join $"fail-($order.server.name)" | path exists) {
        task announce-failure $"no room for ($order.server.name)" --permanent
        exit 1
    }
    print $"making ($order.server.name)"
    touch $file
    task result {action: created}
}

def "main delete" []: string -> nothing {
    let order = $in | from json
    if not $order.check { rm --force ($order.server.options.folder | path join $order.server.name) }
    task result {action: (if $order.check { "would-delete" } else { "deleted" })}
}

def "main list" []: string -> nothing {
    let order = $in | from json
    let made = $order.servers | where {|server| $server.options.folder | path join $server.name | path exists }
    task result {servers: ($made | each {|server| {name: $server.name, status: running} })}
}

def main [] {}
'

# Gives the work a user, and takes everything away afterwards, whatever happens.
export def with-user [work: closure]: nothing -> nothing {
    let home = mktemp --directory --tmpdir "orchestrator-test-XXXXXX"
    mkdir ($home | path join run) ($home | path join made)
    ^ln --symbolic $MODULES ($home | path join nulib)
    ^ln --symbolic ($MODULES | path join workflows) ($home | path join workflows)
    $PROVIDER | save ($home | path join provider.nu)
    let user = {home: $home, made: ($home | path join made), settings: ($home | path join settings.yaml)}
    $user | settings [web-01 web-02]
    let error = try {
        do $work $user
        null
    } catch {|error| $error.rendered }
    $user | shell "orchestrator stop --cancel" | ignore
    rm --recursive --force $home
    if $error != null { error make --unspanned {msg: $error} }
}

# Writes the user's settings file: these servers.
export def settings [names: list<string>, --infra: string = "production"]: record -> nothing {
    let user = $in
    {
        infra: $infra
        defaults: {provider: ($user.home | path join provider.nu), options: {folder: $user.made}}
        servers: ($names | each {|name| {name: $name} })
    } | to yaml | save --force $user.settings
}

# The servers that the user has.
export def servers []: record -> list<string> {
    ls --short-names $in.made | get --optional name | default [] | where $it =~ '^web-' | sort
}

# The environment in which the user's programs run.
export def environment [more: record = {}]: record -> record {
    let user = $in
    {
        HOME: $user.home
        PWD: $user.home
        PATH: $env.PATH
        XDG_RUNTIME_DIR: ($user.home | path join run)
        ORCHESTRATOR_ENGINE: (program orchestrator ORCHESTRATOR_ENGINE)
        ORCHESTRATOR_PLUGIN: (program nu_plugin_orchestrator ORCHESTRATOR_PLUGIN)
        PROVISIONING_NU: $nu.current-exe
        ORCHESTRATOR_MAX_PARALLEL: "4"
        TZ: UTC
    } | merge $more
}

# Runs a program as the user, with nothing of this process's environment, and returns how it ended.
export def as-user [program: string, words: list<any>, --with: record = {}]: record -> record {
    let user = $in
    let variables = $user | environment $with | update PATH { str join ":" } | items {|name, value| $"($name)=($value)" }
    do { cd $user.home; ^timeout 300s env --ignore-environment ...$variables $program ...$words | complete }
}

# Runs lines in a Nushell with the plugin loaded.
export def shell [lines: string, --with: record = {}]: record -> record {
    let user = $in
    let plugin = program nu_plugin_orchestrator ORCHESTRATOR_PLUGIN
    $user | as-user $nu.current-exe [-n --no-std-lib --plugins $plugin -c $lines] --with $with
}

# The value of lines that must succeed.
export def value [lines: string, --with: record = {}]: record -> any {
    let answer = $in | shell $"do { ($lines) } | to nuon --serialize" --with $with
    if $answer.exit_code != 0 { error make --unspanned {msg: $"($lines)\n($answer.stdout)($answer.stderr)"} }
    $answer.stdout | from nuon
}

# Runs the front program.
export def front [words: list<any>, --with: record = {}]: record -> record {
    $in | as-user ($MODULES | path join bin provisioning) $words --with $with
}

# The front program's answer as data; it must pass.
export def front-value [words: list<any>]: record -> any {
    let answer = $in | front ($words ++ [--json])
    if $answer.exit_code != 0 { error make --unspanned {msg: $"($words)\n($answer.stdout)($answer.stderr)"} }
    $answer.stdout | from json
}

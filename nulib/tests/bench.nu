# What tests of the worker and of providers have in common: a place of their own, the program itself,
# and Docker's state of one infra.

const WORKER = path self ../worker/worker.nu

# Gives the work an infra that nobody else has and a directory, and clears both away, whatever happens.
export def with-place [work: closure]: nothing -> nothing {
    let infra = $"t(random chars --length 10 | str lowercase)"
    let directory = mktemp --directory --tmpdir "orchestrator-test-XXXXXX"
    let error = try {
        do $work {infra: $infra, directory: $directory, settings: ($directory | path join settings.yaml)}
        null
    } catch {|error| $error.rendered }
    if (which docker | is-not-empty) { clear-away $infra }
    rm --recursive --force $directory
    if $error != null { error make --unspanned {msg: $error} }
}

# Removes everything that an infra has in Docker, whatever made it.
def clear-away [infra: string]: nothing -> nothing {
    for kind in [[list, remove]; [[ps --all] [rm --force --volumes]] [[network ls] [network rm]] [[volume ls] [volume rm]]] {
        let mine = ^docker ...$kind.list --quiet --filter $"name=($infra)" | complete | get stdout | lines
        if ($mine | is-not-empty) { ^docker ...$kind.remove ...$mine | complete | ignore }
    }
}

# The image that servers of tests are made from.
export def image []: nothing -> string {
    $env.ORCHESTRATOR_TEST_IMAGE? | default "orchestrator-base:bookworm"
}

# Writes a settings file with these servers, the image filled in.
export def describe-servers [servers: list<any>, --more: record = {}]: record -> nothing {
    let place = $in
    {infra: $place.infra, defaults: {image: (image)}} | merge $more | merge {servers: $servers} | to yaml | save --force $place.settings
}

# Runs the worker on the place's settings, as the engine does, and reads its words. `--with` is added to
# its environment.
export def worker [words: list<string>, --with: record = {}]: record -> record {
    let place = $in
    let answer = with-env $with { ^$nu.current-exe -n --no-std-lib $WORKER ...$words --infra $place.infra --settings $place.settings | complete }
    $answer | read-words
}

# A program's ending with the words that it has said.
export def read-words []: record -> record {
    let answer = $in
    let lines = $answer.stdout | lines
    let result = $lines | where ($it starts-with "::result ") | get --optional 0
    let failure = $lines | where ($it starts-with "::fail ") | get --optional 0
    {
        exit_code: $answer.exit_code
        result: (if $result == null { null } else { $result | str substring 9.. | from json })
        failure: (if $failure == null { null } else { $failure | str replace --regex '^::fail (permanent )?' '' })
        permanent: ($failure != null and ($failure starts-with "::fail permanent "))
        progress: ($lines | where ($it starts-with "::progress "))
        stdout: $answer.stdout
        stderr: $answer.stderr
    }
}

# Everything that the infra has in Docker, with what would show that something has been done to it.
export def docker-state []: record -> record {
    let infra = $in.infra
    let ids = ^docker ps --all --quiet --no-trunc --filter $"name=($infra)" | lines
    let containers = if ($ids | is-empty) { [] } else { ^docker container inspect ...$ids | from json }
    {
        containers: ($containers | each {|c| {name: $c.Name, id: $c.Id, status: $c.State.Status, started: $c.State.StartedAt, restarts: $c.RestartCount, networks: ($c.NetworkSettings.Networks | columns)} } | sort-by name)
        networks: (^docker network ls --no-trunc --filter $"name=($infra)" --format "{{.Name}} {{.ID}}" | lines | sort)
        volumes: (^docker volume ls --filter $"name=($infra)" --format "{{.Name}}" | lines | sort)
    }
}

# Runs a command inside a server and returns what it prints.
export def inside [server: string, command: list<string>]: record -> string {
    ^docker exec $"($in.infra).($server)" ...$command | str trim
}

# Puts a script in Docker's place: its lines decide about the call in `$@`, and `exec docker "$@"` at
# its end makes it. Returns the environment for the worker.
export def docker-shim [script: string]: record -> record {
    let directory = $in.directory | path join $"shim-(random chars --length 6)"
    let real = which docker | get 0.path
    mkdir $directory
    $"#!/bin/sh\n($script)\nexec ($real) \"$@\"\n" | save ($directory | path join docker)
    chmod +x ($directory | path join docker)
    {PATH: ([$directory] ++ $env.PATH)}
}

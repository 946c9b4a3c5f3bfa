# Settings files: what they become, and what is said about their mistakes.

use bench.nu *
use check.nu
use ../worker/fault.nu
use ../worker/schema.nu *
use ../worker/settings.nu

const DOCS = path self ../../docs/user/settings.md
const EXAMPLE = path self ../examples/settings.yaml

# Loads this text as a settings file.
def load-text [text: string, --infra: string, --only: list<string>]: nothing -> record {
    let directory = mktemp --directory --tmpdir "orchestrator-test-XXXXXX"
    let file = $directory | path join settings.yaml
    $text | save $file
    let outcome = try {
        {value: (settings load $file --infra $infra --only $only), error: null}
    } catch {|error| {value: null, error: ($error | fault describe-error)} }
    rm --recursive --force $directory
    $outcome | insert file $file
}

# What is said about this text.
def complaint [text: string, --infra: string, --only: list<string>]: nothing -> record {
    let outcome = load-text $text --infra $infra --only $only
    if $outcome.error == null { error make --unspanned {msg: $"this was accepted:\n($text)"} }
    check same $outcome.error.permanent true
    $outcome.error
}

export def "test defaults are filled in" [] {
    let settings = (load-text "infra: demo\nservers: [{name: web-01, image: 'a:b'}]").value
    check same ($settings.servers.0 | reject name image) ($SERVER_DEFAULTS | reject image | update resources $RESOURCE_DEFAULTS)
    check same $settings.networks [[name subnet internal]; [default null false]]
    check same $settings.infra demo
    check same $settings.names [web-01]
}

export def "test a server comes before the defaults key by key" [] {
    let server = (load-text "
        infra: demo
        defaults:
          image: base
          resources: {memory_mb: 64, cpu_millicores: 100}
          env: {A: 1, B: two}
          ports: [80]
          command: [sleep, '5']
        servers:
          - name: web-01
            resources: {memory_mb: 128}
            env: {B: 2, C: false}
            ports: ['127.0.0.1:8080:80', 53/udp]
            command: run --fast
            volumes: ['./conf:/conf:ro', 'data:/data']
        ").value.servers.0
    check same ($server.resources | select memory_mb cpu_millicores max_processes) {memory_mb: 128, cpu_millicores: 100, max_processes: 4096}
    check same $server.env {A: "1", B: "2", C: "false"}
    check same $server.ports [[address host server protocol]; ["127.0.0.1" 8080 80 tcp] [null null 53 udp]]
    check same $server.command [sh -c "run --fast"]
    check same ($server.volumes | get kind) [bind volume]
    check so ($server.volumes.0.source | str starts-with "/") "a folder beside the settings has a whole path"
    check so ($server.volumes.0.source | str ends-with "/conf") "and it is the folder that was named"
    check same $server.volumes.0.read_only true
}

export def "test anchors and merge keys work" [] {
    let servers = (load-text "
        infra: demo
        servers:
          - &first {name: web-01, image: base, restart: always}
          - {<<: *first, name: web-02}
        ").value.servers
    check same ($servers | select name restart) [[name restart]; [web-01 always] [web-02 always]]
}

export def "test an unknown key is shown with its line and what is allowed" [] {
    let error = complaint "infra: demo\nservers:\n  - name: web-01\n    imge: debian # oops\n    image: x\n"
    check holds $error.message "settings.yaml:4: unknown key `imge`" "servers[0]" "did you mean `image`?" "allowed: name, provider, image" "`imge: debian # oops`"
    check holds $error.details "settings.yaml:4:5" "\n 4 |     imge: debian # oops\n   |     ^"
}

export def "test every mistake is shown in the order of its lines" [] {
    let error = complaint "
servers:
  - name: Web_01
    image: -x
    resources: {memory_mb: -5, cpu_millicores: 100m, disk_mb: 1.5}
    ports: [0, 70000, '1:2:3']
    volumes: [relative:/x, /x]
    env: {B-x: y, C: 1.5, D: [1]}
    labels: {orchestrator.infra: mine}
    command: []
    restart: sometimes
    network:
  - 7
  - image: b
networks: {a: {subnet: 10.0.0.1/24}, b: {subnet: 10.0.0.0/33}, C: {}}
clusters: yes
infra: [x]
"
    let lines = $error.details | lines | parse --regex '^/.*settings\.yaml:(?P<line>\d+):\d+: (?P<problem>.*)$'
    check same ($lines.line | into int) ($lines.line | into int | sort)
    check same ($lines.line | into int | uniq) [3 4 5 6 7 8 9 10 11 12 13 14 15]
    check holds ($lines.problem | str join "\n") "`servers[0].name` must be a name" "not the number -5" "not the text '100m'" "not the number 70000" "`B-x` cannot be a key" "not the number 1.5" "is taken" "one of no, on-failure, always, unless-stopped" "`network` has no value" "must be a mapping, not the number 7" "servers[2] has no `name`" "not the text '10.0.0.0/33'"
    check holds $error.details "settings.yaml:15:16: `networks.a" "settings.yaml:15:42: `networks.b" "… and 3 more"
}

export def "test what must fit together is checked" [] {
    let error = complaint "
infra: demo
networks:
  a: {subnet: 10.0.0.0/24}
  b: {subnet: 10.0.0.128/25}
servers:
  - {name: w, image: x, network: a, address: 10.0.0.1}
  - {name: x, image: x, network: zz}
  - {name: x, image: x, network: b, address: 10.0.0.130}
  - {name: y, image: x, network: b, address: 10.0.0.130}
  - {name: z, image: x, address: 10.0.0.130}
  - {name: q, network: a}
  - {name: r, image: x, host: 10.0.0.1}
  - {name: s, image: x, provider: floppy}
  - {name: t, image: x, provider: ./floppy.nu}
clusters:
  - name: k
    servers: [w, nobody]
"
    let found = $error.details | lines | parse --regex '^/.*settings\.yaml:(?P<line>\d+):\d+: (?P<problem>.*)$'
    for expected in [
        [5 "share addresses"]
        [7 "cannot have the address 10.0.0.1: use one from 10.0.0.2 to 10.0.0.254"]
        [8 "network 'zz', which the file does not describe (there is default, a, b)"]
        [9 "'x' more than once"]
        [10 "the same address 10.0.0.130"]
        [11 "its network 'default' needs a `subnet`"]
        [12 "server 'q' has no `image`"]
        [13 "no use for `host`"]
        [14 "there is no provider 'floppy'"]
        [15 "/floppy.nu"]
        [18 "names server 'nobody'"]
    ] {
        check holds ($found | where ($it.line | into int) == $expected.0 | get problem | str join "; ") $expected.1
    }
    check same ($found | length) 11
}

export def "test a mistake between brackets and one in the defaults are found" [] {
    check holds (complaint "infra: demo\nservers: [{name: a, image: b}, {name: c,\n  imagine: d, image: e}]\n").details "settings.yaml:3:3: unknown key `imagine`"
    check holds (complaint "infra: demo\ndefaults:\n  image: b\n  provider: floppy\nservers: [{name: c}]\n").details "settings.yaml:4:3: there is no provider 'floppy'"
    check holds (complaint "infra: demo\nservers: [{name: a, image: x, env: {Ä: ü}, imge: d}]\n").details "settings.yaml:2:44: unknown key `imge`"
    check holds (complaint "infra: demo\ndefaults: {name: x}\n").details "unknown key `name` in defaults"
}

export def "test a text that nushell takes for a number is explained" [] {
    check holds (complaint "infra: demo\nservers:\n  - name: a\n    image: registry.info/b:1\n").message "settings.yaml:4" "needs quotes"
    check holds (complaint "infra: demo\nservers:\n  - {name: a, image: x, env: {URL: db.infra.local}}\n").message "needs quotes"
    check holds (complaint "infra: demo\nservers:\n  - {name: a, image: x, options: {a: [{b: c.nan}]}}\n").message "needs quotes"
    check same (load-text "infra: demo\nservers: [{name: a, image: 'registry.info/b:1', labels: {app.info: x, 1: 2}}]").value.servers.0.image "registry.info/b:1"
}

export def "test text that is not yaml is shown with the line" [] {
    check holds (complaint "infra: demo\nservers:\n  - name: x\n - name: y\n").details "settings.yaml:4:" " 4 |  - name: y"
    check holds (complaint "infra: demo\nservers: []\nservers: []\n").message "settings.yaml:3" "`servers` is here for the second time"
    check holds (complaint "infra: 'demo\n").message "not YAML"
    check holds (complaint "- a\n- b\n").message "one mapping" "the list"
    check holds (complaint "").message "is empty"
    check holds (complaint "infra: a\n---\ninfra: b\n").message "one mapping"
}

export def "test a file that is not there is named" [] {
    let error = try { settings load /nowhere/settings.yaml } catch {|error| $error | fault describe-error }
    check holds $error.message "there is no settings file /nowhere/settings.yaml"
    check same $error.permanent true
    let error = try { settings load / } catch {|error| $error | fault describe-error }
    check holds $error.message "is a directory"
}

export def "test the infra of the file and the one that is asked for agree" [] {
    check same (load-text "infra: demo" --infra demo).value.infra demo
    check same (load-text "servers: []" --infra demo).value.infra demo
    check holds (complaint "\ninfra: demo" --infra production).message "settings.yaml:2" "'demo'" "'production'"
    check holds (complaint "servers: []").message "--infra"
    check holds (complaint "servers: []" --infra "--x;^rm").message "'--x;^rm' is not a name"
}

export def "test one server of many is loaded without the others" [] {
    let text = "infra: demo\ndefaults: {image: x}\nservers: [{name: a}, {name: b, imge: y}, {name: c}]"
    let settings = (load-text $text --only [a c]).value
    check same ($settings.servers | get name) [a c]
    check same $settings.names [a b c]
    check holds (complaint $text --only [b]).message "`imge`" "servers[1]"
    # Names are checked in the whole file all the same.
    check holds (complaint "infra: demo\ndefaults: {image: x}\nservers: [{name: a}, {name: b}, {name: b}]" --only [a]).message "'b' more than once"
}

export def "test the example is right" [] {
    check same (settings load $EXAMPLE | get names) [web-01 web-02]
}

export def "test the documentation has the tables of the schema" [] {
    let page = open --raw $DOCS | decode utf-8
    for name in ($SECTIONS | columns) { check holds $page (section-in-markdown $name) }
}

# The example scripts do what they say.

use bench.nu *
use check.nu

const SCRIPTS = path self ../examples/scripts

def example [name: string, params: record]: nothing -> record {
    $params | to json --raw | ^$nu.current-exe -n --stdin ($SCRIPTS | path join $name) | complete | read-words
}

export def "test archive packs a folder" [] {
    with-place {|place|
        mkdir ($place.directory | path join "my conf")
        "x" | save ($place.directory | path join "my conf" a)
        let answer = example archive.nu {folder: ($place.directory | path join "my conf"), into: ($place.directory | path join out)}
        check succeeded $answer
        check same $answer.result.files 2
        check same (open --raw $answer.result.archive | hash sha256) $answer.result.sha256
        check same (ls ($place.directory | path join out) | length) 1
        check same (example archive.nu {folder: /nowhere, into: $place.directory} | select exit_code permanent failure) {exit_code: 1, permanent: true, failure: "/nowhere is not a folder"}
        check same (example archive.nu {}).permanent true
    }
}

export def "test check-sites fails for a site that is down" [] {
    # A port that nobody listens on.
    let answer = example check-sites.nu {urls: ["http://127.0.0.1:1/"]}
    check same [$answer.exit_code $answer.permanent] [1 false]
    check holds $answer.failure "http://127.0.0.1:1/"
    check same $answer.result.0.up false
    check same (example check-sites.nu {}).permanent true
}

export def "test new-password masks before it prints and keeps what is there" [] {
    with-place {|place|
        let file = $place.directory | path join password
        let answer = example new-password.nu {file: $file}
        let password = open --raw $file
        check same $answer.result {file: $file, made: true}
        check same ($answer.stdout | lines | first) $"::mask ($password)"
        check same (^stat --format %a $file | str trim) "600"
        check same (example new-password.nu {file: $file}).result.made false
        check same (open --raw $file) $password
    }
}

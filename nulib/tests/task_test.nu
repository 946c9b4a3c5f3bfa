# The words to the engine.

use bench.nu *
use check.nu
use ../worker/plan.nu *

const MODULE = path self ../orchestrator.nu

# Runs a script of these lines with the module, and returns what it printed.
def script [lines: string, --with: record = {}, --input: string]: nothing -> record {
    let directory = mktemp --directory --tmpdir "orchestrator-test-XXXXXX"
    let file = $directory | path join script.nu
    $"use ($MODULE) *\n($lines)\n" | save $file
    let answer = with-env $with {
        if $input == null { ^$nu.current-exe -n --no-std-lib $file | complete } else { $input | ^$nu.current-exe -n --no-std-lib --stdin $file | complete }
    }
    rm --recursive --force $directory
    $answer
}

def printed [lines: string, --with: record = {}]: nothing -> list<string> {
    let answer = script $lines --with $with
    if $answer.exit_code != 0 { error make --unspanned {msg: $answer.stderr} }
    $answer.stdout | lines
}

export def "test progress" [] {
    check same (printed 'task progress "copied a" --done 3 --of 10; task progress --percent 45; task progress "x" --percent 100; task progress "waiting"') ["::progress 3/10 copied a" "::progress 45%" "::progress 100% x" "::progress waiting"]
    for wrong in ["task progress" "task progress x --done 3" "task progress --done 3 --of 2" "task progress --done 0 --of 0" "task progress --percent 101" "task progress --percent 5 --done 1 --of 2"] {
        check same (script $wrong).exit_code 1
    }
}

export def "test no value breaks a line in two" [] {
    for break in ["\n" "\r" "\r\n" "\u{2028}" "\u{85}"] {
        let text = $"one($break)::fail permanent two"
        let words = printed $"let text = ($text | to nuon)
            task progress $text --percent 5
            task result {text: $text}
            task result $text
            try { task fail $text } catch { null }
            try { task fail $text --permanent } catch { null }"
        check same ($words | each { split row " " | first }) ["::progress" "::result" "::result" "::fail" "::fail"]
        check same ($words.2 | str substring 9.. | from json) $text
    }
}

export def "test a result is json on one line" [] {
    check same (printed '{when: 2024-05-01T00:00:00Z, size: 1kb, list: [1 null true], text: "a\nb"} | task result') ['::result {"when":"2024-05-01T00:00:00+00:00","size":1000,"list":[1,null,true],"text":"a\nb"}']
    check same (printed 'task result []') ["::result []"]
    let large = script 'task result ("x" | fill --width 1100000 --character x)'
    check same $large.exit_code 1
    check holds $large.stderr "more than"
    check same $large.stdout ""
}

export def "test mask covers every line of a secret" [] {
    check same (printed 'task mask "s3cret-value"; task mask "-----BEGIN\n  abcd\n}\nend of key"') ["::mask s3cret-value" "::mask -----BEGIN" "::mask abcd" "::mask end of key"]
    let short = script 'task mask "ab"'
    check same $short.exit_code 1
    check holds $short.stderr "cannot be masked"
}

export def "test fail ends the script and says why" [] {
    let answer = script 'task fail "disk is gone" --permanent; print later'
    check same [$answer.exit_code $answer.stdout] [1 "::fail permanent disk is gone\n"]
    check holds $answer.stderr "disk is gone"
    # The message cannot make a failure permanent.
    check same (script 'task fail "permanent marker is empty"').stdout "::fail failed: permanent marker is empty\n"
}

export def "test params come from the variable or from standard input" [] {
    let read = 'def main [] { print ($in | task params | to json --raw) }'
    check same (script $read --with {ORCHESTRATOR_PARAMS: '{"a":[1]}'}).stdout "{\"a\":[1]}\n"
    check same (script $read --input '{"b":"x"}').stdout "{\"b\":\"x\"}\n"
    check same (script $read).stdout "{}\n"
    check holds (script $read --with {ORCHESTRATOR_PARAMS: '{"a":'}).stderr "not JSON"
}

export def "test secrets are read from where the engine says" [] {
    with-place {|place|
        let file = $place.directory | path join secrets
        {db_password: "p;$(x)\n2"} | to json | save $file
        let env_with = {ORCHESTRATOR_SECRETS: $file}
        check same (script 'print (task secret db_password | to json --raw)' --with $env_with).stdout "\"p;$\(x)\\n2\"\n"
        let missing = script 'task secret other' --with $env_with
        check same $missing.exit_code 1
        check holds $missing.stderr "no secret 'other'" "db_password"
        check same (script 'print (task secrets | columns | length)').stdout "0\n"
    }
}

export def "test a digest does not depend on the order of keys" [] {
    check same ({b: {y: [1 {d: null, c: "ü"}], x: 2}, a: 1} | digest) ({a: 1, b: {x: 2, y: [1 {c: "ü", d: null}]}} | digest)
    check same ({a: 1, b: {c: 2}} | digest) ('{"a":1,"b":{"c":2}}' | hash sha256)
    check so (([1 2] | digest) != ([2 1] | digest)) "the order of a list counts"
    check so (({a: "1"} | digest) != ({a: 1} | digest)) "types count"
}

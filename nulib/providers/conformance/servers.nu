# What making, listing and removing a server must be like.

use bench.nu *

# Before anything is made.
export def before []: nothing -> list<any> {
    [
        [name work];
        ["check mode says what would be done and changes nothing" {|bench|
            let before = $bench | listed
            let answer = $bench | ask-well create {check: true}
            let exists = $bench.server.name in $before.name
            expect ($answer.result.action? in (if $exists { [unchanged would-complete] } else { [would-create would-complete unchanged] })) $"an `action` of check mode, not ($answer.result.action? | to nuon)"
            expect (($answer.result.steps? | describe --detailed | get type) in ["list" "table"]) "`steps`, a list, in check mode"
            expect ($answer.result.steps | all {|step| ($step.step? | describe) == "string" }) "each of `steps` has a `step`"
            expect-same ($bench | listed) $before "what is listed after check mode"
        }]
        ["create makes the server" {|bench|
            let exists = $bench.server.name in ($bench | listed).name
            let answer = $bench | ask-well create {check: false}
            expect ($answer.result.action? in (if $exists { [unchanged completed] } else { [created completed unchanged] })) $"an `action`, not ($answer.result.action? | to nuon)"
        }]
        ["create again changes nothing" {|bench|
            let before = $bench | listed
            expect-same ($bench | ask-well create {check: false}).result.action? unchanged "the `action` of what exists"
            expect-same ($bench | ask-well create {check: true}).result.action? unchanged "the `action` of what exists, in check mode"
            expect-same ($bench | listed) $before "what is listed"
        }]
        ["list shows the server" {|bench|
            expect-same ($bench | listed | where name == $bench.server.name | length) 1 "how often the server is listed"
        }]
        ["list of no servers is an answer" {|bench|
            let answer = $bench | ask-raw list ({infra: $bench.infra, servers: []} | to json --raw)
            expect-same $answer.exit_code 0 "the exit status of `list`"
        }]
    ]
}

# When everything else is done. Nothing is removed that was there before.
export def after []: nothing -> list<any> {
    [
        [name work];
        ["delete in check mode changes nothing" {|bench|
            let before = $bench | listed
            expect (($bench | ask-well delete {check: true}).result.action? in [would-delete unchanged]) "the `action` is `would-delete` or `unchanged`"
            expect-same ($bench | listed) $before "what is listed after check mode"
        }]
        ["delete removes the server, or says that it does not" {|bench|
            if $bench.was_there { return }
            let answer = $bench | ask-well delete {check: false, server: {name: $bench.server.name, provider: $bench.server.provider}}
            expect ($answer.result.action? in [deleted unchanged]) "the `action` is `deleted` or `unchanged`"
            if $answer.result.action == "deleted" {
                expect ($bench.server.name not-in ($bench | listed).name) "what is deleted is not listed"
                expect (($bench | run-text "exit 0").exit_code != 0) "nothing can be run on what is deleted"
            }
        }]
        ["delete again changes nothing" {|bench|
            if $bench.was_there { return }
            expect-same ($bench | ask-well delete {check: false}).result.action? unchanged "the `action` of what does not exist"
        }]
    ]
}

# Orders that nobody in his right mind gives.
export def hostile []: nothing -> list<any> {
    [
        [name work];
        ["an order that is no order is refused" {|bench|
            for operation in [create delete list run] {
                for input in ["" "nonsense" "[]" "{}" "{\"server\": 7}"] {
                    let answer = $bench | ask-raw $operation $input
                    expect ($answer.exit_code != 0) $"`($operation)` of ($input | to nuon) fails"
                }
            }
        }]
        ["a name that is no name is refused" {|bench|
            let before = $bench | listed
            let folder = $bench | folder-with {"go.sh": "echo ran"}
            for name in ["../x" "-x" "a b" "a;b" "$(x)" "" "A"] {
                let server = $bench.server | merge {name: $name}
                let answer = $bench | ask run {server: $server, folder: $folder, script: "go.sh", env: {}}
                expect ($answer.exit_code != 0 and "ran" not-in $answer.lines) $"`run` on a server ($name | to nuon) is refused"
            }
            expect-same ($bench | listed) $before "what is listed"
        }]
        ["a script that is not of the folder is refused" {|bench|
            let outside = $bench | folder-with {"outside.sh": "echo ran"}
            let folder = $bench | folder-with {"go.sh": "echo ran"}
            for script in ["../($outside | path basename)/outside.sh" ($outside | path join outside.sh) "missing.sh" "" "." "-c" "go.sh; echo ran" "go.sh\necho ran"] {
                let answer = $bench | ask run {folder: $folder, script: $script, env: {}}
                expect ($answer.exit_code != 0 and "ran" not-in $answer.lines) $"the script ($script | to nuon) is refused"
                expect ($answer.failures | is-not-empty) $"there is a `::fail` that says why the script ($script | to nuon) is refused"
            }
            for place in ["/nowhere/at/all" "" "relative" ($folder | path join go.sh)] {
                let answer = $bench | ask run {folder: $place, script: "go.sh", env: {}}
                expect ($answer.exit_code != 0) $"the folder ($place | to nuon) is refused"
            }
        }]
        ["a variable that is no variable is refused" {|bench|
            for name in ["A B" "A;echo ran" "1A" "" "A=B" "-x"] {
                let answer = $bench | run-text "echo ran" --env-values ({} | insert $name "value")
                expect ($answer.exit_code != 0 and "ran" not-in $answer.lines) $"the variable ($name | to nuon) is refused"
            }
        }]
    ]
}

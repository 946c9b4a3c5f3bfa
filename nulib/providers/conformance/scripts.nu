# What running a script on a server must be like.

use bench.nu *

# Texts that go wrong where something is spliced into a command.
const AWKWARD = {
    QUOTES: "it's \"quoted\" and `ticked`"
    DOLLARS: '$HOME ${HOME} $(echo ran) $((1+1)) %s %h \n \\'
    LINES: "first\nsecond\n\nafter a blank one"
    TRAILING: "ends with line breaks\n\n"
    BLANKS: "  two before, a tab\tinside, one after "
    OPTION: "-n --help"
    LETTERS: "äöü 日本語 🦊"
    MARKUP: "<a> & | ; > < * ? [x] {y,z} ~ # !! ^"
    WORD: "::result {\"forged\": true}"
    NOTHING: ""
}

# Prints every file below, and what is in it, so that two copies can be compared.
const DIGEST = 'find . -type f -exec cksum {} + | LC_ALL=C sort | cksum; find . -type d | wc -l'

# Answers with the bytes of the variable NAME.
const HEX = 'hex=$(printf %s "$NAME" | od -An -v -tx1 | tr -d " \n"); echo "::result {\"hex\": \"$hex\"}"'

export def all []: nothing -> list<any> {
    [
        [name work];
        ["a script's exit status and result are the answer" {|bench|
            let answer = $bench | run-well 'echo "::result {\"first\": 1}"; echo "::result {\"second\": [1, 2]}"'
            expect-same ($answer.result | select exit_code result) {exit_code: 0, result: {second: [1 2]}} "the answer"
            expect-same ($bench | run-well "exit 7").result {exit_code: 7, result: null} "the answer to `exit 7`"
            # A result on a last line without an end.
            expect-same ($bench | run-well 'printf "::result {\"a\": 1}"; exit 3').result {exit_code: 3, result: {a: 1}} "the answer"
            expect-same ($bench | run-well 'echo "::result 7"; echo "::result {oops"').result {exit_code: 0, result: null} "the answer to a result that is no record"
        }]
        ["a script that is killed has an exit status" {|bench|
            expect-same ($bench | run-well 'kill -9 $$').result.exit_code 137 "the exit status"
        }]
        ["output comes in order, each stream by itself" {|bench|
            let answer = $bench | run-well 'i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo "out $i"; echo "err $i" >&2; done; printf "no end"'
            expect-same $answer.lines ((1..500 | each {|i| $"out ($i)" }) ++ ["no end"]) "standard output"
            expect-same ($answer.stderr | lines | where $it starts-with "err ") (1..500 | each {|i| $"err ($i)" }) "standard error"
        }]
        ["output comes while the script still runs" {|bench|
            # The script ends when a second one, of another folder, has seen its first line.
            let mark = $"/tmp/conformance-(random chars --length 12)"
            let waiting = $bench | folder-with {"go.sh": 'echo first; i=0; while [ $i -lt 300 ]; do [ -e "$MARK" ] && rm "$MARK" && exit 0; sleep 0.1; i=$((i+1)); done; exit 9'}
            let order = {infra: $bench.infra, server: $bench.server, networks: $bench.networks, folder: $waiting, script: "go.sh", env: {MARK: $mark}}
            let seen = $order | to json --raw | ^$nu.current-exe -n --no-std-lib --stdin -I (worker-directory) $bench.program run | lines | each {|line|
                if $line == "first" { $bench | run-well 'touch "$MARK"' --env-values {MARK: $mark} }
                $line
            }
            expect-same ($seen | where $it starts-with "::result " | last | str substring 9.. | from json | get exit_code) 0 "the exit status of a script that waits for its own output to be seen"
        }]
        ["words to the engine pass unchanged" {|bench|
            let answer = $bench | run-text 'echo "::progress 1/2 half"; echo "::mask s3cret-value"; echo "::fail permanent no  such : plan"; exit 1'
            for line in ["::progress 1/2 half" "::mask s3cret-value" "::fail permanent no  such : plan"] {
                expect ($line in ($answer.lines ++ $answer.failures)) $"the line ($line | to nuon) among ($answer.lines | to nuon)"
            }
            expect-same $answer.result?.exit_code? 1 "the exit status"
        }]
        ["environment variables arrive as they are" {|bench|
            for entry in ($AWKWARD | transpose name value) {
                let answer = $bench | run-well ($HEX | str replace NAME $entry.name) --env-values $AWKWARD
                expect-same ($answer.result.result.hex? | default "" | str lowercase) ($entry.value | encode utf-8 | encode hex | str lowercase) $"the bytes of ($entry.name)"
            }
        }]
        ["a variable of a hundred thousand characters arrives" {|bench|
            let answer = $bench | run-well 'echo "::result {\"length\": ${#LONG}}"' --env-values {LONG: ("" | fill --character "x" --width 100000)}
            expect-same $answer.result.result {length: 100000} "the length"
        }]
        ["values are not seen among the processes" {|bench|
            let secret = $"conformance-(random chars --length 20)"
            let answer = $bench | run-well 'cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\0" "\n" | grep -c "[c]onformance-$WANTED"; true' --env-values {SECRET: $secret, WANTED: ($secret | str substring 12..)}
            expect-same ($answer.lines | first) "0" "the number of arguments of processes that hold the value"
        }]
        ["standard input is closed" {|bench|
            expect-same ($bench | run-well 'echo "read $(cat | wc -c | tr -d " ") bytes"').lines ["read 0 bytes"] "what the script reads"
        }]
        ["every file of the folder is there" {|bench|
            let folder = $bench | folder-with {"go.sh": $DIGEST, "it's \"q\" $x `y`": "1", "-rf": "2", " lead": "3", "new\nline": "4", ".hidden": "5", "*": "6", "ü": "7"}
            mkdir ($folder | path join "sub dir" "empty one")
            random binary 1mb | save --raw ($folder | path join "sub dir" "big")
            let here = do { cd $folder; ^sh go.sh | lines }
            let answer = $bench | ask run {folder: $folder, script: "go.sh", env: {}}
            expect-same $answer.lines $here "the digest of the files"
        }]
        ["a script with an awkward name in a folder of the folder is run there" {|bench|
            let folder = $bench | folder-with {"helper.sh": "echo helped"}
            mkdir ($folder | path join "sub dir")
            "sh ./helper.sh" | save ($folder | path join "sub dir" "it's $(x).sh")
            expect-same ($bench | ask run {folder: $folder, script: "sub dir/it's $(x).sh", env: {}}).lines ["helped"] "the output"
        }]
        ["nobody else can write to where the script runs" {|bench|
            # Somewhere on the way there others must not get on, or the place itself not be theirs to write.
            let folder = $bench | folder-with {"go.sh": 'here=$PWD; while :; do case $(ls -ld "$here") in d??????--[-T]*) echo private; exit 0 ;; esac; [ "$here" = / ] && break; here=$(dirname "$here"); done; case $(ls -ld .) in d????[-]??[-]*) echo private ;; esac'}
            ^chmod 777 $folder
            expect-same ($bench | ask run {folder: $folder, script: "go.sh", env: {}}).lines ["private"] "what the script finds"
        }]
        ["the script runs as root, or as the user that asks" {|bench|
            expect (($bench | run-well "id -u").lines.0 in ["0" (^id -u | str trim)]) "user 0"
        }]
        ["two runs of one folder do not overlap" {|bench|
            let mark = $"/tmp/conformance-(random chars --length 12)"
            let folder = $bench | folder-with {"go.sh": 'mkdir "$MARK" || exit 9; sleep 1; rmdir "$MARK"'}
            let answers = 1..2 | par-each {|_| $bench | ask run {folder: $folder, script: "go.sh", env: {MARK: $mark}} }
            expect-same ($answers.result.exit_code | sort) [0 0] "the exit statuses"
        }]
        ["a daemon that the script leaves behind holds nothing up" {|bench|
            let mark = $"/tmp/conformance-(random chars --length 12)"
            # It ends when a second run of the folder has begun, or says that none has.
            let folder = $bench | folder-with {"go.sh": 'if [ -e "$MARK" ]; then late=$(cat "$MARK"); rm "$MARK"; test -z "$late"; exit; fi; : >"$MARK"; (i=0; while [ -e "$MARK" ]; do sleep 0.1; i=$((i+1)); [ $i -lt 150 ] || { echo late >"$MARK"; exit; }; done) & exit 0'}
            for _ in 1..2 {
                expect-same ($bench | ask run {folder: $folder, script: "go.sh", env: {MARK: $mark}}).result?.exit_code? 0 "the exit status"
            }
        }]
    ]
}

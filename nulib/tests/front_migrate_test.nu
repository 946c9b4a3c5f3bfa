# The script that moves the records.

use check.nu
use user.nu *

const SCRIPT = path self ../scripts/migrate-storage.nu

def migrate [words: list<any>]: record -> record {
    $in | as-user $nu.current-exe ([-n --no-std-lib $SCRIPT] ++ $words)
}

export def "test the records of an engine are checked and moved while it works" [] {
    with-user {|user|
        let to = $user.home | path join "else where"
        $user | value "orchestrator start | ignore"
        let pid = $user | value "orchestrator status | get pid"
        let found = $user | migrate [validate --target-dir $to]
        check succeeded $found
        check holds $found.stdout "possible" "true"
        check so (not ($to | path exists)) "nothing was changed"
        let moved = $user | migrate [--to filesystem --target-dir $to]
        check succeeded $moved
        check holds $moved.stdout "completed" $to
        check same ($user | value "orchestrator status | get pid") $pid
        check same ($user | value "orchestrator storage status | get location") $to
        # It is there, so it cannot go there.
        let again = $user | migrate [--target-dir $to]
        check same $again.exit_code 1
        check holds $again.stderr "there already"
        # Another one, whose storage nobody works on, is moved by its directories.
        let own = $user.home | path join own
        $user | value "orchestrator start --data-dir $env.OWN | ignore; orchestrator stop --data-dir $env.OWN | ignore" --with {OWN: $own}
        let third = $user.home | path join third
        let words = [--from filesystem --to filesystem --source-dir $own --target-dir $third --data-dir $own]
        let checked = $user | migrate (["--dry-run"] ++ $words)
        check succeeded $checked
        check so (not ($third | path exists)) "nothing was changed"
        check succeeded ($user | migrate $words)
        check same ($user | value "orchestrator storage status --data-dir $env.OWN | get other.location" --with {OWN: $own}) $third
        let nowhere = $user | migrate [validate --source-dir ($user.home | path join nowhere) --target-dir $third]
        check same $nowhere.exit_code 1
        check holds $nowhere.stderr "there is no storage"
    }
}

# The wizard, with these lines for an answer.
def wizard [answers: string]: record -> record {
    let steps = 'printf "%s" "$ANSWERS" | exec "$@"'
    $in | as-user sh [-c $steps sh $nu.current-exe -n --no-std-lib $SCRIPT --interactive] --with {ANSWERS: $answers}
}

export def "test the wizard asks and checks and asks once more" [] {
    with-user {|user|
        let to = $user.home | path join chosen
        $user | value "orchestrator start | ignore"
        let here = $user | value "orchestrator storage status | get location"
        let no = $user | wizard $"\n1\n($to)\nno\n"
        check succeeded $no
        check holds $no.stdout $"The records are now in filesystem in ($here)" "Nothing was changed" $to
        check so (not ($to | path exists)) "nothing was changed"
        let address = $user | wizard "yes\n1\nws://127.0.0.1:8000\n"
        check same $address.exit_code 1
        check holds $address.stderr "ws://127.0.0.1:8000 is the address of a server" "choose surrealdb-server"
        let yes = $user | wizard $"yes\nfilesystem\n($to)\nyes\n"
        check succeeded $yes
        check holds $yes.stdout "completed"
        check same ($user | value "orchestrator storage status | get location") $to
        # The same for a storage that is named, while the engine works on its own.
        let own = $user.home | path join own
        $user | value "orchestrator start --data-dir $env.OWN | ignore; orchestrator stop --data-dir $env.OWN | ignore" --with {OWN: $own}
        let third = $user.home | path join third
        let other = $user | wizard $"no\n1\n($own)\n1\n($third)\nyes\n"
        check succeeded $other
        check holds $other.stdout $"from  filesystem in ($own)" "completed"
        check same ($user | value "orchestrator storage status | get location") $to
    }
}

export def "test the records of a stopped engine are found and moved" [] {
    with-user {|user|
        let none = $user | migrate [validate --target-dir ($user.home | path join third)]
        check same $none.exit_code 1
        check holds $none.stderr "there is no storage" ($user.home | path join .local state orchestrator)
        $user | value "orchestrator start | ignore; orchestrator stop | ignore"
        let to = $user.home | path join "else where"
        let moved = $user | migrate [--target-dir $to]
        check succeeded $moved
        check holds $moved.stdout "completed"
        check same ($user | value "orchestrator storage status | [$in.state $in.other.location]") [sealed $to]
        # From where the options and the variables say that it is.
        let back = $user.home | path join back
        check succeeded ($user | migrate [--storage-dir $to --target-dir $back])
        let third = $user.home | path join third
        check succeeded ($user | as-user $nu.current-exe [-n --no-std-lib $SCRIPT --target-dir $third] --with {ORCHESTRATOR_STORAGE_DIR: $back})
        # One that runs has its configuration.
        $user | value "orchestrator start --storage-dir $env.THIRD | ignore" --with {THIRD: $third}
        let vain = $user | migrate [--storage-dir $back --target-dir $to]
        check same $vain.exit_code 1
        check holds $vain.stderr "--storage-dir" "orchestrator stop"
        check same ($user | value "orchestrator storage status | get location") $third
    }
}

export def "test the program of the engine is told everything and seen to work" [] {
    with-user {|user|
        let answer = {
            from: {backend: surrealdb-server, location: "ws://10.0.0.1:8000/team/queue"}
            to: {backend: filesystem, location: /there}
            is_possible: true
            checks: [{name: space, state: ok, found: enough, advice: null}]
        }
        let program = $user.home | path join program
        '#!/bin/sh
            printf "%s\n" "$@" >said
            echo "how far it is" >&2
            [ "$2" = migrate ] && exit 1
            echo "$ANSWER"' | save $program
        chmod +x $program
        let run = {|words|
            let with = {ORCHESTRATOR_ENGINE: $program, ANSWER: ($answer | to json --raw)}
            $user | as-user $nu.current-exe ([-n --no-std-lib $SCRIPT] ++ $words) --with $with
        }
        let options = {
            data-dir: ($user.home | path join data)
            from: surrealdb-server
            to: surrealdb-embedded
            source-url: "ws://10.0.0.1:8000"
            source-namespace: team
            source-database: queue
            source-username: "a b; touch mark"
            source-password-file: ./source.password
            target-dir: ./there
            config: ./engine.toml
            storage-type: surrealdb-server
            storage-dir: ./records
            surrealdb-url: "ws://10.0.0.2:8000"
            surrealdb-namespace: "$(touch mark)"
            surrealdb-database: own
            surrealdb-username: engine
            surrealdb-password-file: ./engine.password
        }
        let words = $options | items {|option, value| [$"--($option)" $value] } | flatten
        let found = do $run ([validate] ++ $words)
        check succeeded $found
        check holds $found.stdout "possible"
        check holds $found.stderr "how far it is"
        let said = open --raw ($user.home | path join said) | lines
        check same ($said | first 3) [storage validate "--json"]
        check same ($said | skip 3 | sort) ($options | items {|option, value| $"--($option)=($value)" } | sort)
        let failed = do $run $words
        check same $failed.exit_code 1
        check holds $failed.stderr "how far it is"
        # Without a word about the data directory it is the one of the plugin.
        check succeeded (do $run [validate])
        check holds (open --raw ($user.home | path join said)) $"--data-dir=($user | value 'orchestrator status | get data_dir')"
        check so (not ($user.home | path join mark | path exists)) "nothing of the words was run"
    }
}

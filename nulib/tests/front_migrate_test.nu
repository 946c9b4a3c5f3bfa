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

export def "test the wizard asks and checks and asks once more" [] {
    with-user {|user|
        let to = $user.home | path join chosen
        $user | value "orchestrator start | ignore"
        let wizard = {|answers: string|
            let steps = 'printf "%s" "$ANSWERS" | exec "$@"'
            $user | as-user sh [-c $steps sh $nu.current-exe -n --no-std-lib $SCRIPT --interactive] --with {ANSWERS: $answers}
        }
        let no = do $wizard $"1\n($to)\nno\n"
        check succeeded $no
        check holds $no.stdout "Nothing was changed" $to
        check so (not ($to | path exists)) "nothing was changed"
        let yes = do $wizard $"filesystem\n($to)\nyes\n"
        check succeeded $yes
        check holds $yes.stdout "completed"
        check same ($user | value "orchestrator storage status | get location") $to
    }
}

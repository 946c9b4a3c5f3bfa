# All of nulib as Nushell's own checker sees it, and the examples of the help.

use check.nu
use user.nu *

const NULIB = path self ..
const TREE = path self ../..

export def "test every file passes the checker" [] {
    let plugin = program nu_plugin_orchestrator ORCHESTRATOR_PLUGIN
    let files = glob ($NULIB | path join "**/*.nu")
    check so (($files | length) > 40) "all files are found"
    # Providers are run with the worker's directory to include from.
    let problems = $files | par-each --keep-order --threads 2 {|file|
        let answer = ^$nu.current-exe -n --no-std-lib -I ($NULIB | path join worker) --plugins $plugin --ide-check 100 $file | complete
        let said = $answer.stdout | lines | each { from json } | where type == diagnostic
        if $answer.exit_code != 0 or ($said | is-not-empty) { {file: $file, said: ($said | get --optional message), more: $answer.stderr} }
    }
    check same $problems []
}

export def "test the checker finds what is wrong" [] {
    with-user {|user|
        "def main []: nothing -> int { nothing-of-this | length --frobnicate }" | save ($user.home | path join wrong.nu)
        let answer = $user | as-user $nu.current-exe [-n --no-std-lib --ide-check 100 wrong.nu]
        check same ($answer.stdout | lines | each { from json } | where type == diagnostic | is-not-empty) true
    }
}

export def "test every example of the help is valid" [] {
    with-user {|user|
        let modules = "use nulib/provisioning; use nulib/workflows/server_create.nu *; use nulib/workflows/taskserv_create.nu *; use nulib/workflows/cluster_create.nu *"
        let examples = $user | value $"($modules)
            scope commands | where category == provisioning | select name examples"
        check same ($examples | where ($it.examples | is-empty) | get name) []
        let definitions = $examples.examples | flatten | get example | enumerate | each {|row| $"def example($row.index) [] { ($row.item) }" }
        let answer = $user | shell $"($modules)\n($definitions | str join (char newline))"
        check same [$answer.exit_code $answer.stderr] [0 ""]
    }
}

# What a page says about the tree: its links, and the paths in its text. The left-hand cells of tables tell of
# other places, and so does what is not here yet.
export def "test the pages about development and nushell point at what is there" [] {
    for page in [docs/development.md docs/user/nushell.md docs/user/migrating.md] {
        let file = $TREE | path join $page
        let text = open --raw $file | decode utf-8 | lines | where $it !~ "not part of this release" | each {|line|
            if ($line starts-with "|") { $line | split row "|" | get (($in | length) - 2) } else { $line }
        } | str join "\n"
        let links = $text | parse --regex '\]\((?<path>[^)#:]+)' | get path | each {|link| $file | path dirname | path join $link }
        let paths = $text | parse --regex '`(?<path>(?:nulib|engine|api|plugin|tests|docs)/[a-z0-9_./-]+)`' | get path | each {|path| $TREE | path join $path }
        check so ($links | is-not-empty) "the links are found"
        check same ($links ++ $paths | where not ($it | path exists)) []
    }
}

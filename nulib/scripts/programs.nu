# Finds the programs of this project: where a variable says, beside the front program, where cargo builds,
# and on the PATH.

const TREE = path self ../..

# The absolute path of a program.
export def find [
    name: string        # Such as `nu_plugin_orchestrator`
    variable: string    # The variable that names it, which is then the only place
]: nothing -> string {
    let named = $env | get --optional $variable | default ""
    let places = if ($named | is-not-empty) { [$named] } else {
        let cache = $env.XDG_CACHE_HOME? | default --empty "~/.cache" | path expand | path join orchestrator-target
        let builds = [($env.CARGO_TARGET_DIR? | default --empty ($TREE | path join target)) $cache] | each {|build|
            [($build | path join release $name) ($build | path join debug $name)]
        } | flatten
        [($TREE | path join nulib bin $name)] ++ $builds ++ (which --all $name | where type == external | get path)
    }
    let found = $places | where {|place| ($place | path type) in [file symlink] }
    if ($found | is-empty) {
        error make --unspanned {
            msg: $"there is no ($name)"
            help: $"it was looked for at ($places | str join ', ')(if ($named | is-empty) { ' and on the PATH' }); name it in ($variable)"
        }
    }
    $found.0 | path expand
}

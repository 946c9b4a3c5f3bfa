# The words that follow the program on its command line.

use fault.nu
use values.nu is-label

# Nushell takes a word that follows a program for a pattern of file names, so that nothing else is
# guessed from it. Here it is text again.
export def in-text []: any -> any {
    let word = $in
    if $word == null { null } else { $word | into string }
}

# The settings file that is named.
export def settings-path [path: any]: nothing -> string {
    if $path == null { fault permanent "name the settings file with --settings" }
    $path | in-text
}

# Names of servers.
export def names-in-text []: list<any> -> list<string> {
    let names = $in | each { in-text }
    let bad = $names | where not ($it | is-label)
    if ($bad | is-not-empty) {
        fault permanent $"'($bad.0)' is not a server name: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or a digit"
    }
    $names
}

# A name of another thing than a server, such as a taskserv.
export def name-in-text [kind: string]: any -> string {
    let name = $in | in-text
    if ($name | is-empty) { fault permanent $"name the ($kind)" }
    if not ($name | is-label) {
        fault permanent $"'($name)' is not a ($kind) name: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or a digit"
    }
    $name
}

# One of these operations.
export def operation-in-text [operations: list<string>]: any -> string {
    let operation = $in | in-text
    if $operation not-in $operations {
        fault permanent $"'($operation)' cannot be planned: use ($operations | str join ', ')"
    }
    $operation
}

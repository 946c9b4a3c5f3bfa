# A private directory for one call, which goes when the call is over, however it ends.

# Gives the work such a directory, and returns what the work returns.
export def with [work: closure]: nothing -> any {
    # Made by mktemp, which lets nobody else in.
    let directory = mktemp --directory --tmpdir "orchestrator-XXXXXXXXXX"
    try {
        let outcome = do $work $directory
        rm --recursive --force $directory
        $outcome
    } catch {|error|
        rm --recursive --force $directory
        error make $error.raw
    }
}

# Digests of structured values that do not depend on the order of keys.

# The same value with all keys sorted, at every depth.
export def canonical []: any -> any {
    let value = $in
    match ($value | describe --detailed | get type) {
        "record" => { $value | sort | items {|key, item| [$key ($item | canonical)] } | into record }
        "list" | "table" => { $value | each {|item| $item | canonical } }
        _ => $value
    }
}

# The SHA-256, in hexadecimal, of the value as JSON with sorted keys and no blanks.
@example "two spellings of one value" { ({b: 1, a: 2} | digest) == ({a: 2, b: 1} | digest) } --result true
export def digest []: any -> string {
    $in | canonical | to json --raw | hash sha256
}

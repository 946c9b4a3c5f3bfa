# Archives a folder: shows progress, a result, and what is worth another try.
#
#     orchestrator task submit archive.nu --params {folder: "/etc", into: "/var/backups"} --wait

use ../../orchestrator.nu *

def main []: any -> nothing {
    let params = $in | task params
    for name in [folder into] {
        if ($params | get --optional $name | is-empty) { task fail $"the parameter '($name)' is missing" --permanent }
    }
    if ($params.folder | path type) != "dir" { task fail $"($params.folder) is not a folder" --permanent }

    mkdir $params.into
    let archive = $params.into | path join $"($params.folder | path basename)-(date now | format date '%Y%m%dT%H%M%S').tar.gz"

    task progress "packing" --done 0 --of 2
    # Written under another name first, so that an attempt that breaks off leaves no archive by halves.
    let packed = ^tar --create --gzip --file $"($archive).part" --directory ($params.folder | path dirname) ($params.folder | path basename) | complete
    if $packed.exit_code != 0 {
        rm --force $"($archive).part"
        task fail $"tar: ($packed.stderr)"
    }
    mv $"($archive).part" $archive

    task progress "reading it back" --done 1 --of 2
    let files = ^tar --list --gzip --file $archive | lines | length
    task progress --done 2 --of 2
    task result {archive: $archive, files: $files, bytes: (ls --du $archive | get 0.size | into int), sha256: (open --raw $archive | hash sha256)}
}

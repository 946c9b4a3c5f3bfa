# Makes a password and keeps it in a file that only its owner can read. The log never shows it.
#
#     orchestrator task submit new-password.nu --params {file: "/etc/site/db.password"} --wait

use ../../orchestrator.nu *

def main []: any -> nothing {
    let params = $in | task params
    if ($params.file? | is-empty) { task fail "the parameter 'file' is missing" --permanent }
    if ($params.file | path exists) {
        # Run again after a crash, or by mistake: what is there stays.
        task result {file: $params.file, made: false}
        return
    }
    let password = random chars --length 32
    task mask $password
    let draft = mktemp --tmpdir-path ($params.file | path dirname) ".password-XXXXXX"
    $password | save --force $draft
    mv --no-clobber $draft $params.file
    print $"the password ($password) is in ($params.file)"
    task result {file: $params.file, made: true}
}

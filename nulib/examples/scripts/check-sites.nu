# Looks whether web sites answer. One that does not makes the task fail, and the engine tries again.
#
#     orchestrator task submit check-sites.nu --params {urls: ["http://127.0.0.1:8080/health"]} --wait

use ../../orchestrator.nu *

def main []: any -> nothing {
    let urls = $in | task params | get --optional urls | default []
    if ($urls | is-empty) { task fail "the parameter 'urls' is missing or empty" --permanent }

    let sites = $urls | enumerate | each {|entry|
        task progress $entry.item --done $entry.index --of ($urls | length)
        let started = date now
        let answer = try {
            http get --full --allow-errors --max-time 10sec $entry.item | {status: $in.status, problem: null}
        } catch {|error| {status: null, problem: $error.msg} }
        let took_ms = ((date now) - $started) / 1ms | math round
        {url: $entry.item, up: ($answer.status != null and $answer.status < 400), status: $answer.status, problem: $answer.problem, took_ms: $took_ms}
    }
    task result $sites
    let down = $sites | where not up
    if ($down | is-not-empty) { task fail $"no good answer from ($down.url | str join ', ')" }
}

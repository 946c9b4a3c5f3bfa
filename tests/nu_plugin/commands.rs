//! The commands against a real engine: what goes in, what comes out, what can be piped into what.

use std::fs;

use serde_json::{Value, json};

use crate::shell::Shell;

fn names(rows: &Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
}

#[test]
fn a_script_gets_its_parameters_and_its_result_comes_back_as_data() {
    let Some(shell) = Shell::new() else { return };
    shell.script(
        "deploy.nu",
        "    print $env.REGION $env.PWD\n    print $\"::result ($params | to json -r)\"",
    );
    let line =
        "orchestrator task submit deploy.nu --params {host: 'a b; $(rm)', size: 2} --env {REGION: eu} --wait";
    let task = shell.value(line);
    assert_eq!(
        (&task["status"], &task["name"], &task["kind"]),
        (&json!("Completed"), &json!("deploy"), &json!("command"))
    );
    assert_eq!(task["result"], json!({"host": "a b; $(rm)", "size": 2}));
    let home = shell.home().canonicalize().unwrap();
    assert_eq!(task["output"].as_str().unwrap().lines().collect::<Vec<_>>(), ["eu", home.to_str().unwrap()]);
}

#[test]
fn values_have_their_real_types() {
    let Some(shell) = Shell::new() else { return };
    shell.script("ok.nu", "    print ok");
    let types = shell.value(
        "orchestrator task submit ok.nu --wait | do {|task| [
            ($task.created | describe) ($task.duration | describe) ($task.grace | describe)
            ($task.attempts.0.started | describe) ((orchestrator status).storage.free | describe)
            ((orchestrator status).uptime | describe) ((orchestrator task logs $task.id).0.time | describe)
        ] } $in",
    );
    assert_eq!(
        types,
        json!(["datetime", "duration", "duration", "datetime", "filesize", "duration", "datetime"])
    );
}

#[test]
fn a_table_of_parameters_is_one_submission_and_keeps_its_order() {
    let Some(shell) = Shell::new() else { return };
    shell.script("one.nu", "    sleep ($params.wait * 1ms)\n    print $'::result ($params.host | to json)'");
    let rows = shell.value(
        "[[host wait]; [a 60] [b 0] [c 30]] | orchestrator task submit one.nu --wait | select name result",
    );
    let expected = [("one-1", "a"), ("one-2", "b"), ("one-3", "c")];
    assert_eq!(rows, json!(expected.map(|(name, result)| json!({"name": name, "result": result}))));
}

#[test]
fn failed_tasks_are_listed_retried_and_waited_for_in_one_pipe() {
    let Some(shell) = Shell::new() else { return };
    shell.script("flaky.nu", "    if not ($params.mark | path exists) { touch $params.mark; exit 1 }");
    shell.text("[[mark]; [m1] [m2]] | orchestrator task submit flaky.nu --retries 0 --wait");
    assert_eq!(shell.value("orchestrator task list --status failed | length"), json!(2));
    let line = "orchestrator task list --status failed | orchestrator task retry | orchestrator task wait | get status";
    assert_eq!(shell.value(line), json!(["Completed", "Completed"]));
    assert_eq!(shell.value("orchestrator task list --status [completed] | length"), json!(2));
    let again = shell.code("orchestrator task list | orchestrator task retry");
    assert_eq!(again, "orchestrator::conflict");
}

#[test]
fn a_workflow_that_failed_is_retried_with_its_tasks_out_of_one_list() {
    let Some(shell) = Shell::new() else { return };
    shell.script("flaky.nu", "    if not ($params.mark | path exists) { touch $params.mark; exit 1 }");
    let steps =
        "[[name script params retries after]; [a flaky.nu {mark: m1} 0 []] [b flaky.nu {mark: m2} 0 []]
                  [c flaky.nu {mark: m3} 1 [a]]]";
    shell.text(&format!("{steps} | orchestrator workflow submit site --wait | ignore"));
    // The tasks, the one that they took along, and the workflow, in both orders.
    let line = "orchestrator task list --status [failed cancelled]
                | REVERSE orchestrator task retry | orchestrator task wait | get status | uniq";
    assert_eq!(shell.value("orchestrator task list --status [failed cancelled] | length"), json!(4));
    assert_eq!(shell.value(&line.replace("REVERSE", "")), json!(["Completed"]));
    shell.text("rm m1 m2 m3");
    shell.text(&format!("{steps} | orchestrator workflow submit site --wait | ignore"));
    assert_eq!(shell.value(&line.replace("REVERSE", "reverse |")), json!(["Completed"]));
    assert_eq!(shell.value("orchestrator task list | get status | uniq"), json!(["Completed"]));
}

#[test]
fn ids_come_from_arguments_lists_records_and_closures() {
    let Some(shell) = Shell::new() else { return };
    shell.script("ok.nu", "    print ok");
    let lengths = shell.value(
        "let a = (orchestrator task submit ok.nu)
         let b = (orchestrator task submit ok.nu)
         [
            (orchestrator task get $a.id $b.id | length)
            ([$a.id $b.id] | orchestrator task wait | length)
            ($a.id | orchestrator task get | get name)
            ($a | orchestrator task wait | get status)
            ([$a $b] | orchestrator task explain | get reasons | flatten | get kind | uniq)
            (1..2 | each {|n| orchestrator task get $a.id | get name } | length)
            ([x y] | each {|n| orchestrator task submit ok.nu --params {n: $n} | get name } | length)
         ]",
    );
    assert_eq!(lengths, json!([2, 2, "ok", "Completed", ["ended"], 2, 2]));
}

#[test]
fn a_running_task_is_called_off() {
    let Some(shell) = Shell::new() else { return };
    shell.waiting_script("long.nu");
    let task = shell.value(
        "let task = (orchestrator task submit long.nu)
         while (orchestrator task get $task.id).status == Pending { sleep 5ms }
         $task | orchestrator task cancel --reason 'wrong settings'
         orchestrator task wait $task.id",
    );
    assert_eq!(task["status"], json!("Cancelled"));
    assert_eq!(task["cancelled_because"], json!("wrong settings"));
}

#[test]
fn a_paused_group_says_so_and_goes_on() {
    let Some(shell) = Shell::new() else { return };
    shell.script("ok.nu", "    print ok");
    let paused = shell.value("orchestrator task pause --group web");
    assert_eq!(paused, json!({"paused": false, "groups": ["web"]}));
    let explanation = shell.value("orchestrator task submit ok.nu --group web | orchestrator task explain");
    assert_eq!(explanation["reasons"][0]["kind"], json!("paused"));
    assert_eq!(shell.value("orchestrator task resume --group web")["groups"], json!([]));
    let ended = shell.value("orchestrator task list --group web | orchestrator task wait | get status");
    assert_eq!(ended, json!(["Completed"]));
    assert_eq!(shell.value("orchestrator task pause")["paused"], json!(true));
    assert_eq!(shell.value("orchestrator task resume")["paused"], json!(false));
}

#[test]
fn steps_of_a_workflow_run_in_order_and_a_cycle_queues_nothing() {
    let Some(shell) = Shell::new() else { return };
    shell.script("step.nu", "    $\"($params.step)\\n\" | save --append order.txt");
    let workflow = shell.value(
        "[[name script after params];
          [app step.nu [db cache] {step: app}] [db step.nu null {step: db}] [cache step.nu db {step: cache}]]
         | orchestrator workflow submit site --wait",
    );
    assert_eq!((&workflow["status"], &workflow["kind"]), (&json!("Completed"), &json!("workflow")));
    assert_eq!(names(&workflow["tasks"]).len(), 3);
    assert_eq!(fs::read_to_string(shell.home().join("order.txt")).unwrap(), "db\ncache\napp\n");
    let id = workflow["id"].as_str().unwrap();
    assert_eq!(shell.value(&format!("orchestrator task list --workflow {id} | length")), json!(3));
    assert_eq!(shell.value(&format!("(orchestrator task logs {id}) | length")), json!(0));

    let before = shell.value("orchestrator task list | length");
    let cycle = shell
        .error("[[name script after]; [a step.nu b] [b step.nu a]] | orchestrator workflow submit circle");
    assert_eq!(cycle["code"], json!("orchestrator::invalid"));
    assert!(
        cycle["msg"].as_str().unwrap().contains("a -> b")
            || cycle["msg"].as_str().unwrap().contains("b -> a"),
        "{cycle}"
    );
    assert_eq!(shell.value("orchestrator task list | length"), before);
}

#[test]
fn a_failed_step_cancels_what_comes_after_it() {
    let Some(shell) = Shell::new() else { return };
    shell.script("bad.nu", "    print '::fail permanent no disk'; exit 1");
    shell.script("ok.nu", "    print ok");
    let workflow = shell.value(
        "[[name script after]; [disk bad.nu []] [app ok.nu disk]] | orchestrator workflow submit site --wait",
    );
    assert_eq!(workflow["status"], json!("Failed"));
    let status = |index: usize| workflow["tasks"][index]["status"].clone();
    assert_eq!(names(&workflow["tasks"]), ["disk", "app"]);
    assert_eq!((status(0), status(1)), (json!("Failed"), json!("Cancelled")));
}

#[test]
fn a_key_makes_a_submission_repeatable() {
    let Some(shell) = Shell::new() else { return };
    shell.script("ok.nu", "    print ok");
    let line = "orchestrator task submit ok.nu --idempotency-key nightly";
    let first = shell.value(line);
    let second = shell.value(line);
    assert_eq!((&first["existed"], &second["existed"]), (&json!(false), &json!(true)));
    assert_eq!(first["id"], second["id"]);
    assert_eq!(shell.code(&format!("{line} --priority 1")), "orchestrator::conflict");
}

#[test]
fn a_task_waits_for_its_dependency_and_for_its_time() {
    let Some(shell) = Shell::new() else { return };
    shell.waiting_script("first.nu");
    shell.script("second.nu", "    print second");
    let kinds = shell.value(
        "let first = (orchestrator task submit first.nu)
         let second = (orchestrator task submit second.nu --depends-on $first.id)
         let third = (orchestrator task submit second.nu --not-before ((date now) + 1hr))
         [$second $third] | orchestrator task explain | get reasons | each {|reasons| $reasons.0.kind }",
    );
    assert_eq!(kinds, json!(["dependency", "not_before"]));
    shell.go();
    let line = "orchestrator task list --text second | where not_before? == null and priority == 0 \
                | last | orchestrator task wait | get status";
    assert_eq!(shell.value(line), json!("Completed"));
}

#[test]
fn waiting_gives_up_when_its_time_is_over_and_the_task_goes_on() {
    let Some(shell) = Shell::new() else { return };
    shell.waiting_script("long.nu");
    let id = shell.value("orchestrator task submit long.nu")["id"].as_str().unwrap().to_owned();
    assert_eq!(
        shell.code(&format!("orchestrator task wait {id} --timeout 100ms")),
        "orchestrator::timed_out"
    );
    shell.go();
    assert_eq!(shell.value(&format!("orchestrator task wait {id} | get status")), json!("Completed"));
}

#[test]
fn output_is_shown_by_stream_by_attempt_and_by_its_end() {
    let Some(shell) = Shell::new() else { return };
    shell.script(
        "talk.nu",
        "    print one; print -e two; print three\n    if $env.ORCHESTRATOR_ATTEMPT == '1' { exit 1 }",
    );
    let logs = shell.value(
        "let task = (orchestrator task submit talk.nu --retry-base 1ms --wait)
         [
            (orchestrator task logs $task.id --stream err | get line)
            (orchestrator task logs $task.id --stream out --tail 1 | get line)
            (orchestrator task logs $task.id | get attempt | uniq)
            (orchestrator task logs $task.id --attempt 1 --stream out | get attempt | uniq)
            (orchestrator task logs $task.id --stream out --raw)
            (orchestrator task logs $task.id --follow --stream out --raw | lines | length)
         ]",
    );
    assert_eq!(logs, json!([["two"], ["three"], [2], [1], "one\nthree\n", 2]));
}

#[test]
fn servers_are_created_by_one_task_each() {
    let Some(shell) = Shell::new() else { return };
    let worker = "def main [] {}
        def 'main server names' [...names: string --infra: string --settings: string --check] {
            print $\"::result (open --raw $settings | lines | to json -r)\"
        }
        def 'main server create' [...names: string --infra: string --settings: string --check] {
            print $\"::result ({name: $names.0, infra: $infra, plan: $check} | to json -r)\"
        }";
    fs::write(shell.home().join("worker.nu"), worker).unwrap();
    fs::write(shell.home().join("settings.yaml"), "web-01\nweb-02\n").unwrap();
    shell.text("orchestrator start --provisioning-path worker.nu");
    let create = "orchestrator workflow server create --infra prod --settings ./settings.yaml";
    let workflow = shell.value(&format!("{create} web-02 web-01 --check --wait"));
    assert_eq!(workflow["status"], json!("Completed"), "{workflow}");
    let results: Vec<&Value> =
        workflow["tasks"].as_array().unwrap().iter().map(|task| &task["result"]).collect();
    assert_eq!(
        results,
        [
            &json!({"name": "web-02", "infra": "prod", "plan": true}),
            &json!({"name": "web-01", "infra": "prod", "plan": true})
        ]
    );
    let refused = shell.complaint(&format!("{create} web-01 '--x;^rm'"));
    assert!(refused.contains("not accepted") || refused.contains("unknown"), "{refused}");
    let hostile = shell.error(&format!("{create} web-01 ...['--x;^rm']"));
    assert_eq!(hostile["code"], json!("orchestrator::invalid"), "{hostile}");
    let missing = shell.error("orchestrator workflow server create --infra prod --settings none.yaml");
    assert_eq!(missing["code"], json!("orchestrator::invalid"));
}

//! What the user reads: help, completion, tables, errors.

use serde_json::{Value, json};

use crate::shell::Shell;

#[test]
fn every_example_in_the_help_is_valid_nushell() {
    let Some(shell) = Shell::new() else { return };
    let examples =
        shell.value("scope commands | where name =~ '^orchestrator' | get examples | flatten | get example");
    let examples: Vec<&str> =
        examples.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert!(examples.len() > 30, "{examples:?}");
    let definitions: String = examples
        .iter()
        .enumerate()
        .map(|(number, text)| format!("def example{number} [] {{ {text} }}\n"))
        .collect();
    shell.text(&definitions);
}

#[test]
fn a_command_with_subcommands_shows_its_help() {
    let Some(shell) = Shell::new() else { return };
    for (line, mentioned) in [
        ("orchestrator", "orchestrator task"),
        ("orchestrator task", "orchestrator task submit"),
        ("orchestrator workflow", "orchestrator workflow server"),
        ("orchestrator workflow server", "orchestrator workflow server create"),
        ("orchestrator workflow taskserv", "orchestrator workflow taskserv verify"),
        ("orchestrator workflow cluster", "orchestrator workflow cluster delete"),
        ("orchestrator test", "orchestrator test quick"),
        ("orchestrator test env", "orchestrator test env cleanup"),
        ("orchestrator test topology", "orchestrator test topology load"),
        ("orchestrator test image", "orchestrator test image prune"),
    ] {
        assert!(shell.text(line).contains(mentioned), "{line}");
    }
    assert!(shell.client().is_none(), "help must not start an engine");
}

#[test]
fn help_reads_well() {
    let Some(shell) = Shell::new() else { return };
    for command in ["orchestrator task submit", "orchestrator task list", "orchestrator workflow submit"] {
        let text = shell.text(&format!("help {command} | ansi strip"));
        insta::with_settings!({ prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(command.replace(' ', "_"), text);
        });
    }
}

#[test]
fn a_list_of_tasks_is_a_readable_table() {
    let Some(shell) = Shell::new() else { return };
    shell.script("good.nu", "    print '::progress 2/2 done'");
    shell.script("bad.nu", "    print '::fail permanent no such disk'; exit 3");
    let table = shell.text(
        "orchestrator task submit good.nu --group web --priority 5 --wait
         orchestrator task submit bad.nu --wait
         orchestrator task list | reject id created duration | table --width 110 | ansi strip",
    );
    insta::with_settings!({ prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("task_list_table", table);
    });
}

#[test]
fn errors_point_at_what_was_typed_and_say_what_to_do() {
    let Some(shell) = Shell::new() else { return };
    let complaints: Vec<String> = [
        "orchestrator task submit missing.nu",
        "orchestrator task get web-01",
        "orchestrator task list --status broken",
        "[[script, after]; [missing.nu, []]] | orchestrator workflow submit site",
        "[[script, atfer]; [missing.nu, []]] | orchestrator workflow submit site",
    ]
    .into_iter()
    .map(|line| shell.complaint(line))
    .collect();
    insta::with_settings!({ prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("errors", complaints.join("\n\n"));
    });
}

#[test]
fn wrong_arguments_are_refused_before_anything_happens() {
    let Some(shell) = Shell::new() else { return };
    for line in [
        "orchestrator task submit",
        "orchestrator task submit x.nu --retires 3",
        "orchestrator task wait --timeout soon 01890a5d-ac96-774b-bcce-b302099a8057",
        "orchestrator workflow server create web-01 --settings s.yaml",
        "orchestrator start --port http",
    ] {
        shell.complaint(line);
    }
    assert!(shell.client().is_none(), "no engine should have been started");
}

fn completions(shell: &Shell, line: &str) -> Value {
    shell.value(&format!("'{line}' | commandline complete"))
}

#[test]
fn tab_offers_what_there_is_and_never_starts_an_engine() {
    let Some(shell) = Shell::new() else { return };
    let fixed = json!(["cancelled", "completed", "failed", "pending", "running"]);
    assert_eq!(completions(&shell, "orchestrator task list --status "), fixed);
    assert_eq!(completions(&shell, "orchestrator task list --kind w"), json!(["workflow"]));
    assert_eq!(completions(&shell, "orchestrator task logs x --stream "), json!(["err", "out"]));
    // Without an engine Nushell offers what it offers by itself: names of files.
    let without = completions(&shell, "orchestrator task get ");
    let is_file = |name: &Value| shell.home().join(name.as_str().unwrap()).exists();
    assert!(without.as_array().unwrap().iter().all(is_file), "{without}");
    assert!(shell.client().is_none(), "Tab must not start an engine");

    shell.script("ok.nu", "    print ok");
    shell.script("bad.nu", "    exit 1");
    let good = shell.value("orchestrator task submit ok.nu --group web --wait")["id"].clone();
    let bad = shell.value("orchestrator task submit bad.nu --retries 0 --wait")["id"].clone();
    assert_eq!(completions(&shell, "orchestrator task retry "), json!([bad]));
    assert_eq!(completions(&shell, "orchestrator task cancel "), json!([]));
    let all = completions(&shell, "orchestrator task get ");
    assert!(all.as_array().unwrap().contains(&good) && all.as_array().unwrap().contains(&bad), "{all}");
    assert_eq!(completions(&shell, "orchestrator task list --group w"), json!(["web"]));
    let detailed = shell.value("'orchestrator task retry ' | commandline complete --detailed");
    assert_eq!(detailed[0]["description"], json!("bad, failed"));
}

//! The user at the keyboard: Ctrl-C, and the line that shows how far things are.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use orchestrator_tests::wait;
use serde_json::json;

use crate::shell::{Running, Shell};

#[test]
fn ctrl_c_stops_following_and_not_the_task() {
    let Some(shell) = Shell::new() else { return };
    shell.waiting_script("long.nu");
    let id = shell.text("(orchestrator task submit long.nu).id");
    for flags in ["--raw", ""] {
        let line = format!(
            "orchestrator task logs {id} --follow {flags} | each {{ |line| print $\"saw ($line)\" }}"
        );
        let line =
            if flags.is_empty() { line } else { format!("orchestrator task logs {id} --follow --raw") };
        let following = Running::start(&shell, &line);
        assert!(following.line().contains("ready"));
        following.interrupt();
        following.end();
        assert_eq!(shell.value(&format!("(orchestrator task get {id}).status")), json!("Running"));
    }
    shell.go();
    assert_eq!(shell.value(&format!("(orchestrator task wait {id}).status")), json!("Completed"));
}

#[test]
fn ctrl_c_stops_waiting_and_not_the_task() {
    let Some(shell) = Shell::new() else { return };
    shell.waiting_script("long.nu");
    let id = shell.text("(orchestrator task submit long.nu).id");
    for line in [
        format!("print waiting; orchestrator task wait {id}"),
        "print waiting; orchestrator task submit long.nu --wait".to_owned(),
    ] {
        let waiting = Running::start(&shell, &line);
        assert_eq!(waiting.line(), "waiting");
        shell.text(&format!("while (orchestrator task get {id}).status == Pending {{ sleep 5ms }}"));
        waiting.interrupt();
        let said = waiting.end();
        assert!(said.contains("interrupted"), "{said}");
    }
    shell.go();
    let ended = shell.value("orchestrator task list | orchestrator task wait | get status | uniq");
    assert_eq!(ended, json!(["Completed"]));
}

#[test]
fn events_come_as_they_happen_until_ctrl_c_and_can_be_taken_up_again() {
    let Some(shell) = Shell::new() else { return };
    shell.script("work.nu", "    print '::progress 1/2 half'");
    // A place in another life of the engine: the first row says so, and that it listens from now on.
    let line = "orchestrator events --since gone:0 --group g
                | each {|event| print $'($event.kind) ($event.status) ($event.cursor)' } | ignore";
    let listening = Running::start(&shell, line);
    let reset = listening.line();
    assert!(reset.starts_with("reset  "), "{reset}");
    shell.text("orchestrator task submit work.nu --group other --wait");
    shell.text("orchestrator task submit work.nu --group g --wait");
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|line: &String| line.starts_with("task Completed")) {
        seen.push(listening.line());
    }
    assert!(seen[0].starts_with("task Pending"), "{seen:?}");
    listening.interrupt();
    listening.end();
    // From the first of them on, the rest comes again.
    let cursor = seen[0].rsplit(' ').next().unwrap();
    let again = shell.value(&format!(
        "orchestrator events --since {cursor} --group g | first {} | each {{|event| $event.cursor }}",
        seen.len() - 1
    ));
    let cursors: Vec<&str> = seen[1..].iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(again, json!(cursors));
}

#[test]
fn the_plugin_ends_with_its_shell_though_it_waits() {
    let Some(shell) = Shell::new() else { return };
    shell.waiting_script("long.nu");
    let id = shell.text("(orchestrator task submit long.nu).id");
    let lines = [
        format!("orchestrator task logs {id} --follow --raw"),
        format!("print ready; orchestrator task wait {id}"),
        format!("print ready; [\"{id}\"] | orchestrator task wait"),
    ];
    let running: Vec<Running> = lines.iter().map(|line| Running::start(&shell, line)).collect();
    assert!(running.iter().all(|shell| shell.line() == "ready"));
    wait::until("three plugins", || (shell.plugins().len() == 3).then_some(()));
    running.into_iter().for_each(Running::kill);
    wait::until("the plugins to end", || shell.plugins().is_empty().then_some(()));
    shell.go();
}

/// What a terminal is sent when a line runs on it. As soon as it has been sent `sign`, waiting scripts go on.
fn on_a_terminal(shell: &Shell, line: &str, sign: &str) -> String {
    let nu = shell.command(line);
    let words: Vec<String> = std::iter::once(nu.get_program())
        .chain(nu.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''")))
        .collect();
    let mut terminal = Command::new("script");
    shell.prepare(&mut terminal);
    terminal.args(["-q", "-e", "-c"]).arg(words.join(" ")).arg("/dev/null");
    let mut terminal = terminal.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut screen = terminal.stdout.take().unwrap();
    let (sender, pieces) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = screen.read(&mut buffer) {
            if sender.send(buffer[..read].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut seen = Vec::new();
    loop {
        match pieces.recv_timeout(wait::PATIENCE) {
            Ok(piece) => seen.extend(piece),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs: {:?}", String::from_utf8_lossy(&seen)),
        }
        if String::from_utf8_lossy(&seen).contains(sign) {
            shell.go();
        }
    }
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(terminal.wait().unwrap().success(), "{seen:?}");
    seen
}

#[test]
fn progress_is_shown_on_a_terminal_and_wiped_and_nowhere_else() {
    let Some(shell) = Shell::new() else { return };
    let body = "    print '::progress 1/4 pulling image'\n    while not ('go' | path exists) { sleep 5ms }";
    shell.script("work.nu", body);
    let line = "(orchestrator task submit work.nu --wait).status";
    let seen = on_a_terminal(&shell, line, "work: running, 25 %, pulling image");
    assert!(seen.contains("work: running, 25 %, pulling image"), "{seen:?}");
    let after_the_line = seen.rsplit("\x1b[2K").next().unwrap();
    assert_eq!(after_the_line.trim(), "Completed");
    let piped = shell.run(line);
    assert_eq!(String::from_utf8_lossy(&piped.stderr), "");
    assert_eq!(String::from_utf8_lossy(&piped.stdout).trim(), "Completed");
}

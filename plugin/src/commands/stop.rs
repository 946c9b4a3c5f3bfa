//! `orchestrator stop`

use std::time::{Duration, Instant};

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, Flag, LabeledError, PipelineData, Signature, Type, Value, record};
use orchestrator_protocol::request::{GetStatus, StopEngine, StopMode};
use rustix::process::{Pid, WaitOptions, test_kill_process, waitpid};

use super::SignatureExt;
use crate::connection::Session;
use crate::errors::{error, invalid};
use crate::plugin::Orchestrator;
use crate::progress::Line;
use crate::values::count;

/// Stops the engine.
pub struct Stop;

/// Between two looks whether the engine has gone.
const POLL: Duration = Duration::from_millis(20);

/// How long the process may live on after its socket is closed: it syncs its files.
const EXIT_PATIENCE: Duration = Duration::from_secs(10);

impl PluginCommand for Stop {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator stop"
    }

    fn description(&self) -> &str {
        "Stop the engine, and wait until it has gone."
    }

    fn extra_description(&self) -> &str {
        "It takes nothing new, lets running scripts end, then stops. Tasks that wait stay in the queue for the next \
engine. Ctrl-C stops waiting; the engine still stops. When none runs, that is said, and is no error."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["shutdown", "drain", "quit", "down", "daemon"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name())
            .for_engine()
            .param(
                Flag::new("now")
                    .short('n')
                    .desc("Stop at once and leave scripts running: the next engine finds them"),
            )
            .param(Flag::new("cancel").short('c').desc("Cancel what runs, then stop"))
            .input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Let running scripts end, then stop",
                example: "orchestrator stop",
                result: None,
            },
            Example {
                description: "Restart the engine while scripts go on",
                example: "orchestrator stop --now; orchestrator start",
                result: None,
            },
        ]
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let mode = match (call.has_flag("now")?, call.has_flag("cancel")?) {
            (true, true) => {
                let span = call.get_flag_span("cancel").unwrap_or(call.head);
                return Err(invalid(
                    "--now leaves scripts running, --cancel ends them",
                    "choose one of the two",
                    span,
                ));
            }
            (true, false) => StopMode::Now,
            (false, true) => StopMode::Cancel,
            (false, false) => StopMode::Drain,
        };
        let session = Session::open(plugin, engine, call)?.without_start();
        let place = session.place(call.head);
        let answer = |was_running, scripts| {
            let record = record! {
                "was_running" => Value::bool(was_running, call.head),
                "scripts" => count(scripts, call.head),
            };
            Ok(PipelineData::value(Value::record(record, call.head), None))
        };
        let pid = match session.ask(GetStatus {}) {
            Ok(status) => Some(status.pid),
            Err(failure) if failure.is_not_running() => return answer(false, 0_u64),
            // It cannot say, because its storage is away. It can stop.
            Err(failure) if failure.is_unavailable() => None,
            Err(failure) => return Err(failure.at(place)),
        };
        let running = session.ask(StopEngine { mode }).map_err(|failure| failure.at(place))?.running;
        session.forget();
        await_end(&session, pid, running, Line::for_command(engine), call)?;
        answer(true, running)
    }
}

/// Waits until nothing listens on the socket any more, and the process has gone.
fn await_end(
    session: &Session,
    pid: Option<u32>,
    running: u64,
    mut line: Line,
    call: &EvaluatedCall,
) -> Result<(), LabeledError> {
    let mut closed_at = None;
    loop {
        match closed_at {
            None if !session.is_alive() => closed_at = Some(Instant::now()),
            // Its number may be another process's where it runs in a container: then the socket has to do.
            Some(at) if pid.is_none_or(|pid| !is_alive(pid)) || at.elapsed() > EXIT_PATIENCE => return Ok(()),
            _ => {}
        }
        if session.interrupted() {
            return Err(error(
                "interrupted",
                "Stopped waiting",
                "the engine still stops by itself",
                call.head,
            )
            .with_help("`orchestrator stop --cancel` ends what runs, `--now` leaves it to the next engine"));
        }
        line.draw(|elapsed| format!("stopping, {running} scripts ran ({} s)", elapsed.as_secs()));
        std::thread::sleep(POLL);
    }
}

/// Whether a process exists. An engine that this plugin has started is its child, and is buried first; one
/// that has ended, and whose parent has not noticed yet, counts as gone.
fn is_alive(pid: u32) -> bool {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    if let Ok(Some(_)) = waitpid(Some(raw), WaitOptions::NOHANG) {
        return false;
    }
    test_kill_process(raw).is_ok() && !is_zombie(pid)
}

fn is_zombie(pid: u32) -> bool {
    // The state follows the program's name, which stands in brackets and may hold anything. Where there is
    // no such file, nothing can be told, and the process counts as alive.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_process_that_has_ended_is_not_alive_though_nobody_has_buried_it() {
        assert!(is_alive(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let end = Instant::now() + EXIT_PATIENCE;
        while !is_zombie(child.id()) && Instant::now() < end {
            std::thread::yield_now();
        }
        assert!(is_zombie(child.id()));
        assert!(!is_alive(child.id()));
        // Buried by now.
        let _ = child.wait();
        assert!(!is_alive(child.id()));
        assert!(!is_alive(0));
    }
}

//! One line on the terminal that says how far things are, while a command waits.
//!
//! It is drawn on standard error, over itself, and wiped when the command goes on. Where there is no
//! terminal, or standard output goes into a pipe, nothing is drawn.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use nu_plugin::EngineInterface;
use orchestrator_protocol::task::{Task, TaskStatus, Work};

use crate::values::task::fraction;

/// The width of a terminal that does not tell its own.
const DEFAULT_WIDTH: usize = 80;

/// The line.
#[derive(Debug)]
pub struct Line {
    visible: bool,
    drawn: String,
    start: Instant,
}

impl Line {
    /// A line for a command: visible where the user is looking.
    pub fn for_command(engine: &EngineInterface) -> Self {
        // With standard input and output taken by Nushell, only standard error can tell.
        let watched = engine.is_using_stdio() || io::stdout().is_terminal();
        Self { visible: watched && io::stderr().is_terminal(), drawn: String::new(), start: Instant::now() }
    }

    /// Draws what `describe` says of the time since the line was made, if that has changed.
    pub fn draw(&mut self, describe: impl FnOnce(Duration) -> String) {
        if !self.visible {
            return;
        }
        let text = fit(&describe(self.start.elapsed()), terminal_width());
        if text != self.drawn {
            self.write(&format!("\r\x1b[2K{text}"));
            self.drawn = text;
        }
    }

    /// Wipes the line.
    pub fn wipe(&mut self) {
        if !self.drawn.is_empty() {
            self.write("\r\x1b[2K");
            self.drawn.clear();
        }
    }

    fn write(&mut self, text: &str) {
        let mut stderr = io::stderr().lock();
        // A terminal that has gone has nobody before it.
        if stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).is_err() {
            self.visible = false;
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.wipe();
    }
}

fn terminal_width() -> usize {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => DEFAULT_WIDTH,
    }
}

/// A text made harmless and short enough to stay on one line.
fn fit(text: &str, width: usize) -> String {
    // What a script says of its progress must not be able to steer the terminal.
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let room = width.saturating_sub(1);
    if clean.chars().count() <= room {
        return clean;
    }
    clean.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

/// How far some tasks are, of which `total` were asked for.
pub fn describe<'a>(
    tasks: impl Iterator<Item = &'a Task> + Clone,
    total: usize,
    elapsed: Duration,
) -> String {
    let what = match (total, tasks.clone().next()) {
        (1, Some(task)) => one(task),
        _ => many(tasks, total),
    };
    format!("{what} ({} s)", elapsed.as_secs())
}

fn one(task: &Task) -> String {
    let mut parts = Vec::new();
    match &task.work {
        Work::Workflow(summary) => {
            parts.push(sum(summary.total, summary.completed, summary.failed, summary.cancelled))
        }
        Work::Command(_) | Work::Action(_) => {
            parts.push(task.status.as_str().to_lowercase());
            if task.attempt > 1 {
                parts.push(format!("attempt {}", task.attempt));
            }
            if let Some(fraction) = fraction(task) {
                parts.push(format!("{:.0} %", fraction * 100.0));
            }
        }
    }
    if let Some(progress) = task.progress.as_ref().filter(|progress| !progress.message.is_empty()) {
        parts.push(progress.message.clone());
    }
    format!("{}: {}", task.name, parts.join(", "))
}

fn many<'a>(tasks: impl Iterator<Item = &'a Task> + Clone, total: usize) -> String {
    let number = |status| tasks.clone().filter(|task| task.status == status).count() as u64;
    let (done, failed, cancelled) =
        (number(TaskStatus::Completed), number(TaskStatus::Failed), number(TaskStatus::Cancelled));
    let running = number(TaskStatus::Running);
    let mut text = sum(total as u64, done, failed, cancelled);
    if running > 0 {
        text.push_str(&format!(", {running} running"));
    }
    text
}

fn sum(total: u64, completed: u64, failed: u64, cancelled: u64) -> String {
    let mut text = format!("{completed} of {total} done");
    for (number, word) in [(failed, "failed"), (cancelled, "cancelled")] {
        if number > 0 {
            text.push_str(&format!(", {number} {word}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use orchestrator_protocol::task::{Progress, Workflow};

    use super::*;
    use crate::tests::fixtures::{task, workflow};

    #[test]
    fn one_task_is_described_by_its_own_progress() {
        let mut task = task("web-01");
        task.status = TaskStatus::Running;
        task.attempt = 2;
        task.progress =
            Some(Progress { fraction: Some(0.3), done: Some(3), total: Some(10), message: "pulling".into() });
        let text = describe([&task].into_iter(), 1, Duration::from_secs(12));
        assert_eq!(text, "web-01: running, attempt 2, 30 %, pulling (12 s)");
    }

    #[test]
    fn a_workflow_and_several_tasks_are_counted() {
        let mut group = workflow("site");
        group.work = Work::Workflow(Workflow { total: 5, completed: 2, failed: 1, cancelled: 0 });
        assert_eq!(describe([&group].into_iter(), 1, Duration::ZERO), "site: 2 of 5 done, 1 failed (0 s)");
        let (mut a, b) = (task("a"), task("b"));
        a.status = TaskStatus::Running;
        assert_eq!(describe([&a, &b].into_iter(), 3, Duration::ZERO), "0 of 3 done, 1 running (0 s)");
    }

    #[test]
    fn a_line_stays_on_its_line_and_cannot_steer_the_terminal() {
        assert_eq!(fit("short", 10), "short");
        assert_eq!(fit("0123456789", 10), "01234567…");
        assert_eq!(fit("a\x1b[2Jb\nc", 40), "a [2Jb c");
    }
}

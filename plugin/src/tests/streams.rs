//! Lists and streams: read as far as they are asked for, ended by errors, renewed after a break.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicUsize, Ordering};

use nu_protocol::Value;
use orchestrator_protocol::Error;
use orchestrator_protocol::event::{EventCursor, Item, LogLine, OutputStream};
use orchestrator_protocol::request::{
    Changed, ListTasks, LogsRequest, Request, Response, Subscription, TaskPage,
};
use orchestrator_protocol::task::{Task, TaskId, TaskStatus};

use super::fixtures::{event, moment, task};
use super::played::{Behaviour, Play, Played, Shell, Stream, Then};

/// Pages of two tasks without end.
struct Endless;

impl Behaviour for Endless {
    fn answer(&self, request: &Request) -> Play {
        let Request::ListTasks(ListTasks { cursor, limit, .. }) = request else { return Play::HangUp };
        let page: usize = cursor.as_deref().map_or(0, |cursor| cursor.parse().unwrap());
        let tasks = (0..2.min(limit.unwrap())).map(|index| task(&format!("t{}", page * 2 + index))).collect();
        Response::ListTasks(TaskPage { tasks, cursor: Some((page + 1).to_string()) }).into()
    }
}

#[test]
fn only_the_pages_that_are_needed_are_read() {
    let engine = Played::start(Endless);
    let mut shell = engine.shell();
    let mut stream = shell.0.eval("orchestrator task list").unwrap().into_iter();
    let names: Vec<Value> = (0..3).map(|_| stream.next().unwrap().get_data_by_key("name").unwrap()).collect();
    assert_eq!(names, ["t0", "t1", "t2"].map(Value::test_string));
    // A stream may be read a little ahead of what was asked for.
    assert!(engine.asked().len() < 100, "{} pages were read", engine.asked().len());
}

#[test]
fn a_limit_is_kept_over_pages() {
    let engine = Played::start(Endless);
    let answer = engine.shell().value("orchestrator task list --limit 3");
    assert_eq!(answer.as_list().unwrap().len(), 3);
    assert_eq!(engine.asked().len(), 2);
    assert_eq!(engine.shell().value("orchestrator task list --limit 0").as_list().unwrap().len(), 0);
}

#[test]
fn filters_are_the_engines_work() {
    let engine = Played::start(Endless);
    let id = TaskId::generate();
    engine.shell().value(&format!(
        "orchestrator task list --status [failed Cancelled] --group g --kind command --workflow {id} \
         --label {{a: b}} --since 2024-01-02 --until 1hr --text T --limit 1"
    ));
    let Request::ListTasks(asked) = engine.asked().remove(0) else { unreachable!() };
    assert_eq!(asked.statuses, [TaskStatus::Failed, TaskStatus::Cancelled]);
    assert_eq!(
        (asked.group.as_deref(), asked.text.as_deref(), asked.parent),
        (Some("g"), Some("T"), Some(id))
    );
    assert_eq!((&asked.labels["a"][..], asked.limit), ("b", Some(1)));
    assert!(asked.since.unwrap() < asked.until.unwrap());
}

/// Retries tasks until it is asked for one too many.
struct Retrying(usize, AtomicUsize);

impl Behaviour for Retrying {
    fn answer(&self, request: &Request) -> Play {
        let Request::Retry(retry) = request else { return Play::HangUp };
        if self.1.fetch_add(1, Ordering::SeqCst) >= self.0 {
            return Play::Refuse(Error::conflict("a task that is Running cannot be retried"));
        }
        let task = Task { id: retry.id, ..task("web") };
        Response::Retry(Changed { task: Box::new(task), others: Vec::new() }).into()
    }
}

fn ids(number: usize) -> String {
    let ids: Vec<String> = (0..number).map(|_| format!("'{}'", TaskId::generate())).collect();
    format!("[{}]", ids.join(" "))
}

#[test]
fn several_tasks_are_changed_one_by_one_until_one_fails() {
    let engine = Played::start(Retrying(10, AtomicUsize::new(0)));
    let answer = engine.shell().value(&format!("{} | orchestrator task retry", ids(3)));
    assert_eq!(answer.as_list().unwrap().len(), 3);
    let engine = Played::start(Retrying(1, AtomicUsize::new(0)));
    let (error, _) = engine.shell().error(&format!("{} | orchestrator task retry", ids(4)));
    assert_eq!(error.code.as_deref(), Some("orchestrator::conflict"));
    assert_eq!(engine.asked().len(), 2);
}

/// Watches tasks; breaks the first stream after its first item.
struct Watching {
    streams: AtomicUsize,
    break_first: bool,
    finish: bool,
}

impl Watching {
    fn new(break_first: bool, finish: bool) -> Self {
        Self { streams: AtomicUsize::new(0), break_first, finish }
    }
}

impl Behaviour for Watching {
    fn stream(&self, subscription: &Subscription) -> Stream {
        let Subscription::Watch { ids } = subscription else { unreachable!() };
        let item = |(index, id): (usize, &TaskId)| {
            let status = if index == 0 || self.finish { TaskStatus::Completed } else { TaskStatus::Running };
            Item::Task(Box::new(Task { id: *id, status, ..task(&format!("t{index}")) }))
        };
        let first = self.streams.fetch_add(1, Ordering::SeqCst) == 0;
        if first && self.break_first {
            return Stream { items: ids.iter().enumerate().map(item).take(1).collect(), then: Then::HangUp };
        }
        let then = if self.finish { Then::End(None) } else { Then::Wait };
        Stream { items: ids.iter().enumerate().map(item).collect(), then }
    }
}

fn length(shell: &mut Shell, line: &str) -> usize {
    shell.value(line).as_list().unwrap().len()
}

#[test]
fn waiting_returns_the_tasks_that_have_ended() {
    let engine = Played::start(Watching::new(false, true));
    let mut shell = engine.shell();
    assert_eq!(length(&mut shell, &format!("{} | orchestrator task wait", ids(3))), 3);
    assert_eq!(length(&mut shell, "[] | orchestrator task wait"), 0);
    let one = shell.value(&format!("orchestrator task wait {}", TaskId::generate()));
    assert_eq!(one.get_data_by_key("status").unwrap(), Value::test_string("Completed"));
}

#[test]
fn waiting_goes_on_over_a_new_connection_for_what_has_not_ended() {
    let engine = Played::start(Watching::new(true, true));
    assert_eq!(length(&mut engine.shell(), &format!("{} | orchestrator task wait", ids(3))), 3);
}

#[test]
fn waiting_gives_up_when_its_time_is_over() {
    let engine = Played::start(Watching::new(false, false));
    let line = format!("{} | orchestrator task wait --timeout 200ms", ids(3));
    let (error, _) = engine.shell().error(&line);
    assert_eq!(error.code.as_deref(), Some("orchestrator::timed_out"));
    assert_eq!(error.msg, "2 tasks have not ended within 200ms");
}

/// Two lines, one on each output, with a gap between them.
struct Printing;

fn line(task: TaskId, stream: OutputStream, text: &str) -> Item {
    Item::Line(LogLine { task, attempt: 1, time: moment(), stream, line: text.into() })
}

impl Behaviour for Printing {
    fn answer(&self, request: &Request) -> Play {
        let Request::GetTask(get) = request else { return Play::HangUp };
        Response::GetTask(Box::new(Task { id: get.id, ..task("web-01") })).into()
    }

    fn stream(&self, subscription: &Subscription) -> Stream {
        let Subscription::Logs(LogsRequest { id, tail, attempt, .. }) = *subscription else { unreachable!() };
        if attempt == Some(9) {
            return Stream {
                items: Vec::new(),
                then: Then::End(Some(Error::not_found("there is no attempt 9"))),
            };
        }
        let items = vec![
            line(id, OutputStream::Stdout, "one"),
            Item::Dropped { task: id, lines: 5, bytes: 50 },
            line(id, OutputStream::Stderr, "two"),
        ];
        let skip = 3 - tail.map_or(3, |tail| tail as usize);
        Stream { items: items.into_iter().skip(skip).collect(), then: Then::End(None) }
    }
}

#[test]
fn output_comes_as_records_or_as_text() {
    let engine = Played::start(Printing);
    let mut shell = engine.shell();
    let id = TaskId::generate();
    let records = shell.value(&format!("orchestrator task logs {id}"));
    let columns: Vec<&String> = records.as_list().unwrap()[0].as_record().unwrap().columns().collect();
    assert_eq!(columns, ["time", "attempt", "stream", "line"]);
    let streams = records.get_data_by_key("stream").unwrap();
    assert_eq!(streams, Value::test_list(["out", "dropped", "err"].map(Value::test_string).into()));
    let text = shell.value(&format!("orchestrator task logs {id} --raw --tail 1"));
    assert_eq!(text, Value::test_string("two\n"));
}

#[test]
fn lines_of_several_tasks_name_theirs() {
    for flags in ["", "--follow"] {
        let engine = Played::start(Printing);
        let records = engine.shell().value(&format!("{} | orchestrator task logs {flags}", ids(2)));
        let names = records.get_data_by_key("task").unwrap();
        assert_eq!(names, Value::test_list(vec![Value::test_string("web-01"); 6]));
    }
}

#[test]
fn what_goes_wrong_in_a_stream_is_its_last_value() {
    let engine = Played::start(Printing);
    let id = TaskId::generate();
    let (error, text) = engine.shell().error(&format!("orchestrator task logs {id} --attempt 9"));
    assert_eq!((error.msg.as_str(), text), ("There is no attempt 9", id.to_string()));
}

/// Reports a start of the stream, two changes and a gap; then nothing more, or the end.
struct Changing {
    ends: bool,
}

impl Behaviour for Changing {
    fn stream(&self, subscription: &Subscription) -> Stream {
        let Subscription::Events(request) = subscription else { unreachable!() };
        let cursor = |sequence| EventCursor { epoch: "epoch".into(), sequence };
        let first = request.since.clone().unwrap_or_else(|| cursor(0));
        let items = vec![
            Item::Listening(first.clone()),
            Item::Event(event(&format!("after {first}"), first.sequence + 1)),
            Item::Reset(cursor(9)),
            Item::Event(event("last", 10)),
        ];
        let then = if self.ends { Then::End(None) } else { Then::Wait };
        Stream { items, then }
    }
}

#[test]
fn events_come_as_rows_and_a_gap_is_one_of_them() {
    let engine = Played::start(Changing { ends: true });
    let rows = engine.shell().value("orchestrator events --since epoch:4");
    let column = |name| rows.get_data_by_key(name).unwrap();
    assert_eq!(column("kind"), Value::test_list(["task", "reset", "task"].map(Value::test_string).into()));
    let cursors = ["epoch:5", "epoch:9", "epoch:10"].map(Value::test_string);
    assert_eq!(column("cursor"), Value::test_list(cursors.into()));
    assert_eq!(column("name").as_list().unwrap()[0], Value::test_string("after epoch:4"));
}

#[test]
fn a_stream_of_events_ends_when_enough_were_seen() {
    let engine = Played::start(Changing { ends: false });
    let mut shell = engine.shell();
    let rows: Vec<Value> = shell.0.eval("orchestrator events").unwrap().into_iter().take(3).collect();
    assert_eq!(rows.len(), 3);
}

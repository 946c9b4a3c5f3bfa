//! Events: cut off, resumed, too late, too slow.

use std::collections::BTreeSet;
use std::fs;

use orchestrator_tests::wait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use serde_json::json;

use crate::door::Door;
use crate::http::Connection;
use crate::sse::{Event, Events};

const TASKS: usize = 1_000;
const CUTS: usize = 20;
/// How many events an engine keeps for listeners who come back.
const KEPT: u64 = 16_384;

/// Queues tasks in one request. Their names are as long as `padding` makes them.
fn queue(door: &Door, count: u64, padding: usize) {
    let padding = "x".repeat(padding);
    let task = |number| json!({"name": format!("task{padding}{number}"), "script": "stub"});
    let tasks: Vec<_> = (0..count).map(task).collect();
    let answer = door.post("/workflows", &json!({"tasks": tasks}).to_string());
    assert_eq!(answer.status, 202, "{answer:?}");
}

/// An engine that starts nothing, so that a task that is queued is one event.
fn paused() -> Door {
    let door = Door::open(&[]);
    door.engine.script("stub", "");
    assert_eq!(door.post("/queue/pause", "{}").status, 200);
    door
}

/// The next events, which must follow each other and the one before them.
fn follow(events: &mut Events, before: &Event, count: u64) {
    let (epoch, sequence) = before.place();
    for number in 1..=count {
        let event = events.next().unwrap();
        assert_eq!((event.name.as_str(), event.place()), ("task", (epoch, sequence + number)));
    }
}

#[test]
fn a_listener_who_is_cut_off_twenty_times_hears_what_one_hears_who_never_was() {
    let door = Door::open(&["--max-parallel", "300"]);
    door.engine.script("stub", "while [ ! -e go ]; do sleep 0.05; done; echo '::progress 1/2 half'");
    let mut whole = Events::listen(&door, "", None);
    let start = whole.next().unwrap();
    assert_eq!(start.name, "listening");
    std::thread::scope(|scope| {
        let whole = scope.spawn(move || until_all_completed(|| whole.next().unwrap()));
        let cut = scope.spawn(|| cut_off_again_and_again(&door, &start.id));
        queue(&door, TASKS as u64, 0);
        wait::until("several hundred to run at once", || {
            let status = door.get("/status").json();
            (status["data"]["tasks"]["Running"].as_u64() >= Some(200)).then_some(())
        });
        fs::write(door.engine.directory().join("go"), "").unwrap();
        let (whole, cut) = (whole.join().unwrap(), cut.join().unwrap());
        assert!(whole.len() >= 3 * TASKS, "each was queued, ran and completed: {}", whole.len());
        for (at, (whole, cut)) in whole.iter().zip(&cut).enumerate() {
            assert_eq!(whole, cut, "event {at}");
        }
        assert_eq!(whole.len(), cut.len());
    });
}

/// The events of a stream until every task has completed.
fn until_all_completed(mut next: impl FnMut() -> Event) -> Vec<Event> {
    let mut heard = Vec::new();
    let mut completed = BTreeSet::new();
    while completed.len() < TASKS {
        let event = next();
        assert_eq!(event.name, "task", "{event:?}");
        let task = event.json();
        if task["status"] == "Completed" {
            assert!(completed.insert(task["id"].to_string()), "completed twice: {task}");
        }
        heard.push(event);
    }
    heard
}

/// Listens over one connection after the other, each of which breaks somewhere, and goes on after the
/// last event that came whole.
fn cut_off_again_and_again(door: &Door, start: &str) -> Vec<Event> {
    let mut random = StdRng::seed_from_u64(0x0007_0E57);
    let mut lengths: Vec<u64> = (0..CUTS).map(|_| random.random_range(1..40_000)).collect();
    let mut last = start.to_owned();
    let mut listen = |last: &str| Events::listen_for(door, "", Some(last), lengths.pop().unwrap_or(u64::MAX));
    let mut events = listen(&last);
    let heard = until_all_completed(|| {
        loop {
            match events.next() {
                Some(event) if event.name == "listening" => assert_eq!(event.id, last, "it goes on there"),
                Some(event) => {
                    last.clone_from(&event.id);
                    return event;
                }
                None => events = listen(&last),
            }
        }
    });
    assert!(lengths.is_empty(), "{} connections were not cut off", lengths.len());
    heard
}

#[test]
fn a_listener_of_an_earlier_life_of_the_engine_is_told_to_list_again() {
    let mut door = paused();
    let mut events = Events::listen(&door, "", None);
    let start = events.next().unwrap();
    queue(&door, 3, 0);
    follow(&mut events, &start, 3);
    door.engine.kill();
    assert_eq!(events.next(), None);
    door.engine.start();
    let mut events = Events::listen(&door, "", Some(&start.id));
    let reset = events.next().unwrap();
    assert_eq!(reset.name, "reset");
    assert_ne!(reset.place().0, start.place().0, "no two lives share an epoch");
    queue(&door, 2, 0);
    follow(&mut events, &reset, 2);
}

#[test]
fn a_listener_who_comes_back_too_late_is_told_to_list_again() {
    let door = paused();
    let start = Events::listen(&door, "", None).next().unwrap();
    let (epoch, before) = start.place();
    queue(&door, 10_000, 0);
    queue(&door, 10_000, 0);
    let reset = Events::listen(&door, "", Some(&start.id)).next().unwrap();
    assert_eq!((reset.name.as_str(), reset.place()), ("reset", (epoch, before + 20_000)));
    // The header wins over the query.
    let oldest = format!("{epoch}:{}", before + 20_000 - KEPT);
    let mut events = Events::listen(&door, &format!("?since={}", start.id), Some(&oldest));
    let listening = events.next().unwrap();
    assert_eq!((listening.name.as_str(), &listening.id), ("listening", &oldest));
    follow(&mut events, &listening, KEPT);
    let too_old = format!("?since={epoch}:{}", before + 20_000 - KEPT - 1);
    assert_eq!(Events::listen(&door, &too_old, None).next().unwrap().name, "reset");
}

#[test]
fn a_listener_who_reads_slowly_holds_up_nobody_and_is_told_what_it_missed() {
    let door = paused();
    let connection = Connection::open(door.address);
    let socket = connection.socket().try_clone().unwrap();
    set_socket_recv_buffer_size(&socket, 4_096).unwrap();
    let mut slow = Events::on(connection, &door, "", None, u64::MAX);
    let start = slow.next().unwrap();
    let mut quick = Events::listen(&door, "", None);
    let mut last = quick.next().unwrap();
    assert_eq!(last.id, start.id);
    // More than the engine keeps and the sockets hold, while the slow one reads nothing.
    for _ in 0..40 {
        queue(&door, 1_000, 150);
        follow(&mut quick, &last, 1_000);
        let (epoch, sequence) = last.place();
        last.id = format!("{epoch}:{}", sequence + 1_000);
    }
    set_socket_recv_buffer_size(&socket, 1 << 20).unwrap();
    let (epoch, mut sequence) = start.place();
    let reset = loop {
        let event = slow.next().unwrap();
        if event.name == "reset" {
            break event;
        }
        assert_eq!(event.place(), (epoch, sequence + 1), "none is missed before that is said");
        sequence += 1;
    };
    assert!(reset.place().1 > sequence, "{sequence} {reset:?}");
    queue(&door, 1, 0);
    let behind = last.place().1 - reset.place().1;
    follow(&mut slow, &reset, behind + 1);
}

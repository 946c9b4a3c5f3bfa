//! Queues on one store, without processes: claims, limits, locks, pauses, events, takeover.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_engine::labels;
use orchestrator_engine::membership::{About, LeaseTimes};
use orchestrator_engine::queue::Queue;
use orchestrator_engine::queue::claim::Claimed;
use orchestrator_engine::queue::finish::Ending;
use orchestrator_engine::records;
use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::provision::ProvisionRequest;
use orchestrator_protocol::request::ReasonKind;
use orchestrator_protocol::submit::{NewTask, SubmitRequest};
use orchestrator_protocol::task::{AttemptOutcome, OnEngineLoss, RetryPolicy, Task, TaskId, TaskStatus};
use orchestrator_storage::{Expect, Store};
use orchestrator_tests::queue::{submit, task};
use orchestrator_tests::shared::{Peer, short_times, store, until};

pub async fn claim(queue: &Queue) -> Option<Claimed> {
    queue.claim(queue.next()?).await.unwrap()
}

/// Claims a task as soon as there is one.
pub async fn claim_next(queue: &Queue) -> Claimed {
    until("a task to claim", async || claim(queue).await).await
}

pub async fn finish(queue: &Queue, claimed: &Claimed, outcome: AttemptOutcome) {
    let ending = Ending { permanent: true, ..Ending::bare(outcome, None) };
    queue.finish(claimed.task.id, claimed.task.fence, &ending).await.unwrap();
}

async fn status(queue: &Queue, id: TaskId) -> TaskStatus {
    queue.task(id).await.unwrap().status
}

/// Waits until an engine has everything in hand that others have committed: a task of its own comes back
/// from another one. What is heard of at once is taken in side by side, and so it is done twice: the second
/// one is heard of when all is taken in that came with the first.
pub async fn in_step(from: &Peer, to: &Peer, directory: &Path) {
    for _ in 0..2 {
        let mut events = to.queue.listen();
        let marker = submit(&from.queue, vec![task(directory, "marker", &[])], None).await.id.unwrap();
        from.queue.cancel(marker, "it was only a marker").await.unwrap();
        while events.next().await.unwrap().id != marker {}
    }
}

async fn peers(directory: &Path, count: usize) -> Vec<Peer> {
    let store = store(directory).await;
    let mut peers = Vec::new();
    for number in 0..count {
        peers.push(Peer::join(&store, directory, &format!("engine-{number}")).await);
    }
    peers
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_is_claimed_once_by_engines_that_contend() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let peers = peers(directory, 4).await;
    let tasks = (0..80).map(|number| task(directory, &format!("task-{number}"), &[])).collect();
    let submitted = submit(&peers[0].queue, tasks, None).await;
    let work = peers.iter().map(|peer| {
        let queue = Arc::clone(&peer.queue);
        tokio::spawn(async move {
            let mut claimed = Vec::new();
            let all_ended = async |queue: &Queue| {
                let ended = queue.store().counts(orchestrator_storage::Table::Task).await.unwrap();
                ended.iter().all(|count| count.status.as_deref() == Some("Completed"))
            };
            while !all_ended(&queue).await {
                let Some(next) = claim(&queue).await else {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                };
                tokio::task::yield_now().await;
                finish(&queue, &next, AttemptOutcome::Succeeded).await;
                claimed.push(next.task.id);
            }
            claimed
        })
    });
    let claimed = futures::future::join_all(work).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let all: Vec<TaskId> = claimed.iter().flatten().copied().collect();
    assert_eq!(all.len(), 80);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 80);
    assert!(claimed.iter().filter(|claimed| !claimed.is_empty()).count() > 1, "{claimed:?}");
    for submitted in submitted.tasks {
        let task = peers[1].queue.task(submitted.id).await.unwrap();
        assert_eq!((task.status, task.fence, task.attempts.len()), (TaskStatus::Completed, 1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_over_all_engines_and_a_free_slot_is_taken_by_any() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let mut peers = Vec::new();
    for name in ["a", "b", "c"] {
        let limits = HashMap::from([("small".to_owned(), 2)]);
        let times = Default::default();
        peers.push(
            Peer::join_with(&store, directory, name, times, |options| options.group_limits = limits).await,
        );
    }
    // They come first, so that nobody takes the other one meanwhile.
    let small = |number| NewTask {
        group: Some("small".into()),
        priority: 1,
        ..task(directory, &format!("s{number}"), &[])
    };
    let free = task(directory, "free", &[]);
    let submitted = submit(&peers[0].queue, (0..5).map(small).chain([free]).collect(), None).await;
    let mut running = Vec::new();
    for index in [0, 1] {
        running.push((index, claim_next(&peers[index].queue).await));
    }
    let last = submitted.tasks.last().unwrap().id;
    // No slot is left, for none of them; the task without a limit is not held back by that.
    let free = claim_next(&peers[2].queue).await;
    assert_eq!(free.task.id, last);
    for peer in &peers {
        in_step(&peers[0], peer, directory).await;
        assert!(claim(&peer.queue).await.is_none());
    }
    let slots: HashSet<_> =
        running.iter().map(|(_, claimed)| claimed.task.claim.clone().unwrap().slot).collect();
    assert_eq!(slots, HashSet::from([Some(0), Some(1)]));
    // What one gives back another takes.
    let (index, ended) = running.pop().unwrap();
    finish(&peers[index].queue, &ended, AttemptOutcome::Succeeded).await;
    let next = claim_next(&peers[2].queue).await;
    assert_eq!(next.task.claim.unwrap().slot, ended.task.claim.unwrap().slot);
    for peer in &peers {
        in_step(&peers[1], peer, directory).await;
        assert!(claim(&peer.queue).await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_holds_over_all_engines_and_hides_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let peers = peers(directory, 2).await;
    let [a, b] = [&peers[0], &peers[1]];
    let locked = |name: &str| NewTask { lock: Some("infra".into()), ..task(directory, name, &[]) };
    submit(&a.queue, vec![locked("first"), locked("second"), task(directory, "third", &[])], None).await;
    let first = claim_next(&a.queue).await;
    assert_eq!(first.task.name, "first");
    let third = claim_next(&b.queue).await;
    assert_eq!(third.task.name, "third", "the one that waits for the lock makes way");
    in_step(a, b, directory).await;
    assert!(claim(&b.queue).await.is_none());
    finish(&a.queue, &first, AttemptOutcome::Succeeded).await;
    assert_eq!(claim_next(&b.queue).await.task.name, "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_meets_a_lock_or_a_slot_of_another_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let limits = || HashMap::from([("small".to_owned(), 1)]);
    let times = Default::default;
    let a = Peer::join_with(&store, directory, "a", times(), |options| options.group_limits = limits()).await;
    let b = Peer::join_with(&store, directory, "b", times(), |options| options.group_limits = limits()).await;
    let small = |name: &str| NewTask { group: Some("small".into()), ..task(directory, name, &[]) };
    let locked = |name: &str| NewTask { lock: Some("infra".into()), ..task(directory, name, &[]) };
    // Taken out of the line at both before either has claimed.
    for kind in [&small as &dyn Fn(&str) -> NewTask, &locked] {
        submit(&a.queue, vec![kind("one"), kind("two")], None).await;
        in_step(&a, &b, directory).await;
        let [of_a, of_b] = [a.queue.next().unwrap(), b.queue.next().unwrap()];
        assert_eq!(of_a.id, of_b.id);
        let claimed = a.queue.claim(of_a).await.unwrap().unwrap();
        assert!(b.queue.claim(of_b).await.unwrap().is_none());
        assert!(claim(&b.queue).await.is_none(), "the other one waits for the same");
        finish(&a.queue, &claimed, AttemptOutcome::Succeeded).await;
        let next = claim_next(&b.queue).await;
        assert_eq!(next.task.name, "two");
        finish(&b.queue, &next, AttemptOutcome::Succeeded).await;
        in_step(&b, &a, directory).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_engine_is_told_holds_on_all() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let peers = peers(directory, 2).await;
    let [a, b] = [&peers[0], &peers[1]];
    let mut events = b.queue.listen();
    let tasks = vec![task(directory, "first", &[]), task(directory, "after", &["first"])];
    let submitted = submit(&a.queue, tasks, None).await;
    let [first, after] = [submitted.tasks[0].id, submitted.tasks[1].id];
    // Claimed by one, ended by the same, and the next one goes to the other.
    let claimed = claim_next(&a.queue).await;
    b.queue.cancel(first, "enough").await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), claimed.cancel.cancelled()).await.unwrap();
    finish(&a.queue, &claimed, AttemptOutcome::Cancelled).await;
    until("the dependent to be told", async || {
        (status(&b.queue, after).await == TaskStatus::Cancelled).then_some(())
    })
    .await;
    // Retried there, it runs here.
    b.queue.retry(first).await.unwrap();
    let again = claim_next(&a.queue).await;
    assert_eq!((again.task.id, again.task.fence), (first, 2));
    finish(&a.queue, &again, AttemptOutcome::Succeeded).await;
    assert_eq!(claim_next(&b.queue).await.task.id, after);
    // Each change once, and the last one is how it is.
    let mut told: BTreeMap<TaskId, Vec<TaskStatus>> = BTreeMap::new();
    loop {
        let event = events.next().await.unwrap();
        told.entry(event.id).or_default().push(event.status);
        if event.id == after && event.status == TaskStatus::Running {
            break;
        }
    }
    assert_eq!(told[&first].last(), Some(&TaskStatus::Completed));
    for (id, statuses) in told {
        let record = b.queue.store().get(&records::task_key(id)).await.unwrap().unwrap();
        assert!(statuses.len() as u64 <= record.revision, "{statuses:?} in {} revisions", record.revision);
    }
    // Pauses.
    a.queue.pause(None, true).await.unwrap();
    until("the pause", async || b.queue.pauses().all.then_some(())).await;
    submit(&a.queue, vec![task(directory, "paused", &[])], None).await;
    in_step(a, b, directory).await;
    assert!(claim(&b.queue).await.is_none());
    b.queue.pause(None, false).await.unwrap();
    assert_eq!(claim_next(&a.queue).await.task.name, "paused");
}

/// The clocks of two engines are an hour apart: the one waits for the next attempt as long as the other
/// would have.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_tried_again_in_time_whatever_clock_has_said_when() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let peers = peers(directory, 2).await;
    let [a, b] = [&peers[0], &peers[1]];
    for (name, wait_ms, hours) in [("behind", 1, 1), ("ahead", 600_000, -1)] {
        let retry = RetryPolicy { max_retries: 3, base_ms: wait_ms, cap_ms: wait_ms };
        let new = NewTask { retry: Some(retry), ..task(directory, name, &[]) };
        let id = submit(&a.queue, vec![new], None).await.id.unwrap();
        let claimed = claim_next(&a.queue).await;
        assert_eq!(claimed.task.id, id);
        let failed = Ending::bare(AttemptOutcome::Failed, None);
        a.queue.finish(id, claimed.task.fence, &failed).await.unwrap();
        // What an engine with another clock would have written.
        let key = records::task_key(id);
        let record = a.store.get(&key).await.unwrap().unwrap();
        let mut task: Task = records::read(&record).unwrap();
        task.next_attempt_at = Some(chrono::Utc::now() + chrono::TimeDelta::hours(hours));
        let expect = Expect::Revision(record.revision);
        a.store.commit(vec![records::put_task(&task, expect).unwrap()]).await.unwrap();
        in_step(a, b, directory).await;
        if hours > 0 {
            let again = claim_next(&b.queue).await;
            assert_eq!((again.task.id, again.task.attempt), (id, 2));
            finish(&b.queue, &again, AttemptOutcome::Succeeded).await;
        } else {
            let next = b.queue.next();
            assert!(next.is_none_or(|next| next.id != id), "its ten minutes are not over");
            let reasons = b.queue.explain(id).await.unwrap().reasons;
            assert_eq!(reasons[0].kind, ReasonKind::Backoff, "{reasons:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_has_forgotten_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let peers = peers(directory, 2).await;
    let [a, b] = [&peers[0], &peers[1]];
    b.store.stall(true);
    let locked = NewTask { lock: Some("infra".into()), ..task(directory, "locked", &[]) };
    let submitted = submit(&a.queue, vec![locked, task(directory, "free", &[])], None).await;
    let first = claim_next(&a.queue).await;
    let mut events = b.queue.listen();
    b.store.forget_changes();
    b.store.stall(false);
    until("something to be missed", async || events.next().await.is_err().then_some(())).await;
    assert_eq!(claim_next(&b.queue).await.task.id, submitted.tasks[1].id);
    finish(&a.queue, &first, AttemptOutcome::Succeeded).await;
    let next = NewTask { lock: Some("infra".into()), ..task(directory, "next", &[]) };
    submit(&a.queue, vec![next], None).await;
    assert_eq!(claim_next(&b.queue).await.task.name, "next", "the lock is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_waited_for_may_have_ended_unseen() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let peers = peers(directory, 2).await;
    let [a, b] = [&peers[0], &peers[1]];
    let tasks = vec![task(directory, "first", &[]), task(directory, "second", &["first"])];
    submit(&a.queue, tasks, None).await;
    let first = claim_next(&a.queue).await;
    in_step(a, b, directory).await;
    b.store.stall(true);
    finish(&a.queue, &first, AttemptOutcome::Succeeded).await;
    b.store.forget_changes();
    b.store.stall(false);
    assert_eq!(claim_next(&b.queue).await.task.name, "second");
}

/// The engine has heard of the end of a workflow, and not yet of that of its tasks, as it goes when there are
/// many.
#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_of_a_workflow_that_has_ended_keep_no_lock() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let peers = peers(directory, 2).await;
    let [a, b] = [&peers[0], &peers[1]];
    let request = provisioning(directory, &["web-01", "web-02"]);
    let workflow = a.queue.provision("test", &request).await.unwrap().id.unwrap();
    in_step(a, b, directory).await;
    b.stop_following();
    a.queue.cancel(workflow, "it is not needed").await.unwrap();
    b.queue.learn_task(workflow).await.unwrap();
    while let Some(entry) = b.queue.next() {
        assert!(b.queue.claim(entry).await.unwrap().is_none(), "it has ended");
    }
    let next = a.queue.provision("test", &request).await.unwrap();
    for submitted in &next.tasks {
        b.queue.learn_task(submitted.id).await.unwrap();
    }
    assert_eq!(claim(&b.queue).await.unwrap().task.parent, next.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_task_takes_its_attempts_on_every_engine_along() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let peers = peers(directory, 2).await;
    let [a, b] = [&peers[0], &peers[1]];
    let id = submit(&a.queue, vec![task(directory, "old", &[])], None).await.id.unwrap();
    let claimed = claim_next(&b.queue).await;
    finish(&b.queue, &claimed, AttemptOutcome::Succeeded).await;
    let attempts = directory.join("engine-1/attempts").join(id.to_string());
    std::fs::create_dir_all(attempts.join("1")).unwrap();
    let record = a.queue.store().get(&records::task_key(id)).await.unwrap().unwrap();
    a.queue.store().commit(vec![records::delete(record.key, record.revision)]).await.unwrap();
    until("the attempts to go", async || (!attempts.exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_falls_silent_is_taken_over_and_can_write_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let a = Peer::join_with(&store, directory, "a", short_times(), |_| {}).await;
    let b = Peer::join_with(&store, directory, "b", short_times(), |_| {}).await;
    let hold = NewTask { on_engine_loss: Some(OnEngineLoss::Hold), ..task(directory, "held", &[]) };
    let tasks = vec![task(directory, "lost", &[]), hold];
    let submitted = submit(&a.queue, tasks, None).await;
    let [lost, held] = [claim_next(&a.queue).await, claim_next(&a.queue).await];
    assert_eq!([lost.task.id, held.task.id], [submitted.tasks[0].id, submitted.tasks[1].id]);
    assert!(b.queue.take_over().await.unwrap().is_empty(), "it has its seat");
    a.fall_silent();
    let since = tokio::time::Instant::now();
    let removed = until("the engine to be lost", async || {
        Some(b.membership.observe().await.unwrap()).filter(|removed| !removed.is_empty())
    })
    .await;
    assert_eq!(removed, ["a"]);
    assert!(since.elapsed() >= short_times().lost - short_times().renew);
    assert_eq!(b.queue.take_over().await.unwrap(), [lost.task.id]);
    assert_eq!(status(&b.queue, held.task.id).await, TaskStatus::Running);
    let again = claim_next(&b.queue).await;
    assert_eq!((again.task.id, again.task.fence), (lost.task.id, 2));
    assert_eq!(again.task.attempts[0].outcome, Some(AttemptOutcome::Lost));
    // It wakes, and comes too late with everything.
    // The task has gone on: nothing is written, and that is no error.
    finish(&a.queue, &lost, AttemptOutcome::Succeeded).await;
    let late = task(directory, "late", &[]);
    let request = SubmitRequest { tasks: vec![late], ..SubmitRequest::default() };
    let refused = a.queue.submit("test", &request).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.message.contains("has lost its seat"), "{refused:?}");
    assert!(a.membership.store().lost().is_cancelled());
    assert_eq!(status(&b.queue, lost.task.id).await, TaskStatus::Running);
    // Its next life has a seat of its own, and the task that was held for it.
    drop(a);
    let back = Peer::join_with(&store, directory, "a", short_times(), |_| {}).await;
    assert!(back.membership.lease_file().ends_with("lease-2.json"), "what had a lease before gets none");
    assert!(!directory.join("a/lease-1.json").exists());
    assert!(back.queue.running().iter().any(|(id, _)| *id == held.task.id));
    finish(&back.queue, &held, AttemptOutcome::Succeeded).await;
    assert_eq!(status(&b.queue, held.task.id).await, TaskStatus::Completed);
}

/// A storage that takes no commits for longer than a lease lasts, though it can be read.
#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_renew_its_own_lease_removes_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let a = Peer::join_with(&store, directory, "a", short_times(), |_| {}).await;
    let b = Peer::join_with(&store, directory, "b", short_times(), |_| {}).await;
    for peer in [&a, &b] {
        peer.store.refuse_renewals(true);
    }
    let look = async || a.membership.observe().await.unwrap();
    let since = tokio::time::Instant::now();
    let LeaseTimes { lost, renew, .. } = short_times();
    until("both to be overdue for long", async || {
        assert!(look().await.is_empty());
        (since.elapsed() > lost + renew).then_some(())
    })
    .await;
    // This one is back first: the other one has all the time to come back, too.
    a.store.refuse_renewals(false);
    until("a renewal", async || {
        assert!(look().await.is_empty());
        tokio::time::timeout(renew, a.membership.renewed()).await.ok()
    })
    .await;
    assert!(look().await.is_empty());
    b.store.refuse_renewals(false);
    b.membership.renewed().await;
    assert!(look().await.is_empty());
    b.fall_silent();
    until("it to be lost", async || Some(look().await).filter(|removed| removed == &["b"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_task_is_called_off_by_force_from_any_engine() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let a = Peer::join_with(&store, directory, "a", short_times(), |_| {}).await;
    let b = Peer::join_with(&store, directory, "b", short_times(), |_| {}).await;
    let hold = |name: &str| NewTask {
        on_engine_loss: Some(OnEngineLoss::Hold),
        lock: Some("infra".into()),
        ..task(directory, name, &[])
    };
    let id = submit(&a.queue, vec![hold("held")], None).await.id.unwrap();
    let held = claim_next(&a.queue).await;
    b.queue.cancel_by_force(id, "its engine lives").await.unwrap();
    assert_eq!(status(&b.queue, id).await, TaskStatus::Running, "its own engine ends it");
    tokio::time::timeout(Duration::from_secs(60), held.cancel.cancelled()).await.unwrap();
    a.fall_silent();
    until("the engine to be lost", async || {
        Some(b.membership.observe().await.unwrap()).filter(|removed| !removed.is_empty())
    })
    .await;
    assert!(b.queue.take_over().await.unwrap().is_empty());
    let why = &b.queue.explain(id).await.unwrap().reasons[0];
    assert!(why.message.starts_with("it is held: its engine a is lost"), "{why:?}");
    b.queue.cancel(id, "again").await.unwrap();
    assert_eq!(status(&b.queue, id).await, TaskStatus::Running, "it is held");
    b.queue.cancel_by_force(id, "again").await.unwrap();
    assert_eq!(status(&b.queue, id).await, TaskStatus::Cancelled);
    // Its lock is free, and it can be tried again.
    submit(&b.queue, vec![hold("next")], None).await;
    let next = claim_next(&b.queue).await;
    assert_eq!(next.task.name, "next");
    finish(&b.queue, &next, AttemptOutcome::Succeeded).await;
    b.queue.retry(id).await.unwrap();
    assert_eq!(claim_next(&b.queue).await.task.fence, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_on_an_engine_that_has_what_it_requires_and_says_when_there_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let zone = |zone: &str| BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
    let times = LeaseTimes::default;
    let a = Peer::join_with(&store, directory, "a", times(), |options| options.labels = zone("a")).await;
    let b = Peer::join_with(&store, directory, "b", times(), |options| options.labels = zone("b")).await;
    let in_zone = |name: &str| NewTask { requires: zone(name), ..task(directory, name, &[]) };
    let after = NewTask { after: vec!["c".into()], ..task(directory, "after", &[]) };
    let submitted = submit(&a.queue, vec![in_zone("b"), in_zone("c"), after], None).await;
    let claimed = claim_next(&b.queue).await;
    assert_eq!(claimed.task.name, "b");
    in_step(&b, &a, directory).await;
    assert!(claim(&a.queue).await.is_none());
    let reasons = a.queue.explain(submitted.tasks[1].id).await.unwrap().reasons;
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert_eq!(reasons[0].kind, ReasonKind::Engine);
    assert_eq!(reasons[0].message, "it requires zone=c, and no engine that is alive has that");
    let third = Peer::join_with(&store, directory, "c", times(), |options| options.labels = zone("c")).await;
    let reasons = a.queue.explain(submitted.tasks[1].id).await.unwrap().reasons;
    assert_eq!(reasons[0].message, "it requires zone=c: it is for engine c on c.example");
    let claimed = claim_next(&third.queue).await;
    assert_eq!(claimed.task.name, "c");
    finish(&third.queue, &claimed, AttemptOutcome::Succeeded).await;
    until("what comes after it", async || claim(&a.queue).await).await;
    let refused = NewTask {
        requires: BTreeMap::from([("orchestrator.docker".to_owned(), "x".to_owned())]),
        ..task(directory, "refused", &[])
    };
    let request = SubmitRequest { tasks: vec![refused], ..SubmitRequest::default() };
    let refused = a.queue.submit("test", &request).await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::Invalid, Some("tasks[0].requires")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_carried_out_by_the_program_that_made_it() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let digest = |digest: &str| BTreeMap::from([(labels::WORKER.to_owned(), digest.to_owned())]);
    let times = LeaseTimes::default;
    let old =
        Peer::join_with(&store, directory, "old", times(), |options| options.labels = digest("1")).await;
    let new =
        Peer::join_with(&store, directory, "new", times(), |options| options.labels = digest("2")).await;
    let request = provisioning(directory, &["web-01"]);
    old.queue.provision("test", &request).await.unwrap();
    in_step(&old, &new, directory).await;
    assert!(claim(&new.queue).await.is_none());
    assert_eq!(claim_next(&old.queue).await.task.requires, digest("1"));
    // Where the plan is yet to be made, what adds its tasks does so with the digest of the same program.
    let planned = old.queue.provision("test", &provisioning(directory, &[])).await.unwrap();
    assert!(planned.tasks.len() > 1, "{planned:?}");
    for submitted in &planned.tasks {
        let task = old.queue.task(submitted.id).await.unwrap();
        assert_eq!(task.requires, digest("1"), "{}", task.name);
    }
}

/// A request to create servers: all of the settings where none is named.
fn provisioning(directory: &Path, servers: &[&str]) -> ProvisionRequest {
    let settings = directory.join("settings.yaml");
    std::fs::write(&settings, "servers: []").unwrap();
    let request = serde_json::json!({
        "infra": "production",
        "settings": settings,
        "cwd": directory,
        "operation": "create",
        "target": { "servers": { "servers": servers } },
    });
    serde_json::from_value(request).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_observer_wins_and_one_that_is_lost_itself_removes_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let store = store(directory).await;
    let mut peers = Vec::new();
    for name in ["a", "b", "c"] {
        peers.push(Peer::join_with(&store, directory, name, short_times(), |_| {}).await);
    }
    let [a, b, c] = [&peers[0], &peers[1], &peers[2]];
    a.fall_silent();
    let removed = until("the engine to be lost", async || {
        let (by_b, by_c) = tokio::join!(b.membership.observe(), c.membership.observe());
        let removed = [by_b.unwrap(), by_c.unwrap()].concat();
        (!removed.is_empty()).then_some(removed)
    })
    .await;
    assert_eq!(removed, ["a"]);
    // The lost one has not renewed its own lease: it is for the others to look.
    b.fall_silent();
    until("the next one to be lost", async || {
        assert_eq!(a.membership.observe().await.unwrap(), Vec::<String>::new());
        Some(c.membership.observe().await.unwrap()).filter(|removed| removed == &["b"])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_leaves_in_peace_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let peers = peers(directory, 2).await;
    peers[0].membership.leave().await.unwrap();
    let members = orchestrator_engine::membership::members(&*peers[1].store).await.unwrap();
    let seated: Vec<_> = members.iter().map(|member| (member.id.as_str(), member.is_seated)).collect();
    assert_eq!(seated, [("engine-0", false), ("engine-1", true)]);
    let late = records::check_absent(records::task_key(TaskId::generate()));
    assert!(peers[0].queue.store().commit(vec![late]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_learns_of_itself_when_it_has_its_seat_is_told_with_the_next_renewal() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let peers = peers(directory, 2).await;
    let labels = BTreeMap::from([(labels::DOCKER.to_owned(), "x".to_owned())]);
    peers[0].membership.describe(About { labels: labels.clone(), ..About::default() });
    peers[0].membership.renew().await.unwrap();
    let members = orchestrator_engine::membership::members(&*peers[1].store).await.unwrap();
    let told = members.iter().find(|member| member.id == "engine-0").unwrap();
    assert_eq!(told.about.labels, labels);
}

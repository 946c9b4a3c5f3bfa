//! The life of one environment, whatever happens to it and to its engine.

use std::fs;
use std::path::Path;

use orchestrator_engine::queue::finish::Ending;
use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::environment::{
    CleanEnvironment, EnvironmentConfig, EnvironmentRequest, EnvironmentStatus, EnvironmentTask,
    GetEnvironment, ListEnvironments, RunEnvironment, RunOptions,
};
use orchestrator_protocol::request::{CancelTask, PauseQueue, ResumeQueue};
use orchestrator_protocol::task::{AttemptOutcome, TaskStatus};
use orchestrator_tests::engine::TestEngine;
use orchestrator_tests::wait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::world::*;

/// Every point at which an engine can be ended between two steps of an environment.
const POINTS: [&str; 6] = [
    "environment-made",
    "environment-recorded",
    "claim.after_commit",
    "finish.before_commit",
    "finish.after_commit",
    "submit.after_commit",
];

#[test]
fn an_environment_is_made_tested_and_removed_by_tasks_of_one_workflow() {
    let Some((engine, image)) = world() else { return };
    let made = engine.ask(request(&engine, &image, &["one", "two"]));
    let workflow = engine.wait(made.task);
    assert_eq!(workflow.status, TaskStatus::Completed, "{workflow:#?}\n{}", engine.log());
    let gone = environment(&engine, made);
    assert_eq!((gone.status, gone.error.as_deref()), (EnvironmentStatus::Cleaned, None));
    let results: Vec<_> = gone.results.iter().map(|result| (result.name.as_str(), result.passed)).collect();
    assert_eq!(results, [("verify clock", true), ("verify clock", true)]);
    assert_eq!(engine.ask(ListEnvironments::default()), []);
    let tasks = tasks_of(&engine, made);
    let names: Vec<_> = tasks.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["clean clocks", "create clocks", "run the tests of clocks", "test environment clocks"]
    );
    let log = engine.lines(tasks["create clocks"].id, orchestrator_protocol::event::OutputStream::Stdout);
    assert!(!log.is_empty(), "an action has a log like any task");
    nothing_is_left(&engine);
}

#[test]
fn what_fails_is_a_result_and_is_kept_until_it_is_removed() {
    let Some((engine, image)) = world() else { return };
    change(&engine, "verify.sh", "echo 'the clock is slow' >&2; exit 3\n");
    let made = engine.ask(request(&engine, &image, &["one"]));
    let workflow = engine.wait(made.task);
    assert_eq!(workflow.status, TaskStatus::Failed);
    let kept = environment(&engine, made);
    assert_eq!(kept.status, EnvironmentStatus::Failed);
    assert_eq!((kept.results[0].exit_code, kept.results[0].passed), (Some(3), false));
    assert!(kept.results[0].output.contains("the clock is slow"), "{:?}", kept.results);
    let run = &tasks_of(&engine, made)["run the tests of clocks"];
    assert_eq!(run.attempt, 1, "a failed test is no reason to try again");
    // Mended, it passes in the same environment, and is removed on request.
    change(&engine, "verify.sh", "exit 0\n");
    let cwd = kept.request.cwd.clone();
    let again = engine.ask(RunEnvironment { id: kept.id, run: RunOptions::default(), cwd });
    let again = engine.wait(again.task);
    assert_eq!(again.status, TaskStatus::Completed, "{again:#?}");
    let cleaned = engine
        .wait_for(engine.ask(CleanEnvironment { id: kept.id }).task, "to end", |task| task.status.is_final());
    assert_eq!(cleaned.status, TaskStatus::Completed);
    assert!(engine.ask(CleanEnvironment { id: kept.id }).existed, "it is gone already");
    let refused = engine.refused(RunEnvironment { id: kept.id, run: RunOptions::default(), cwd: None });
    assert_eq!(refused.code, ErrorCode::Conflict);
    nothing_is_left(&engine);
}

#[test]
fn one_that_is_called_off_while_it_is_made_is_removed() {
    let Some((engine, image)) = world() else { return };
    change(&engine, "start.sh", "sleep 3333\n");
    let made = engine.ask(request(&engine, &image, &["one"]));
    let create = wait::until("a node to be started", || {
        let node = environment(&engine, made).nodes.first()?.container.clone()?;
        docker(&["exec", &node, "pgrep", "-f", "sleep 3333"])?;
        Some(tasks_of(&engine, made)["create clocks"].id)
    });
    engine.ask(CancelTask { force: false, id: create, reason: Some("not needed".into()) });
    wait_for(&engine, made, EnvironmentStatus::Cleaned);
    assert_eq!(engine.task(create).status, TaskStatus::Cancelled);
    nothing_is_left(&engine);
}

#[test]
fn one_that_is_called_off_before_it_is_made_is_removed() {
    let Some((mut engine, image)) = world() else { return };
    engine.ask(PauseQueue { group: None });
    let made = engine.ask(request(&engine, &image, &["one"]));
    let create = tasks_of(&engine, made)["create clocks"].id;
    engine.ask(CancelTask { id: create, reason: None, force: false });
    assert_eq!(engine.task(create).status, TaskStatus::Cancelled);
    // Whoever looks finds a task that removes it, and so does the next engine.
    let clean =
        wait::until("a removal to be queued", || Some(tasks_of(&engine, made).get("clean clocks")?.id));
    engine.ask(CancelTask { id: clean, reason: None, force: false });
    engine.kill();
    engine.start();
    wait::until("another removal to be queued", || {
        (tasks_of(&engine, made).get("clean clocks")?.id != clean).then_some(())
    });
    engine.ask(ResumeQueue { group: None });
    wait_for(&engine, made, EnvironmentStatus::Cleaned);
    nothing_is_left(&engine);
}

/// One that waits for its next attempt has an error already; called off, it is removed all the same.
#[test]
fn one_that_is_called_off_between_two_attempts_is_removed() {
    let engine = TestEngine::new(ENGINE);
    let config = engine.directory().join("orchestrator.toml");
    fs::write(&config, "[retry]\nbase_ms = 3600000\ncap_ms = 3600000\n").unwrap();
    let mut engine = engine.with_arguments(&["--config", config.to_str().unwrap()]);
    add_clock(&engine);
    engine.start_in_environment("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let made = engine.ask(request(&engine, "none:1", &["one"]));
    let create = tasks_of(&engine, made)["create clocks"].id;
    engine.wait_for(create, "to wait for its next attempt", |task| {
        task.status == TaskStatus::Pending && task.last_error.is_some()
    });
    assert_eq!(environment(&engine, made).status, EnvironmentStatus::Error);
    engine.ask(CancelTask { id: create, reason: None, force: false });
    wait::until("a removal to be queued", || tasks_of(&engine, made).get("clean clocks").map(|_| ()));
}

/// One that no task works on although it is not at rest says so, whatever it says already, and is left alone
/// while a task holds its lock.
#[tokio::test]
async fn one_that_was_left_at_work_is_in_error() {
    let directory = tempfile::tempdir().unwrap();
    let queue = orchestrator_tests::queue::queue(directory.path(), 4).await;
    let asked: EnvironmentRequest = serde_json::from_value(
        serde_json::json!({"config": {"type": "single_taskserv", "taskserv": "redis"}}),
    )
    .unwrap();
    for (status, said) in [
        (EnvironmentStatus::Creating, None),
        (EnvironmentStatus::RunningTests, Some("2 of 3 tests failed")),
        (EnvironmentStatus::Cleaning, Some("the disk is full")),
    ] {
        let made = queue.create_environment("test", &asked, "redis", "owner").await.unwrap();
        queue
            .update_environment(made.environment, &|environment| {
                if status == EnvironmentStatus::RunningTests {
                    environment.status = EnvironmentStatus::Ready;
                }
            })
            .await
            .unwrap();
        queue
            .update_environment(made.environment, &|environment| {
                environment.status = status;
                environment.error = said.map(String::from);
            })
            .await
            .unwrap();
        queue.abandon_environment(made.environment).await.unwrap();
        assert_eq!(queue.environment(made.environment).await.unwrap().status, status, "its task is pending");
        let claimed = queue.claim(queue.next().unwrap()).await.unwrap().unwrap();
        queue.abandon_environment(made.environment).await.unwrap();
        assert_eq!(queue.environment(made.environment).await.unwrap().status, status, "its task runs");
        let ending = Ending::bare(AttemptOutcome::Failed, None);
        queue.finish(claimed.task.id, claimed.task.fence, &ending).await.unwrap();
        queue.abandon_environment(made.environment).await.unwrap();
        let left = queue.environment(made.environment).await.unwrap();
        assert_eq!(left.status, EnvironmentStatus::Error);
        let why = left.error.unwrap();
        assert!(why.contains(&format!("the task that left it '{status}' has ended")), "{why}");
        assert!(said.is_none_or(|said| why.ends_with(said)), "{why}");
    }
}

#[test]
fn one_whose_time_is_over_is_removed_by_the_next_engine() {
    let Some((mut engine, image)) = world() else { return };
    let short = EnvironmentRequest {
        auto_start: false,
        expires_after_ms: Some(1_000),
        ..request(&engine, &image, &["one"])
    };
    let made = engine.ask(short);
    engine.wait(made.task);
    let expires_at = environment(&engine, made).expires_at;
    engine.kill();
    wait::until("its time to be over", || (chrono::Utc::now() > expires_at).then_some(()));
    engine.start();
    wait_for(&engine, made, EnvironmentStatus::Cleaned);
    nothing_is_left(&engine);
}

#[test]
fn without_docker_it_is_said_and_nothing_hangs() {
    let Some(image) = image() else { return };
    let engine = TestEngine::new(ENGINE);
    let config = engine.directory().join("orchestrator.toml");
    fs::write(&config, "[retry]\nmax_retries = 0\n").unwrap();
    let mut engine = engine.with_arguments(&["--config", config.to_str().unwrap()]);
    engine.start_in_environment("DOCKER_HOST", "unix:///nowhere/docker.sock");
    fs::create_dir_all(engine.directory().join("taskservs/clock")).unwrap();
    let folder = engine.directory().join("taskservs/clock");
    for (name, text) in [("taskserv.toml", "description = 'x'\n"), ("install.sh", ""), ("verify.sh", "")] {
        fs::write(folder.join(name), text).unwrap();
    }
    let made = engine.ask(request(&engine, &image, &["one"]));
    let create = engine.wait(tasks_of(&engine, made)["create clocks"].id);
    assert_eq!(create.status, TaskStatus::Failed);
    let error = create.error.unwrap();
    assert!(error.contains("/nowhere/docker.sock"), "{error}");
    assert_eq!(environment(&engine, made).status, EnvironmentStatus::Error);
}

#[test]
fn what_means_nothing_is_refused_at_once() {
    let Some((engine, image)) = world() else { return };
    let mut unknown = request(&engine, &image, &["one"]);
    if let EnvironmentConfig::ClusterTopology { topology, .. } = &mut unknown.config {
        topology.nodes[0].taskservs = vec!["sundial".into()];
    }
    let error = engine.refused(unknown);
    assert_eq!(error.field.as_deref(), Some("config.topology.nodes[0].taskservs[0]"));
    assert!(error.message.contains("sundial"), "{}", error.message);
    let twice = engine.refused(request(&engine, &image, &["one", "one"]));
    assert_eq!(twice.code, ErrorCode::Invalid);
    assert_eq!(engine.ask(ListEnvironments::default()), []);
}

/// An engine that is killed at any point of an environment's life leaves nothing that no record owns, and
/// the next one brings it to its end. Another engine's environment on the same Docker stays as it is.
#[test]
fn an_engine_that_is_killed_leaves_nothing_behind() {
    let Some((other, image)) = world() else { return };
    let kept = EnvironmentRequest { auto_start: false, ..request(&other, &image, &["stays"]) };
    let kept = other.ask(kept);
    assert_eq!(other.wait(kept.task).status, TaskStatus::Completed, "{}", other.log());
    let before = other_things(&other);

    let rounds = number("ORCHESTRATOR_ENVIRONMENT_ROUNDS", 4);
    let mut random = StdRng::seed_from_u64(number("ORCHESTRATOR_KILL_SEED", 1));
    let Some((mut engine, _)) = world() else { return };
    for round in 0..rounds {
        engine.kill();
        let point = POINTS[random.random_range(0..POINTS.len())];
        let fault = format!("{point}:{}", random.random_range(1..=12));
        engine.start_with(Some(&fault));
        // It may be killed before it has answered: then nothing was promised.
        let asked = wait_ready_or_ended(&mut engine)
            .and_then(|()| engine.try_client().ok())
            .and_then(|mut client| client.call(request(&engine, &image, &["one", "two"])).ok());
        wait::until("the engine to be killed or done", || {
            let is_done = || asked.is_some_and(|made| done(&engine, made));
            let is_dead = engine.try_client().is_err();
            (is_dead || is_done() || asked.is_none()).then_some(())
        });
        engine.kill();
        engine.start();
        for environment in engine.ask(ListEnvironments::default()) {
            let made = EnvironmentTask {
                environment: environment.id,
                task: environment.task.unwrap(),
                existed: true,
            };
            wait_for(&engine, made, EnvironmentStatus::Cleaned);
        }
        let owner = fs::read_to_string(engine.data_dir().join("owner")).unwrap();
        let left = things(&format!("orchestrator.data={owner}"));
        assert_eq!(left, Vec::<String>::new(), "round {round}, killed at {fault}\n{}", engine.log());
        assert_eq!(other_things(&other), before, "round {round}: the other engine's things");
    }
    nothing_is_left(&engine);
    other.wait(other.ask(CleanEnvironment { id: kept.environment }).task);
    nothing_is_left(&other);
}

fn other_things(other: &TestEngine) -> Vec<String> {
    let owner = fs::read_to_string(other.data_dir().join("owner")).unwrap();
    things(&format!("orchestrator.data={owner}"))
}

fn done(engine: &TestEngine, made: EnvironmentTask) -> bool {
    let Ok(mut client) = engine.try_client() else { return true };
    client
        .call(GetEnvironment { id: made.environment })
        .is_ok_and(|environment| environment.status == EnvironmentStatus::Cleaned)
}

/// Waits until the engine answers, or has ended.
fn wait_ready_or_ended(engine: &mut TestEngine) -> Option<()> {
    wait::until("the engine to be ready or to end", || match engine.ended() {
        Some(_) => Some(None),
        None => engine.try_client().ok().map(|_| Some(())),
    })
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The engine's data has a name of its own, over its lives.
#[test]
fn the_owner_stays_the_same() {
    let mut engine = TestEngine::started(ENGINE);
    let owner =
        |engine: &TestEngine| fs::read_to_string(Path::new(&engine.data_dir()).join("owner")).unwrap();
    let first = owner(&engine);
    engine.kill();
    engine.start();
    assert_eq!(owner(&engine), first);
    assert_ne!(first, owner(&TestEngine::started(ENGINE)));
}

//! Tests: the verify steps of all taskservs, the user's scripts, and faults with a look after each.
//!
//! Each result is in the record as soon as it is there. A run that an engine has died in is gone on with:
//! what has a result is not done again, and what runs on a node is taken over.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::try_join_all;
use orchestrator_protocol::Error;
use orchestrator_protocol::environment::{
    Environment, EnvironmentId, EnvironmentStatus, Fault, RunOptions, TestResult, TestScript,
};
use orchestrator_protocol::task::TaskId;
use serde_json::{Value, json};

use super::inject::Target;
use super::services::{Archive, Scene, Script};
use super::step::{BASE, Order, Outcome, STEP_SH};
use super::watch::Watch;
use super::{Context, Count, Failure, Place, TestOrchestrator, address_by_node, names, places};
use crate::containers::ContainerState;
use crate::test_environment::{Blueprint, NodePlan, check_run, script_path, test_name};

/// How long a script may take that does not say.
const SCRIPT_LIMIT: Duration = Duration::from_secs(600);

/// What the parts of a run need to know.
#[derive(Clone, Copy)]
struct Run<'a> {
    environment: &'a Environment,
    blueprint: &'a Blueprint,
    scene: Scene<'a>,
    context: &'a Context,
    count: &'a Count<'a>,
    watch: &'a Watch<'a>,
}

impl Run<'_> {
    /// What a step of this run is called on a node: no two runs share one.
    fn about(&self, part: &str) -> String {
        format!("run{}-{part}", self.environment.runs)
    }

    fn has(&self, node: &str, test: &str) -> bool {
        self.environment.results.iter().any(|result| result.node == node && result.name == test)
    }
}

impl TestOrchestrator {
    /// Runs the tests of an environment, for a task. Another attempt of the same task goes on where the one
    /// before it broke off.
    ///
    /// # Errors
    /// A test that fails is a permanent failure, and the record is in `failed`; where the run itself does
    /// not come to an end, it is in `error`. Called off, it is `ready` as before.
    pub async fn run(
        &self,
        id: EnvironmentId,
        task: TaskId,
        options: &RunOptions,
        cwd: Option<&Path>,
        context: &Context,
    ) -> Result<Value, Failure> {
        let before = self.environment(id).await?;
        if before.ready_at.is_none() {
            let message = format!("environment '{id}' is '{}': it has never been ready", before.status);
            return Err(Failure::permanent(Error::conflict(message)));
        }
        let environment = self
            .turn(id, EnvironmentStatus::RunningTests, &|environment| {
                let is_going_on =
                    before.status == EnvironmentStatus::RunningTests && environment.run_task == Some(task);
                if !is_going_on {
                    environment.runs += 1;
                    environment.run_task = Some(task);
                    environment.results.clear();
                    environment.error = None;
                }
            })
            .await?;
        match self.tests(&environment, options, cwd, context).await {
            Ok(()) => self.conclude(id).await,
            Err(failure) if context.cancel.is_cancelled() => {
                self.turn(id, EnvironmentStatus::Ready, &|_| {}).await?;
                Err(failure)
            }
            Err(failure) => {
                self.note_failure(id, &failure).await;
                Err(failure)
            }
        }
    }

    async fn tests(
        &self,
        environment: &Environment,
        options: &RunOptions,
        cwd: Option<&Path>,
        context: &Context,
    ) -> Result<(), Failure> {
        let blueprint = self.blueprint(environment)?;
        let nodes: Vec<&str> = blueprint.nodes.iter().map(|node| node.config.name.as_str()).collect();
        let cwd = cwd.and_then(Path::to_str);
        check_run(options, &nodes, cwd, "run.")?;
        let scripts = options.tests.iter().map(|test| script_path(&test.script, cwd));
        let scripts: Vec<PathBuf> = scripts.collect::<Result<_, _>>()?;
        let addresses = address_by_node(environment);
        let scene = Scene { blueprint: &blueprint, address_by_node: &addresses };
        let count = Count::new(context, total(&blueprint, options));
        let watch = Watch::new(self, environment);
        let run = Run { environment, blueprint: &blueprint, scene, context, count: &count, watch: &watch };
        let work = async {
            self.bring_scripts(run).await?;
            if options.idempotence_check {
                self.install_again(run).await?;
            }
            self.verify(run, &nodes, "verify-", "").await?;
            for (index, (test, path)) in options.tests.iter().zip(&scripts).enumerate() {
                self.test_script(run, index, test, path).await?;
            }
            for (index, step) in options.faults.iter().enumerate() {
                let label = format!("fault {}: {}", index + 1, in_words(&step.fault));
                self.test_fault(run, &step.fault, &label).await?;
                if step.verify {
                    let up = self.reachable(environment).await?;
                    let up: Vec<&str> = up.iter().map(String::as_str).collect();
                    self.verify(run, &up, &format!("fault{index}-"), &format!(" after {label}")).await?;
                }
            }
            Ok(())
        };
        // A node that its disk limit has stopped is told in the results, so the work decides alone.
        match watch.over(work).await {
            Err(failure) if watch.stopped_any() && failure.permanent && !context.cancel.is_cancelled() => {
                self.add(
                    run,
                    TestResult {
                        node: "all".into(),
                        name: "disk limits".into(),
                        passed: false,
                        exit_code: None,
                        duration_ms: 0,
                        output: String::new(),
                        error: Some(failure.error.message),
                        result: None,
                    },
                )
                .await
            }
            other => other,
        }
    }

    /// Brings the taskservs as they are now to the nodes that are up: a verification that was mended since
    /// they were made is the one that runs.
    async fn bring_scripts(&self, run: Run<'_>) -> Result<(), Failure> {
        let (up, places) = (self.up(run.environment).await?, places(run.environment));
        let nodes = run.blueprint.nodes.iter().filter(|node| up.contains(&node.config.name));
        try_join_all(nodes.filter_map(|node| {
            let place = places.get(&node.config.name)?;
            Some(self.equip(&place.container, node))
        }))
        .await
        .map(drop)
    }

    /// Runs the install scripts again, which must change nothing.
    async fn install_again(&self, run: Run<'_>) -> Result<(), Failure> {
        try_join_all(run.blueprint.nodes.iter().map(|node| async move {
            for plan in &node.taskservs {
                let name = format!("install {} again", plan.taskserv.name);
                let order = run.scene.order(node, plan, Script::Install, &run.about("again-"));
                let order = Order { label: name.clone(), ..order };
                self.test(run, node, &name, &order, is_unchanged).await?;
            }
            Ok::<_, Failure>(())
        }))
        .await
        .map(drop)
    }

    /// Runs the verify scripts of all taskservs on these nodes.
    async fn verify(&self, run: Run<'_>, nodes: &[&str], part: &str, after: &str) -> Result<(), Failure> {
        let chosen = run.blueprint.nodes.iter().filter(|node| nodes.contains(&node.config.name.as_str()));
        try_join_all(chosen.map(|node| async move {
            for plan in &node.taskservs {
                let name = format!("{}{after}", Script::Verify.label(&plan.taskserv.name));
                let order = run.scene.order(node, plan, Script::Verify, &run.about(part));
                self.test(run, node, &name, &order, |_| None).await?;
            }
            Ok::<_, Failure>(())
        }))
        .await
        .map(drop)
    }

    /// Runs one of the user's scripts on its nodes.
    async fn test_script(
        &self,
        run: Run<'_>,
        index: usize,
        test: &TestScript,
        path: &Path,
    ) -> Result<(), Failure> {
        let unreadable =
            |error| Error::invalid(format!("the script {} cannot be read: {error}", path.display()));
        let content = std::fs::read(path).map_err(unreadable)?;
        let name = test_name(test).to_owned();
        let folder = format!("tests/{}", run.about(&index.to_string()));
        let archive = script_archive(&folder, &content).map_err(unreadable)?;
        let places = places(run.environment);
        let chosen = run.blueprint.nodes.iter();
        let chosen = chosen.filter(|node| test.nodes.is_empty() || test.nodes.contains(&node.config.name));
        try_join_all(chosen.map(|node| {
            let archive = archive.clone();
            let order = Order {
                id: run.about(&format!("test{index}")),
                label: name.clone(),
                folder: format!("{BASE}/{folder}"),
                command: vec!["./script".into()],
                env: variables(run, node),
                limit: test.timeout_ms.map_or(SCRIPT_LIMIT, Duration::from_millis),
                within: None,
            };
            let (name, places) = (&name, &places);
            async move {
                // On a node that has died there is nothing to copy to, and the test says so.
                if !run.has(&node.config.name, name)
                    && let Some(place) = places.get(&node.config.name)
                    && let Err(problem) = self.docker.copy_in(&place.container, "/var/lib", archive).await
                    && self.died(place).await?.is_none()
                {
                    return Err(Failure::from(problem));
                }
                self.test(run, node, name, &order, |_| None).await
            }
        }))
        .await
        .map(drop)
    }

    /// Runs a script as a test, and writes its result down. `objection` says what is wrong with a success.
    async fn test(
        &self,
        run: Run<'_>,
        node: &NodePlan,
        name: &str,
        order: &Order,
        objection: fn(&Outcome) -> Option<String>,
    ) -> Result<(), Failure> {
        let node = &node.config.name;
        let message = format!("{node}: {name}");
        if run.has(node, name) {
            run.count.done(&message);
            return Ok(());
        }
        let places = places(run.environment);
        let place = places
            .get(node)
            .ok_or_else(|| Failure::permanent(Error::conflict(format!("node '{node}' has no container"))))?;
        let outcome = self.take_step(place, order, run.context).await?;
        let result = result(run, place, name, order, outcome, objection);
        self.add(run, result).await?;
        run.count.done(&message);
        Ok(())
    }

    /// Does a fault, as a test of its own: one that could not be done says nothing about what comes after.
    async fn test_fault(&self, run: Run<'_>, fault: &Fault, label: &str) -> Result<(), Failure> {
        let node = match fault {
            Fault::Kill { node }
            | Fault::Stop { node }
            | Fault::Pause { node }
            | Fault::Unpause { node }
            | Fault::Restart { node } => node.clone(),
            Fault::Partition { nodes } => nodes.join(" "),
            Fault::Heal {} => "all".into(),
        };
        if run.has(&node, label) {
            run.count.done(label);
            return Ok(());
        }
        (run.context.log)(label);
        let began = std::time::Instant::now();
        let target = Target { environment: run.environment, blueprint: run.blueprint, context: run.context };
        let done = self.apply(target, fault).await;
        run.context.go_on()?;
        if let Err(failure) = &done
            && !failure.permanent
            && self.docker.daemon().await.is_err()
        {
            return Err(failure.clone());
        }
        let result = TestResult {
            node,
            name: label.to_owned(),
            passed: done.is_ok(),
            exit_code: None,
            duration_ms: milliseconds(began.elapsed()),
            output: String::new(),
            error: done.err().map(|failure| failure.error.message),
            result: None,
        };
        self.add(run, result).await?;
        run.count.done(label);
        Ok(())
    }

    async fn add(&self, run: Run<'_>, result: TestResult) -> Result<(), Failure> {
        let verdict = if result.passed { "passed" } else { "failed" };
        (run.context.log)(&format!("{}: {}: {verdict}", result.node, result.name));
        self.record(run.environment.id, EnvironmentStatus::RunningTests, &|environment| {
            let is_known = |known: &TestResult| known.node == result.node && known.name == result.name;
            if !environment.results.iter().any(is_known) {
                environment.results.push(result.clone());
            }
        })
        .await
        .map(drop)
    }

    /// The nodes that run and that no partition has cut off from the others.
    async fn reachable(&self, environment: &Environment) -> Result<Vec<String>, Failure> {
        let partitions = self.environment(environment.id).await?.partitions;
        let mut up = self.up(environment).await?;
        up.retain(|node| !partitions.iter().any(|side| side.contains(node)));
        Ok(up)
    }

    /// The nodes that run.
    async fn up(&self, environment: &Environment) -> Result<Vec<String>, Failure> {
        let found = self.docker.containers(&names::of_environment(&self.options, environment)).await?;
        let up = found.into_iter().filter(|container| container.state == ContainerState::Running);
        Ok(up.filter_map(|mut container| container.labels.remove(names::NODE)).collect())
    }

    /// Judges a run by its results.
    async fn conclude(&self, id: EnvironmentId) -> Result<Value, Failure> {
        let results = self.environment(id).await?.results;
        let failed: Vec<&TestResult> = results.iter().filter(|result| !result.passed).collect();
        let why = failed.first().map(|first| {
            let reason = first.error.as_deref().unwrap_or("it failed");
            format!(
                "{} of {} tests failed; {} on {}: {reason}",
                failed.len(),
                results.len(),
                first.name,
                first.node
            )
        });
        let next = if why.is_none() { EnvironmentStatus::Passed } else { EnvironmentStatus::Failed };
        self.turn(id, next, &|environment| environment.error = why.clone()).await?;
        match why {
            None => Ok(json!({"environment": id, "passed": results.len(), "failed": 0})),
            Some(why) => Err(Failure::permanent(Error::conflict(why))),
        }
    }
}

fn result(
    run: Run<'_>,
    place: &Place,
    name: &str,
    order: &Order,
    outcome: Outcome,
    objection: fn(&Outcome) -> Option<String>,
) -> TestResult {
    let error = if outcome.succeeded() { objection(&outcome) } else { Some(outcome.why(order, place)) };
    let error = error.map(|error| run.watch.why(&place.node).unwrap_or(error));
    TestResult {
        node: place.node.clone(),
        name: name.to_owned(),
        passed: error.is_none(),
        exit_code: outcome.exit_code(),
        duration_ms: milliseconds(outcome.duration),
        output: outcome.tail,
        error,
        result: outcome.result,
    }
}

/// What is wrong with an install script that has run again.
fn is_unchanged(outcome: &Outcome) -> Option<String> {
    let changed = outcome.result.as_ref().and_then(|result| result.get("changed")).and_then(Value::as_bool);
    match changed {
        Some(false) => None,
        Some(true) => Some("it has changed something, although everything was installed".into()),
        None => Some("it does not say that nothing has changed: `::result {\"changed\": false}`".into()),
    }
}

/// What the user's scripts know: themselves, and all nodes as `NAME ADDRESS ROLE`.
fn variables(run: Run<'_>, node: &NodePlan) -> std::collections::BTreeMap<String, String> {
    let role = |node: &NodePlan| node.config.role.clone().unwrap_or_default();
    let lines = run.blueprint.nodes.iter().map(|node| {
        let name = &node.config.name;
        let address = run.scene.address_by_node.get(name).map(ToString::to_string).unwrap_or_default();
        format!("{name} {address} {}", role(node)).trim_end().to_owned()
    });
    let variables = [
        ("TEST_ENVIRONMENT", run.environment.id.to_string()),
        ("TEST_INFRA", run.blueprint.infra.clone()),
        ("TEST_NODE", node.config.name.clone()),
        ("TEST_ROLE", role(node)),
        ("TEST_NODES", lines.collect::<Vec<_>>().join("\n")),
    ];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// An archive for `/var/lib`.
fn script_archive(folder: &str, content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.directory("orchestrator")?;
    // A node without taskservs does not have it yet.
    archive.file("orchestrator/step.sh", 0o755, STEP_SH.as_bytes())?;
    archive.directory("orchestrator/tests")?;
    archive.directory(&format!("orchestrator/{folder}"))?;
    archive.file(&format!("orchestrator/{folder}/script"), 0o755, content)?;
    archive.finish()
}

fn in_words(fault: &Fault) -> String {
    match fault {
        Fault::Kill { node } => format!("kill {node}"),
        Fault::Stop { node } => format!("stop {node}"),
        Fault::Pause { node } => format!("pause {node}"),
        Fault::Unpause { node } => format!("unpause {node}"),
        Fault::Restart { node } => format!("restart {node}"),
        Fault::Partition { nodes } => format!("partition {}", nodes.join(" ")),
        Fault::Heal {} => "heal".into(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn total(blueprint: &Blueprint, options: &RunOptions) -> usize {
    let verify: usize = blueprint.nodes.iter().map(|node| node.taskservs.len()).sum();
    let again = if options.idempotence_check { verify } else { 0 };
    let nodes =
        |test: &TestScript| if test.nodes.is_empty() { blueprint.nodes.len() } else { test.nodes.len() };
    let scripts: usize = options.tests.iter().map(nodes).sum();
    let faults: usize = options.faults.iter().map(|step| 1 + if step.verify { verify } else { 0 }).sum();
    again + verify + scripts + faults
}

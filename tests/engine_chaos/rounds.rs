//! Rounds: one engine is struck while it works, and healed, and all the time there is something to do.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use orchestrator_engine::membership::LeaseTimes;
use orchestrator_protocol::ErrorCode;
use orchestrator_protocol::client::ClientError;
use orchestrator_protocol::request::{CancelTask, GetStatus, GetTask};
use orchestrator_protocol::submit::Submitted;
use orchestrator_protocol::task::{AttemptOutcome, Task, TaskId, TaskStatus};
use orchestrator_tests::history::several::{self, Fate, History, Told, What};
use orchestrator_tests::proxy::Way;
use orchestrator_tests::wait;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::cluster::{Cluster, ENGINES, Fault, until_nobody_holds};
use crate::load::{Gate, Load, Submission};
use crate::observer::Observer;

/// Between two submissions.
const SUBMIT_INTERVAL: Duration = Duration::from_millis(250);
/// How much an engine is given to do just before something is done to it, and for how long it may work on it.
const BURST: usize = 4;
const MAX_LEAD: Duration = Duration::from_millis(400);
/// Between two looks at a condition.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long an engine to which nothing was done may take for a submission, and how long it is waited for
/// the answer of the one that was struck.
const ANSWER: Duration = Duration::from_secs(10);
const HASTY: Duration = Duration::from_millis(500);
/// How many tasks may wait when a round ends.
const BACKLOG: u64 = 20;
/// How long the engines may take in the end for everything that waits.
const LAST_PATIENCE: Duration = Duration::from_secs(180);

/// What becomes of a submission.
type Answer = Result<Submitted, ClientError>;

/// How long something is done to an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Span {
    /// Until another engine has begun one of its tasks anew.
    UntilTakenOver,
    /// For a time.
    For(Duration),
}

/// What happens in a round.
struct Plan {
    victim: usize,
    fault: Fault,
    span: Span,
    /// How long the engine works on what it was given just before.
    lead: Duration,
    /// Whether it has a task that must not be begun anew.
    has_held: bool,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "engine {} is {}, ", self.victim, self.fault)?;
        match self.span {
            Span::UntilTakenOver => f.write_str("until it is taken over"),
            Span::For(duration) => write!(f, "for {} ms", duration.as_millis()),
        }
    }
}

/// The engines, what they have to do, and who looks at them.
pub struct Chaos {
    cluster: Cluster,
    load: Load,
    observer: Observer,
    /// Chooses what is done to engines: the same with the same seed, whenever what happens.
    plans: StdRng,
    /// Chooses what there is to do.
    random: StdRng,
    /// The faults that come next.
    deck: Vec<u32>,
    /// Who is in trouble now.
    struck: Option<usize>,
    /// Whether nothing new is submitted any more.
    is_winding_up: bool,
    submitted_at: Instant,
    /// Submissions that were not acknowledged: sent again, with the same key, to whoever is there.
    unsure: Vec<Submission>,
    fates: BTreeMap<String, Fate>,
    /// Rounds after which an attempt must have been lost.
    takeovers: usize,
    /// The longest time from a fault to the next attempt of a task of that engine.
    slowest: Duration,
}

impl Chaos {
    /// Starts everything.
    pub fn start(seed: u64) -> Self {
        let mut cluster = Cluster::start();
        let observer = Observer::start(cluster.options.clone());
        cluster.start_engines();
        Self {
            cluster,
            load: Load::new(),
            observer,
            plans: StdRng::seed_from_u64(seed),
            random: StdRng::seed_from_u64(!seed),
            deck: Vec::new(),
            struck: None,
            is_winding_up: false,
            submitted_at: Instant::now(),
            unsure: Vec::new(),
            fates: BTreeMap::new(),
            takeovers: 0,
            slowest: Duration::ZERO,
        }
    }

    /// Strikes one engine that works, and heals it.
    pub fn round(&mut self, number: u32) {
        let plan = self.plan(number);
        eprintln!("round {number}: {plan}");
        let victim = plan.victim;
        let (gated, task, gate) = self.occupy(victim);
        let mut of_round = vec![task];
        if plan.has_held {
            let held = self.load.gated(&gate, true, &mut self.random);
            of_round.push(self.submit(victim, &held));
        }
        let endless = self.load.endless();
        let endless = self.submit(victim, &endless);
        of_round.push(endless);
        let starts = self.starts(&gated);
        let calls = self.begin_to_submit(victim);
        // It may be anywhere between a claim and the end of an attempt.
        thread::sleep(plan.lead);
        self.cluster.members[victim].strike(plan.fault);
        self.struck = Some(victim);
        for (submission, call) in calls {
            self.judge(submission, call.join().unwrap());
        }
        match plan.span {
            Span::UntilTakenOver => {
                self.takeovers += 1;
                let struck_at = Instant::now();
                self.until("a task of the engine to begin anew", |this| this.starts(&gated) > starts);
                self.slowest = self.slowest.max(struck_at.elapsed());
            }
            Span::For(duration) => {
                let healed_at = Instant::now() + duration;
                while Instant::now() < healed_at {
                    self.work();
                    thread::park_timeout(
                        LOOK_INTERVAL.min(healed_at.saturating_duration_since(Instant::now())),
                    );
                }
            }
        }
        let cancel = CancelTask { id: endless, reason: None, force: false };
        self.until("a cancellation to be accepted", |this| {
            let survivor = this.survivor();
            this.cluster.members[survivor].try_ask(cancel.clone()).is_ok()
        });
        self.cluster.members[victim].heal(plan.fault);
        self.until("the engine to be back", |this| this.cluster.is_back(victim));
        self.struck = None;
        gate.open();
        for id in of_round {
            self.until("the tasks of the round to end", |this| {
                this.task(id).is_some_and(|task| task.status.is_final())
            });
        }
        self.is_winding_up = true;
        self.until("the engines to keep up", |this| this.waiting().is_some_and(|waiting| waiting <= BACKLOG));
        self.is_winding_up = false;
    }

    /// Submits some things to an engine at once, whose answers may not come: whether it reads them, and when,
    /// is its affair, and others may be told the same meanwhile.
    fn begin_to_submit(&mut self, index: usize) -> Vec<(Submission, JoinHandle<Answer>)> {
        let mut calls = Vec::new();
        for _ in 0..BURST {
            if let Ok(mut client) = self.cluster.members[index].connect(HASTY) {
                let submission = self.load.some(&mut self.random);
                let request = submission.request.clone();
                calls.push((submission, thread::spawn(move || client.call(request))));
            }
        }
        calls
    }

    /// The first three rounds show each fault, for as long as it takes to be noticed.
    fn plan(&mut self, number: u32) -> Plan {
        if self.deck.is_empty() {
            self.deck = vec![0, 1, 2];
            self.deck.shuffle(&mut self.plans);
        }
        let fault = match self.deck.pop() {
            Some(0) => Fault::Kill,
            Some(1) => Fault::Stop,
            _ if self.plans.random_bool(0.5) => Fault::Cut(Way::Silent),
            _ => Fault::Cut(Way::Closed),
        };
        let lead = self.plans.random_range(Duration::ZERO..MAX_LEAD);
        let LeaseTimes { scripts, lost, renew } = LeaseTimes::default();
        let mut between = |from: Duration, to: Duration| Span::For(self.plans.random_range(from..to));
        let brief = between(Duration::ZERO, scripts);
        let at_the_edge = between(scripts.saturating_sub(renew / 2), lost + renew);
        let span = match self.plans.random_range(0..4_u32) {
            _ if number < 3 => Span::UntilTakenOver,
            0 => brief,
            1 => at_the_edge,
            _ => Span::UntilTakenOver,
        };
        let (victim, has_held) = (self.plans.random_range(0..ENGINES), self.plans.random_bool(0.5));
        Plan { victim, fault, span, lead, has_held }
    }

    /// Submits tasks behind gates until an engine runs one of them: that one. What others run goes on, so that
    /// they have room for what they take over.
    fn occupy(&mut self, index: usize) -> (String, TaskId, Gate) {
        let engine = self.cluster.members[index].id.clone();
        let runs_elsewhere = |task: &Task| task.claim.as_ref().is_some_and(|claim| claim.engine != engine);
        loop {
            let gate = self.load.gate();
            let submission = self.load.gated(&gate, false, &mut self.random);
            let (name, id) = (submission.fates[0].0.clone(), self.submit(index, &submission));
            let mut runs_here = false;
            self.until("a task to begin", |this| {
                let Some(task) = this.task(id) else { return false };
                runs_here = task.status == TaskStatus::Running && !runs_elsewhere(&task);
                runs_elsewhere(&task) || (runs_here && this.starts(&name) > 0)
            });
            if runs_here {
                return (name, id, gate);
            }
            gate.open();
        }
    }

    /// Waits for something, and submits meanwhile.
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + wait::PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            self.work();
            thread::park_timeout(LOOK_INTERVAL);
        }
    }

    /// Submits something, now and then: what is not acknowledged yet before what is new, and mostly to
    /// engines that are well.
    fn work(&mut self) {
        if self.submitted_at.elapsed() < SUBMIT_INTERVAL {
            return;
        }
        self.submitted_at = Instant::now();
        let again = (!self.unsure.is_empty()).then(|| self.unsure.remove(0));
        let submission = match again {
            Some(submission) => submission,
            None if self.is_winding_up => return,
            None => self.load.some(&mut self.random),
        };
        match self.struck {
            Some(struck) if self.random.random_bool(0.1) => self.send(struck, submission, HASTY),
            _ => {
                let survivor = self.survivor();
                self.send(survivor, submission, ANSWER)
            }
        };
    }

    /// One of the engines that are well.
    fn survivor(&mut self) -> usize {
        loop {
            let index = self.random.random_range(0..ENGINES);
            if Some(index) != self.struck {
                return index;
            }
        }
    }

    /// Submits one task to an engine that is well.
    fn submit(&mut self, index: usize, submission: &Submission) -> TaskId {
        let mut id = None;
        self.until("a submission to be acknowledged", |this| {
            id = this.send(index, submission.clone(), ANSWER).and_then(|submitted| submitted.id);
            id.is_some()
        });
        id.unwrap()
    }

    fn send(&mut self, index: usize, submission: Submission, patience: Duration) -> Option<Submitted> {
        let connected = self.cluster.members[index].connect(patience);
        let answer = connected.and_then(|mut client| client.call(submission.request.clone()));
        self.judge(submission, answer)
    }

    fn judge(&mut self, submission: Submission, answer: Answer) -> Option<Submitted> {
        match answer {
            Ok(submitted) => {
                self.fates.extend(submission.fates);
                Some(submitted)
            }
            Err(ClientError::Refused(error)) if error.code != ErrorCode::Unavailable => {
                panic!("{:?} is refused: {error:?}", submission.request);
            }
            Err(_) => {
                self.unsure.push(submission);
                None
            }
        }
    }

    /// A task, as some engine that is well sees it.
    fn task(&mut self, id: TaskId) -> Option<Task> {
        let survivor = self.survivor();
        self.cluster.members[survivor].try_ask(GetTask { id }).ok().map(|task| *task)
    }

    /// How many tasks have not ended, by what some engine that is well says.
    fn waiting(&mut self) -> Option<u64> {
        let survivor = self.survivor();
        let tasks = self.cluster.members[survivor].try_ask(GetStatus {}).ok()?.tasks;
        Some(tasks.iter().filter(|(status, _)| !status.is_final()).map(|(_, count)| count).sum())
    }

    /// How often the script of a task has begun.
    fn starts(&self, task: &str) -> usize {
        let is_start = |what: &What| matches!(what, What::Start { .. });
        self.load.marks().iter().filter(|mark| mark.task == task && is_start(&mark.what)).count()
    }

    /// Lets everything come to its end, and looks at what has become of it.
    pub fn finish(mut self) {
        self.is_winding_up = true;
        self.until("every submission to be acknowledged", |this| this.unsure.is_empty());
        wait::at_most(LAST_PATIENCE, "every task to end", || (self.waiting() == Some(0)).then_some(()));
        let tasks: Vec<Vec<Task>> = self.cluster.members.iter().map(|member| member.engine.tasks()).collect();
        for of_other in &tasks[1..] {
            assert_eq!(told(of_other), told(&tasks[0]), "the engines do not say the same");
        }
        for status in self.cluster.stop() {
            assert!(status.success(), "{status}");
        }
        let alive = fs::read_dir(self.load.marks_dir()).unwrap().flatten().map(|entry| entry.path());
        let files = alive.filter(|path| path.is_file()).map(|path| fs::File::open(path).unwrap());
        until_nobody_holds(files);
        let seen = self.observer.finish();
        let history = History {
            marks: self.load.marks(),
            told: told(&tasks[0]),
            sightings: seen.sightings,
            fates: self.fates,
        };
        let outcomes = history.told.iter().flat_map(|told| &told.attempts).map(|attempt| attempt.outcome);
        let lost = outcomes.filter(|outcome| *outcome == Some(AttemptOutcome::Lost)).count();
        eprintln!(
            "{} tasks, {} marks, {} sightings, {lost} attempts lost, {} engines taken over, the slowest in {:.1?}",
            history.told.len(),
            history.marks.len(),
            history.sightings.len(),
            self.takeovers,
            self.slowest
        );
        let wrong = several::check(&history);
        assert!(
            wrong.is_empty(),
            "{}\n{}",
            wrong.join("\n"),
            evidence(&wrong, &history, &tasks[0], &self.cluster)
        );
        assert_eq!(seen.locks, Vec::<String>::new(), "taken, and every task has ended");
        assert!(lost >= self.takeovers, "{lost} attempts were lost in {} takeovers", self.takeovers);
    }
}

fn told(tasks: &[Task]) -> Vec<Told> {
    tasks.iter().map(Told::from).collect()
}

/// What is known of the tasks of which something is wrong.
fn evidence(wrong: &[String], history: &History, tasks: &[Task], cluster: &Cluster) -> String {
    let is_named =
        |task: &&Task| wrong.iter().any(|line| line.split([' ', ',']).any(|word| word == task.name));
    let mut lines = Vec::new();
    for task in tasks.iter().filter(is_named) {
        lines.push(format!("{task:?}"));
        let marks = history.marks.iter().filter(|mark| mark.task == task.name);
        lines.extend(marks.map(|mark| format!("{mark:?}")));
        let id = task.id.to_string();
        for (index, member) in cluster.members.iter().enumerate() {
            let log = member.engine.log();
            let of_task = log.lines().filter(|line| line.contains(&id));
            lines.extend(of_task.map(|line| format!("engine {index}: {line}")));
        }
    }
    lines.join("\n")
}

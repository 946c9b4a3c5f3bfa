//! What every command owes its users: help, examples that work, and a signature like its sisters'.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashSet;

use chrono::Utc;
use nu_plugin::PluginCommand;
use nu_protocol::{Category, Signature};
use orchestrator_protocol::environment::{
    Environment, EnvironmentStatus, EnvironmentTask, NamedTopology, NodeConfig, NodeLine, Pruned, Topology,
};
use orchestrator_protocol::event::{Item, LogLine, OutputStream};
use orchestrator_protocol::request::{
    EngineMode, EngineStatus, Request, Response, StorageStatus, Subscription, TaskPage,
};
use orchestrator_protocol::storage::{Migration, MigrationStatus, StoragePlace, StorageReport, Validation};
use orchestrator_protocol::task::{Task, TaskStatus};
use serde_json::json;

use super::fixtures::{environment, moment, result, task};
use super::played::{Behaviour, Play, Played, Stream, Then};
use crate::commands;
use crate::plugin::Orchestrator;

/// The engine that the examples in the help speak of.
struct Exemplary;

fn exemplary_task() -> Task {
    Task {
        id: ID.parse().unwrap(),
        status: TaskStatus::Completed,
        result: Some(json!({"address": "10.0.0.4"})),
        ..task("web-01")
    }
}

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn exemplary_environment() -> Environment {
    Environment {
        id: ID.parse().unwrap(),
        results: vec![result(true)],
        ..environment(EnvironmentStatus::Passed)
    }
}

fn exemplary_topology() -> NamedTopology {
    let node = NodeConfig { name: "etcd-01".into(), taskservs: vec!["etcd".into()], ..NodeConfig::default() };
    NamedTopology {
        name: "etcd_cluster".into(),
        description: "A quorum.".into(),
        cluster_type: "etcd".into(),
        file: None,
        topology: Topology { nodes: vec![node], ..Topology::default() },
    }
}

fn storage_place() -> StoragePlace {
    StoragePlace { backend: "filesystem".into(), location: "/data".into() }
}

fn exemplary_migration() -> Migration {
    Migration {
        id: ID.parse().unwrap(),
        status: MigrationStatus::Completed,
        phase: "done".into(),
        from: storage_place(),
        to: storage_place(),
        records_done: 3,
        records_total: 3,
        started_at: moment(),
        ended_at: Some(moment()),
        checksum: Some("5e77".into()),
        waited_us: Some(1_500),
        error: None,
        advice: None,
    }
}

impl Behaviour for Exemplary {
    fn answer(&self, request: &Request) -> Play {
        match request {
            Request::Status(_) => Response::Status(Box::new(EngineStatus {
                engine: "one".into(),
                version: "0.1.0".into(),
                pid: 1,
                started_at: moment(),
                data_dir: "/data".into(),
                socket: "/s".into(),
                http: None,
                storage: StorageStatus {
                    backend: "filesystem".into(),
                    location: "/data".into(),
                    writable: true,
                    reason: None,
                    free_bytes: Some(1 << 30),
                },
                mode: EngineMode::Active,
                paused: false,
                paused_groups: Vec::new(),
                max_parallel: 4,
                tasks: [(TaskStatus::Failed, 1)].into(),
                groups: Default::default(),
                engines: Vec::new(),
            }))
            .into(),
            Request::ListTasks(filter) if filter.statuses == [TaskStatus::Failed] => {
                Response::ListTasks(TaskPage { tasks: vec![task("web-02")], cursor: None }).into()
            }
            Request::GetTask(_) => Response::GetTask(Box::new(exemplary_task())).into(),
            Request::CreateEnvironment(_) => Response::CreateEnvironment(EnvironmentTask {
                environment: exemplary_environment().id,
                task: exemplary_task().id,
                existed: false,
            })
            .into(),
            Request::GetEnvironment(_) => Response::GetEnvironment(Box::new(exemplary_environment())).into(),
            Request::ListEnvironments(_) => Response::ListEnvironments(vec![exemplary_environment()]).into(),
            Request::ListTopologies(_) => Response::ListTopologies(vec![exemplary_topology()]).into(),
            Request::GetStorage(_) => Response::GetStorage(Box::new(StorageReport {
                place: storage_place(),
                state: "active".into(),
                epoch: 0,
                other: None,
                writable: true,
                reason: None,
                free_bytes: Some(1 << 30),
                tables: [("task".to_owned(), 3)].into(),
            }))
            .into(),
            Request::ValidateMigration(_) => Response::ValidateMigration(Box::new(Validation {
                from: storage_place(),
                to: storage_place(),
                is_possible: true,
                checks: Vec::new(),
            }))
            .into(),
            Request::StartMigration(_) => Response::StartMigration(Box::new(exemplary_migration())).into(),
            Request::ListMigrations(_) => Response::ListMigrations(vec![exemplary_migration()]).into(),
            Request::PrunePrepared(_) => {
                Response::PrunePrepared(Pruned { images: vec!["one".into()], bytes: 1 << 20 }).into()
            }
            other => Play::Refuse(orchestrator_protocol::Error::internal(format!(
                "{} has no example",
                other.name()
            ))),
        }
    }

    fn stream(&self, subscription: &Subscription) -> Stream {
        let item = match subscription {
            Subscription::Logs(request) => Item::Line(LogLine {
                task: request.id,
                attempt: 1,
                time: Utc::now(),
                stream: request.stream.unwrap_or(OutputStream::Stdout),
                line: "almost full".into(),
            }),
            Subscription::EnvironmentLogs(_) => Item::Node(NodeLine {
                node: "redis".into(),
                step: "verify redis".into(),
                time: Utc::now(),
                stream: OutputStream::Stdout,
                line: "PONG".into(),
            }),
            _ => Item::Task(Box::new(exemplary_task())),
        };
        Stream { items: vec![item], then: Then::End(None) }
    }
}

fn has_subcommands(command: &dyn PluginCommand<Plugin = Orchestrator>) -> bool {
    commands::all().iter().any(|other| other.name().starts_with(&format!("{} ", command.name())))
}

#[test]
fn every_example_with_a_result_gives_it() {
    let engine = Played::start(Exemplary);
    let mut shell = engine.shell();
    for command in commands::all() {
        let tested = shell.0.test_examples(&command.examples());
        assert!(tested.is_ok(), "an example of {}: {tested:?}", command.name());
    }
}

#[test]
fn every_command_has_help_examples_and_search_terms() {
    for command in commands::all() {
        let name = command.name();
        assert!(command.description().ends_with('.'), "{name}");
        assert!(
            command.description().len() <= 80,
            "{name} has a description that no completion menu can show"
        );
        assert!(!command.search_terms().is_empty(), "{name}");
        assert!(has_subcommands(&*command) || !command.examples().is_empty(), "{name}");
    }
}

#[test]
fn every_signature_is_like_its_sisters() {
    let mut names = HashSet::new();
    for command in commands::all() {
        let Signature {
            name,
            category,
            input_output_types,
            named,
            required_positional,
            optional_positional,
            ..
        } = command.signature();
        assert_eq!(name, command.name());
        assert!(names.insert(name.clone()), "{name} is there twice");
        assert!(matches!(&category, Category::Custom(custom) if custom == "orchestrator"), "{name}");
        assert!(!input_output_types.is_empty(), "{name}");
        assert!(required_positional.len() + optional_positional.len() <= 2, "{name}");
        let shorts: Vec<char> = named.iter().filter_map(|flag| flag.short).collect();
        assert_eq!(
            shorts.iter().collect::<HashSet<_>>().len(),
            shorts.len(),
            "{name} has a short flag twice"
        );
        for flag in named {
            assert!(!flag.desc.is_empty(), "{name} --{}", flag.long);
            assert!(!flag.desc.ends_with('.'), "{name} --{}", flag.long);
        }
    }
}

#[test]
fn every_command_with_subcommands_exists_itself() {
    let names: Vec<String> = commands::all().iter().map(|command| command.name().to_owned()).collect();
    for name in &names {
        let mut words: Vec<&str> = name.split(' ').collect();
        while words.pop().is_some() && !words.is_empty() {
            assert!(names.contains(&words.join(" ")), "{name} has no parent");
        }
    }
}

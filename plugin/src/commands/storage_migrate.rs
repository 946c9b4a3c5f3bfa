//! `orchestrator storage validate` and `orchestrator storage migrate`

use std::ffi::OsString;
use std::path::Path;
use std::thread;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{
    Completion, Example, Flag, LabeledError, PipelineData, Signature, SyntaxShape, Type, Value,
};
use orchestrator_protocol::storage::{
    GetMigration, Migration, MigrationStatus, StartMigration, StorageTarget, ValidateMigration,
};

use super::{SignatureExt, storage_offline};
use crate::connection::{LOOK, Session};
use crate::errors::error;
use crate::input::absolute;
use crate::plugin::Orchestrator;
use crate::progress::Line;
use crate::values::storage;

const STORAGE_TYPES: &[&str] = &["filesystem", "surrealdb-embedded", "surrealdb-server"];

fn signature(name: &str) -> Signature {
    Signature::build(name)
        .for_engine()
        .param(
            Flag::new("to")
                .short('t')
                .arg(SyntaxShape::String)
                .desc("The storage that the records go to (default: filesystem)")
                .completion(Completion::new_list(STORAGE_TYPES)),
        )
        .param(
            Flag::new("target-dir")
                .short('d')
                .arg(SyntaxShape::Directory)
                .desc("Its directory (default: the data directory)"),
        )
        .input_output_type(Type::Nothing, Type::record())
}

/// Where the call says that the records are to go.
fn target(engine: &EngineInterface, call: &EvaluatedCall) -> Result<StorageTarget, LabeledError> {
    let storage_type = call.get_flag::<String>("to")?.unwrap_or_else(|| "filesystem".into());
    let cwd = engine.get_current_dir()?;
    let dir = call.get_flag::<String>("target-dir")?;
    let dir = dir.map(|dir| absolute(Path::new(&cwd), &dir).to_string_lossy().into_owned());
    Ok(StorageTarget { storage_type, dir })
}

fn words(command: &str, to: &StorageTarget) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![command.into(), "--to".into(), to.storage_type.clone().into()];
    if let Some(dir) = &to.dir {
        words.extend(["--target-dir".into(), dir.into()]);
    }
    words
}

fn validate(session: &Session, call: &EvaluatedCall, to: StorageTarget) -> Result<Value, LabeledError> {
    let place = session.place(call.head);
    let validation = match session.ask(ValidateMigration { to: to.clone() }) {
        Ok(validation) => *validation,
        Err(failure) if failure.is_not_running() => {
            storage_offline::run(session, words("validate", &to), place)?
        }
        Err(failure) => return Err(failure.at_field(place, |field| flag(call, field))),
    };
    Ok(storage::validation(&validation, call.head))
}

/// The place in the call that a field of the question came from.
fn flag(call: &EvaluatedCall, field: &str) -> Option<nu_protocol::Span> {
    let name = if field == "dir" { "target-dir" } else { "to" };
    call.get_flag_value(name).map(|value| value.span())
}

/// Looks whether the records could be moved.
pub struct StorageValidate;

impl PluginCommand for StorageValidate {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator storage validate"
    }

    fn description(&self) -> &str {
        "Check whether the records could be moved; nothing is changed."
    }

    fn extra_description(&self) -> &str {
        "Looks at both ends: what they are, permissions, free space. Asks the engine, or looks itself when none runs."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["check", "move", "dry-run", "records"]
    }

    fn signature(&self) -> Signature {
        signature(self.name())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![Example {
            description: "Could the records move to another directory?",
            example: "(orchestrator storage validate --target-dir /srv/orchestrator).possible",
            result: Some(Value::test_bool(true)),
        }]
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let session = Session::open(plugin, engine, call)?.without_start();
        let value = validate(&session, call, target(engine, call)?)?;
        Ok(PipelineData::value(value, None))
    }
}

/// Moves the records.
pub struct StorageMigrate;

impl PluginCommand for StorageMigrate {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator storage migrate"
    }

    fn description(&self) -> &str {
        "Move the records to another storage, while the engine works."
    }

    fn extra_description(&self) -> &str {
        "They are copied, compared one by one and, in one moment, moved; until then whatever fails leaves them where \
they are. When no engine runs this does it itself. It returns when it has ended, and fails when the records have not \
moved; Ctrl-C stops looking, and never the migration of an engine."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["move", "database", "records", "backend", "copy"]
    }

    fn signature(&self) -> Signature {
        signature(self.name())
            .param(
                Flag::new("dry-run").short('n').desc("Only check, as `orchestrator storage validate` does"),
            )
            .param(Flag::new("no-wait").short('w').desc("Return as soon as the engine has begun"))
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "Move the records to another directory",
                example: "(orchestrator storage migrate --target-dir /srv/orchestrator).status",
                result: Some(Value::test_string("completed")),
            },
            Example {
                description: "Begin, and look later",
                example: "orchestrator storage migrate --target-dir /srv/orchestrator --no-wait",
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
        let session = Session::open(plugin, engine, call)?.without_start();
        let place = session.place(call.head);
        let to = target(engine, call)?;
        if call.has_flag("dry-run")? {
            return Ok(PipelineData::value(validate(&session, call, to)?, None));
        }
        let migration = match session.ask(StartMigration { to: to.clone() }) {
            Ok(migration) if call.has_flag("no-wait")? => *migration,
            Ok(migration) => follow(&session, engine, call, *migration)?,
            Err(failure) if failure.is_not_running() => {
                storage_offline::run(&session, words("migrate", &to), place)?
            }
            Err(failure) => return Err(failure.at_field(place, |field| flag(call, field))),
        };
        Ok(PipelineData::value(storage::migration(&migration, call.head), None))
    }
}

/// Looks at a migration until it has ended.
fn follow(
    session: &Session,
    engine: &EngineInterface,
    call: &EvaluatedCall,
    mut migration: Migration,
) -> Result<Migration, LabeledError> {
    let place = session.place(call.head);
    let mut line = Line::for_command(engine);
    while migration.status == MigrationStatus::Running {
        line.draw(|_| {
            let Migration { phase, records_done, records_total, .. } = &migration;
            format!("{} {records_done} of {records_total} records", phase.replace('_', " "))
        });
        if session.interrupted() {
            break;
        }
        thread::sleep(LOOK);
        migration = *session.ask(GetMigration { id: migration.id }).map_err(|failure| failure.at(place))?;
    }
    line.wipe();
    match migration.status {
        MigrationStatus::Failed | MigrationStatus::Cancelled => {
            let why = migration.error.unwrap_or_else(|| "it was cancelled".into());
            Err(error("not_migrated", "The records have not moved", why, place).with_help(
                "they are where they were, and nothing was lost; the next migration to the same target goes on with \
                 what is there",
            ))
        }
        _ => Ok(migration),
    }
}

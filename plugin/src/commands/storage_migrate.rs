//! `orchestrator storage validate` and `orchestrator storage migrate`

use std::ffi::OsString;
use std::thread;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, Flag, LabeledError, PipelineData, Signature, Type, Value};
use orchestrator_protocol::storage::{
    GetMigration, Migration, MigrationStatus, StartMigration, ValidateMigration,
};

use super::storage_target::{flag_of, target, with_target};
use super::{SignatureExt, storage_offline, storage_target};
use crate::connection::{LOOK, Session};
use crate::errors::error;
use crate::plugin::Orchestrator;
use crate::progress::Line;
use crate::values::storage;

fn signature(name: &str) -> Signature {
    with_target(Signature::build(name).for_engine(), "filesystem")
        .input_output_type(Type::Nothing, Type::record())
}

/// What the engine's program is asked when no engine runs.
fn words(
    command: &str,
    engine: &EngineInterface,
    call: &EvaluatedCall,
) -> Result<Vec<OsString>, LabeledError> {
    let mut words: Vec<OsString> = vec![command.into()];
    if !call.has_flag("to")? {
        words.extend(["--to".into(), "filesystem".into()]);
    }
    words.extend(storage_target::words(engine, call)?);
    Ok(words)
}

fn validate(
    session: &Session,
    engine: &EngineInterface,
    call: &EvaluatedCall,
) -> Result<Value, LabeledError> {
    let place = session.place(call.head);
    let validation = match session.ask(ValidateMigration { to: target(engine, call)? }) {
        Ok(validation) => *validation,
        Err(failure) if failure.is_not_running() => {
            storage_offline::run(session, engine, words("validate", engine, call)?, place)?
        }
        Err(failure) => return Err(failure.at_field(place, |field| flag_of(call, field))),
    };
    Ok(storage::validation(&validation, call.head))
}

/// Looks whether the records could be moved.
pub struct StorageValidate;

impl PluginCommand for StorageValidate {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator storage validate"
    }

    fn description(&self) -> &str {
        "Check whether the records could be moved; none is changed."
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
        let value = validate(&session, engine, call)?;
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
                description: "Move them to a SurrealDB server",
                example: "orchestrator storage migrate --to surrealdb-server --target-url ws://127.0.0.1:8000",
                result: None,
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
        if call.has_flag("dry-run")? {
            return Ok(PipelineData::value(validate(&session, engine, call)?, None));
        }
        let migration = match session.ask(StartMigration { to: target(engine, call)? }) {
            Ok(migration) if call.has_flag("no-wait")? => *migration,
            Ok(migration) => follow(&session, engine, call, *migration)?,
            Err(failure) if failure.is_not_running() => {
                storage_offline::run(&session, engine, words("migrate", engine, call)?, place)?
            }
            Err(failure) => return Err(failure.at_field(place, |field| flag_of(call, field))),
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

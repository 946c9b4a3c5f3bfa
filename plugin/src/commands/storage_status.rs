//! `orchestrator storage status` and `orchestrator storage migrations`

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, Flag, LabeledError, PipelineData, Signature, SyntaxShape, Type, Value};
use orchestrator_protocol::storage::{
    CancelMigration, GetMigration, GetStorage, ListMigrations, MigrationId,
};

use super::{SignatureExt, storage_offline};
use crate::connection::Session;
use crate::errors::invalid;
use crate::plugin::Orchestrator;
use crate::values::storage;

/// Shows where the records are.
pub struct StorageStatus;

impl PluginCommand for StorageStatus {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator storage status"
    }

    fn description(&self) -> &str {
        "Show where the records are and how many there are."
    }

    fn extra_description(&self) -> &str {
        "Asks the engine, or looks itself when none runs. `state` is active, sealed (the records have moved to \
`other`), migrating or ready (the unfinished target of a migration from `other`)."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["database", "records", "backend", "disk"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name()).for_engine().input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![Example {
            description: "How many tasks are stored?",
            example: "(orchestrator storage status).records.task",
            result: Some(Value::test_int(3)),
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
        let place = session.place(call.head);
        let report = match session.ask(GetStorage {}) {
            Ok(report) => *report,
            Err(failure) if failure.is_not_running() => {
                storage_offline::run(&session, engine, ["status".into()], place)?
            }
            Err(failure) => return Err(failure.at(place)),
        };
        Ok(PipelineData::value(storage::report(&report, call.head), None))
    }
}

/// Shows migrations, and calls them off.
pub struct StorageMigrations;

impl PluginCommand for StorageMigrations {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator storage migrations"
    }

    fn description(&self) -> &str {
        "Show the migrations of a running engine, or one of them."
    }

    fn extra_description(&self) -> &str {
        "The newest hundred, newest first; what is known of them moves along with the records. `status` is running, \
completed, failed or cancelled. With --cancel the one that is named is called off, unless it has come to its moment \
of change."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["progress", "cancel", "move", "records"]
    }

    fn signature(&self) -> Signature {
        Signature::build(self.name())
            .for_engine()
            .optional("id", SyntaxShape::String, "Id of a migration")
            .param(Flag::new("cancel").short('c').desc("Call it off"))
            .input_output_type(Type::Nothing, Type::one_of([Type::record(), Type::table()]))
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                description: "How did the last one end?",
                example: "(orchestrator storage migrations).0.status",
                result: Some(Value::test_string("completed")),
            },
            Example {
                description: "Call one off",
                example: "orchestrator storage migrations 01890a5d-ac96-774b-bcce-b302099a8057 --cancel",
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
        let cancels = call.has_flag("cancel")?;
        let id = match call.positional.first() {
            None if cancels => {
                return Err(invalid("Which migration is to be called off?", "needs an id", call.head)
                    .with_help("`orchestrator storage migrations` shows the ids"));
            }
            None => None,
            Some(value) => Some(value.coerce_str()?.parse::<MigrationId>().map_err(|error| {
                invalid(error.to_string(), "not an id", value.span())
                    .with_help("`orchestrator storage migrations` shows the ids")
            })?),
        };
        let session = Session::open(plugin, engine, call)?.without_start();
        let place = session.place(call.head);
        let value = match id {
            None => {
                let all = session.ask(ListMigrations {}).map_err(|failure| failure.at(place))?;
                Value::list(all.iter().map(|one| storage::migration(one, call.head)).collect(), call.head)
            }
            Some(id) => {
                let found = match cancels {
                    true => session.ask(CancelMigration { id }),
                    false => session.ask(GetMigration { id }),
                };
                storage::migration(&*found.map_err(|failure| failure.at(place))?, call.head)
            }
        };
        Ok(PipelineData::value(value, None))
    }
}

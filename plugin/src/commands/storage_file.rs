//! `orchestrator storage export` and `orchestrator storage import`

use std::ffi::OsString;
use std::path::Path;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, SyntaxShape, Type};

use super::{SignatureExt, storage_offline, storage_target};
use crate::connection::Session;
use crate::errors::error;
use crate::input::absolute;
use crate::plugin::Orchestrator;
use crate::values::storage;

fn signature(name: &str, file: &str) -> Signature {
    Signature::build(name)
        .for_engine()
        .required("file", SyntaxShape::Filepath, file)
        .input_output_type(Type::Nothing, Type::record())
}

/// Lets the engine's program do it, when no engine runs.
fn run(
    plugin: &Orchestrator,
    engine: &EngineInterface,
    call: &EvaluatedCall,
    command: &str,
) -> Result<PipelineData, LabeledError> {
    let session = Session::open(plugin, engine, call)?.without_start();
    let cwd = engine.get_current_dir()?;
    let path = |text: &str| absolute(Path::new(&cwd), text).into_os_string();
    let file = call.req::<String>(0)?;
    let mut words: Vec<OsString> = vec![command.into(), path(&file)];
    if command == "import" {
        words.extend(storage_target::words(engine, call)?);
    } else if session.is_alive() {
        let label = "an engine works on these records";
        return Err(error("engine_running", "The records are in use", label, session.place(call.head))
            .with_help("stop it with `orchestrator stop`; whatever runs goes on"));
    }
    let exported = storage_offline::run(&session, engine, words, session.place(call.head))?;
    Ok(PipelineData::value(storage::exported(&exported, call.head), None))
}

/// Writes the records to a file.
pub struct StorageExport;

impl PluginCommand for StorageExport {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator storage export"
    }

    fn description(&self) -> &str {
        "Write all records of a stopped engine into a portable file."
    }

    fn extra_description(&self) -> &str {
        "The file is JSON lines with checksums; any release and any storage can read it."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["backup", "dump", "save", "records"]
    }

    fn signature(&self) -> Signature {
        signature(self.name(), "The file to write; it must not exist")
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![Example {
            description: "Keep a copy of all records",
            example: "orchestrator stop; orchestrator storage export records.jsonl",
            result: None,
        }]
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        run(plugin, engine, call, "export")
    }
}

/// Reads the records from a file.
pub struct StorageImport;

impl PluginCommand for StorageImport {
    type Plugin = Orchestrator;

    fn name(&self) -> &str {
        "orchestrator storage import"
    }

    fn description(&self) -> &str {
        "Read all records from a portable file into an empty storage."
    }

    fn extra_description(&self) -> &str {
        "The whole file is checked first: a line that is damaged or missing is named, and nothing is imported."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["restore", "load", "backup", "records"]
    }

    fn signature(&self) -> Signature {
        storage_target::with_target(signature(self.name(), "The file to read"), "as configured")
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![Example {
            description: "Bring records to a data directory of their own",
            example: "orchestrator storage import records.jsonl --data-dir ./restored",
            result: None,
        }]
    }

    fn run(
        &self,
        plugin: &Orchestrator,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        run(plugin, engine, call, "import")
    }
}

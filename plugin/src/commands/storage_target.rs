//! The flags that say where records are to go.

use std::ffi::OsString;
use std::path::Path;

use nu_plugin::{EngineInterface, EvaluatedCall};
use nu_protocol::{Completion, Flag, LabeledError, Signature, Span, SyntaxShape};
use orchestrator_protocol::storage::StorageTarget;

use crate::connection::storage_options::STORAGE_TYPES;
use crate::input::absolute;

/// The flags, their shapes, and the fields of the question that they fill.
const FLAGS: &[(&str, SyntaxShape, &str, &str)] = &[
    ("to", SyntaxShape::String, "The storage that the records go to", "storage_type"),
    ("target-dir", SyntaxShape::Directory, "Its directory (default: the data directory)", "dir"),
    ("target-url", SyntaxShape::String, "Its server (default: as configured)", "url"),
    ("target-namespace", SyntaxShape::String, "The namespace there (default: as configured)", "namespace"),
    ("target-database", SyntaxShape::String, "The database in it (default: as configured)", "database"),
    ("target-username", SyntaxShape::String, "The user there (default: as configured)", "username"),
    ("target-password-file", SyntaxShape::Filepath, "The file with the user's password", "password_file"),
];

/// A signature with the flags, and what kind of storage it is where none is named.
pub fn with_target(mut signature: Signature, default: &str) -> Signature {
    for (name, shape, meaning, _) in FLAGS {
        let mut flag = Flag::new(*name).arg(shape.clone()).desc(*meaning);
        flag = match *name {
            "to" => flag
                .short('t')
                .desc(format!("{meaning} (default: {default})"))
                .completion(Completion::new_list(STORAGE_TYPES)),
            "target-dir" => flag.short('d'),
            _ => flag,
        };
        signature = signature.param(flag);
    }
    signature
}

/// What a flag says; a path as an absolute one.
fn given(
    engine: &EngineInterface,
    call: &EvaluatedCall,
    (name, shape, ..): &(&str, SyntaxShape, &str, &str),
) -> Result<Option<String>, LabeledError> {
    let Some(text) = call.get_flag::<String>(name)? else { return Ok(None) };
    if !matches!(shape, SyntaxShape::Directory | SyntaxShape::Filepath) {
        return Ok(Some(text));
    }
    let cwd = engine.get_current_dir()?;
    Ok(Some(absolute(Path::new(&cwd), &text).to_string_lossy().into_owned()))
}

/// Where the call says that the records are to go.
pub fn target(engine: &EngineInterface, call: &EvaluatedCall) -> Result<StorageTarget, LabeledError> {
    let mut target = StorageTarget::default();
    for flag in FLAGS {
        let Some(value) = given(engine, call, flag)? else { continue };
        match flag.3 {
            "storage_type" => target.storage_type = value,
            "dir" => target.dir = Some(value),
            "url" => target.url = Some(value),
            "namespace" => target.namespace = Some(value),
            "database" => target.database = Some(value),
            "username" => target.username = Some(value),
            _ => target.password_file = Some(value),
        }
    }
    if target.storage_type.is_empty() {
        let StorageTarget { url, namespace, database, username, password_file, .. } = &target;
        let is_server = [url, namespace, database, username, password_file].iter().any(|said| said.is_some());
        target.storage_type = if is_server { "surrealdb-server" } else { "filesystem" }.into();
    }
    Ok(target)
}

/// The same for the engine's program: those flags that were given.
pub fn words(engine: &EngineInterface, call: &EvaluatedCall) -> Result<Vec<OsString>, LabeledError> {
    let mut words = Vec::new();
    for flag in FLAGS {
        if let Some(value) = given(engine, call, flag)? {
            words.extend([format!("--{}", flag.0).into(), value.into()]);
        }
    }
    Ok(words)
}

/// The place in the call that a field of the question came from.
pub fn flag_of(call: &EvaluatedCall, field: &str) -> Option<Span> {
    let (name, ..) = FLAGS.iter().find(|(.., own)| *own == field)?;
    call.get_flag_value(name).map(|value| value.span())
}

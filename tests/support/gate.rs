//! Scripts that tell that they have begun, and go on until the test lets them.

use std::collections::BTreeMap;
use std::fs;

use orchestrator_protocol::submit::NewTask;
use orchestrator_protocol::task::RetryPolicy;

use crate::engine::TestEngine;

/// A policy without retries.
pub fn no_retry() -> Option<RetryPolicy> {
    Some(RetryPolicy { max_retries: 0, ..RetryPolicy::default() })
}

/// A script that goes on until the test makes a file, and tells that it has begun.
pub const GATED: &str = r#": > "$1begun.$NAME"; while [ ! -e open ]; do sleep 0.01; done"#;

/// A task that runs a gated script; `name` tells it apart from others.
pub fn gated(engine: &TestEngine, script: &str, name: &str) -> NewTask {
    let env = BTreeMap::from([("NAME".to_owned(), name.to_owned())]);
    NewTask { name: Some(name.into()), env, ..engine.run(script) }
}

/// Lets all gated scripts go on.
pub fn open_gate(engine: &TestEngine) {
    fs::write(engine.directory().join("open"), "").unwrap();
}

/// Whether a gated script has begun.
pub fn has_begun(engine: &TestEngine, name: &str) -> bool {
    engine.directory().join(format!("begun.{name}")).exists()
}

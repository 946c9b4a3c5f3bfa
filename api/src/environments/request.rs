//! The body that asks for an environment. The user's directory, which the protocol has, is no part of it:
//! whoever asks over HTTP has none that the engine could know.

use orchestrator_protocol::environment as protocol;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::config::{self, Config};
use super::run::RunOptions;
use super::same::{Same, yes};
use crate::envelope::ApiError;
use crate::words;

/// An environment to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EnvironmentRequest)]
pub struct EnvironmentBody {
    /// What to build.
    #[schema(value_type = Config)]
    config: Map<String, Value>,
    /// For which infra; also the fairness group. `test` where it is left out.
    infra: Option<String>,
    /// Run the tests as soon as it is ready.
    #[serde(default)]
    auto_start: bool,
    /// Remove it when the tests have passed.
    #[serde(default)]
    auto_cleanup: bool,
    /// With auto_cleanup: keep what has failed, for a look. True where it is left out.
    #[serde(default = "yes")]
    keep_on_failure: bool,
    /// What the run does, with auto_start.
    #[serde(default)]
    run: RunOptions,
    /// What is done about disk_mb. `enforce` where it is left out.
    #[serde(default)]
    #[schema(value_type = words::DiskPolicy)]
    disk_policy: protocol::DiskPolicy,
    /// Whether images with the taskservs installed are used and kept. True where it is left out.
    #[serde(default = "yes")]
    use_prepared: bool,
    /// Fetch images that the machine does not have.
    #[serde(default)]
    pull: bool,
    /// It is removed so long after it was made, in milliseconds. A day where it is left out.
    expires_after_ms: Option<u64>,
    /// Higher comes first.
    #[serde(default)]
    priority: i32,
    /// The same key and the same request again return what the first one made.
    pub(crate) idempotency_key: Option<String>,
    /// Answer when its workflow has ended.
    #[serde(default)]
    pub(crate) wait: bool,
}

impl EnvironmentBody {
    /// # Errors
    /// When its config means nothing.
    pub(super) fn into_request(self) -> Result<protocol::EnvironmentRequest, ApiError> {
        Ok(protocol::EnvironmentRequest {
            config: config::read(self.config)?,
            infra: self.infra,
            auto_start: self.auto_start,
            auto_cleanup: self.auto_cleanup,
            keep_on_failure: self.keep_on_failure,
            run: self.run.same(),
            disk_policy: self.disk_policy,
            use_prepared: self.use_prepared,
            pull: self.pull,
            expires_after_ms: self.expires_after_ms,
            cwd: None,
            priority: self.priority,
            idempotency_key: self.idempotency_key,
        })
    }
}

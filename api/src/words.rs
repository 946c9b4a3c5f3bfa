//! The protocol's own words in the OpenAPI document.
//!
//! The protocol knows nothing of OpenAPI. So each of its words that a client sees is described here,
//! made from the word itself: a state that is added there and forgotten here does not compile.

use orchestrator_protocol::environment as test;
use orchestrator_protocol::event::OutputStream as ProtocolStream;
use orchestrator_protocol::provision::Operation as ProtocolOperation;
use orchestrator_protocol::request as protocol;
use orchestrator_protocol::storage;
use orchestrator_protocol::task as work;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident of $foreign:path: $($variant:ident),+ $(,)?) => {
        $(#[doc = $doc])*
        pub enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                use $foreign as Word;
                const _: fn(Word) = |word| match word { $(Word::$variant)|+ => {} };
                let words = [$(Word::$variant),+].into_iter().filter_map(|word| serde_json::to_value(word).ok());
                described([$($doc),*].concat()).enum_values(Some(words)).into()
            }
        }

        impl ToSchema for $name {}
    };
}

/// A text with a description.
fn described(description: String) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description.trim().to_owned()))
}

macro_rules! identifier {
    (#[doc = $doc:literal] $name:ident) => {
        #[doc = $doc]
        pub enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                described($doc.into()).format(Some(SchemaFormat::Custom("uuid".to_owned()))).into()
            }
        }

        impl ToSchema for $name {}
    };
}

identifier! {
    /// The identifier of a task or a workflow: a UUID that sorts by the time of submission.
    TaskId
}
identifier! {
    /// The identifier of a test environment: a UUID that sorts by the time of the request.
    EnvironmentId
}

words! {
    /// The state of a task, or of a workflow as the sum of its tasks.
    TaskStatus of work::TaskStatus: Pending, Running, Completed, Failed, Cancelled
}
words! {
    /// What a task consists of: a program, a step of the engine's own, or other tasks.
    TaskKind of work::TaskKind: Command, Action, Workflow
}
words! {
    /// How an attempt ended.
    AttemptOutcome of work::AttemptOutcome:
        Succeeded, Failed, TimedOut, Cancelled, Lost, NotStarted, Unknown
}
identifier! {
    /// The identifier of a migration: a UUID that sorts by the time it was started.
    MigrationId
}
words! {
    /// How far a migration is: it is under way; the records have moved; they have not, and `error` says
    /// why; somebody called it off.
    MigrationStatus of storage::MigrationStatus: Running, Completed, Failed, Cancelled, Unknown
}
words! {
    /// What becomes of a running task whose engine is lost: its script is ended and another engine begins the
    /// next attempt; or it waits for its engine, and its script goes on.
    OnEngineLoss of work::OnEngineLoss: Retry, Hold
}
words! {
    /// Whether the engine takes new work: yes; no, it finishes what runs; no, it is about to stop.
    EngineMode of protocol::EngineMode: Active, Draining, Stopping
}
words! {
    /// How the engine stops: it finishes what runs; it stops at once and leaves scripts running for the
    /// next engine; it cancels what runs.
    StopMode of protocol::StopMode: Drain, Now, Cancel
}
words! {
    /// How an engine of the store is: it has its seat and renews its lease; it has not renewed it in time, and
    /// others take over its work; it was stopped, with nothing running.
    MemberState of protocol::MemberState: Alive, Lost, Left, Unknown
}
words! {
    /// How a thing that was checked is: as it should be; it works, but something will not; it does not
    /// work.
    CheckState of protocol::CheckState: Ok, Warning, Failed
}
words! {
    /// What kind of thing keeps a task from running, or that it runs, or that it has ended.
    ReasonKind of protocol::ReasonKind:
        Dependency, Lock, GroupLimit, NotBefore, Backoff, Paused, Draining, Busy, Turn, Storage, Engine,
        Running, Ended, Unknown
}
words! {
    /// Which of its two outputs a program wrote to.
    OutputStream of ProtocolStream: Stdout, Stderr
}
words! {
    /// What is to be done: bring it up; look whether it works and change nothing; remove it.
    Operation of ProtocolOperation: Create, Verify, Delete
}
words! {
    /// How far a test environment is: its nodes are being made; all are up; its tests run; all have
    /// passed; one has failed; it is being removed; nothing of it is left; it could not be made, run or
    /// removed.
    EnvironmentStatus of test::EnvironmentStatus:
        Creating, Ready, RunningTests, Passed, Failed, Cleaning, Cleaned, Error
}
words! {
    /// What is done about the limit of a node's disk: the storage driver enforces it, or the request is
    /// refused; the engine looks at intervals, and stops a node that is over it.
    DiskPolicy of test::DiskPolicy: Enforce, Watch
}

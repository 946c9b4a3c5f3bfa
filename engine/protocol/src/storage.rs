//! Where the records are, and moving them elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::request::Check;

/// The identifier of a migration: a UUID v7, so that newer ones sort after older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MigrationId(pub Uuid);

impl MigrationId {
    /// A new one.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for MigrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MigrationId {
    type Err = InvalidMigrationId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text.trim()).map(Self).map_err(|_| InvalidMigrationId { text: text.to_owned() })
    }
}

/// A text that is no migration's identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a migration id: it should look like 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct InvalidMigrationId {
    /// The text.
    pub text: String,
}

/// Where records are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoragePlace {
    /// The backend: `filesystem`, `surrealdb-embedded`, `surrealdb-server`.
    pub backend: String,
    /// The directory that holds it, or the address of the server.
    pub location: String,
}

/// Where records are to go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StorageTarget {
    /// The backend, by its name.
    pub storage_type: String,
    /// Its directory; the engine's own for that backend where it is left out.
    #[serde(default)]
    pub dir: Option<String>,
    /// The address of its server; the configured one where it is left out.
    #[serde(default)]
    pub url: Option<String>,
    /// The namespace there; the configured one where it is left out.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The database in it; the configured one where it is left out.
    #[serde(default)]
    pub database: Option<String>,
    /// The user there. Where it is left out the configured one, at the configured server, and else none.
    #[serde(default)]
    pub username: Option<String>,
    /// The file with the user's password.
    #[serde(default)]
    pub password_file: Option<String>,
}

/// Asks how the storage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GetStorage {}

/// How the storage is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageReport {
    /// Where it is.
    pub place: StoragePlace,
    /// What it is: `active`, `migrating` or `ready` (an unfinished target), `sealed` (left behind).
    pub state: String,
    /// How often the records have moved.
    pub epoch: u64,
    /// Where the records come from, of an unfinished target, or have gone, of a sealed storage.
    pub other: Option<StoragePlace>,
    /// Whether it accepts writes.
    pub writable: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Free space in bytes.
    pub free_bytes: Option<u64>,
    /// How many records each table holds.
    pub tables: BTreeMap<String, u64>,
}

/// Asks whether the records could be moved. Nothing is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidateMigration {
    /// Where.
    pub to: StorageTarget,
}

/// Whether the records could be moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validation {
    /// Where they are.
    pub from: StoragePlace,
    /// Where they would be.
    pub to: StoragePlace,
    /// Whether nothing stands against it.
    pub is_possible: bool,
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// Asks to move the records while the engine works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartMigration {
    /// Where.
    pub to: StorageTarget,
}

/// Asks for the migrations that are known, newest first: a hundred at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListMigrations {}

/// Asks for one migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetMigration {
    /// Which.
    pub id: MigrationId,
}

/// Asks to call a migration off. One that has come to its moment of change is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelMigration {
    /// Which.
    pub id: MigrationId,
}

/// How far a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationStatus {
    /// It is under way.
    Running,
    /// The records have moved.
    Completed,
    /// They have not, and `error` says why.
    Failed,
    /// Somebody called it off.
    Cancelled,
    /// A state of a newer release.
    #[serde(other)]
    Unknown,
}

impl MigrationStatus {
    /// The name, as sent and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }
}

/// A migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Migration {
    /// Its identifier.
    pub id: MigrationId,
    /// How far it is.
    pub status: MigrationStatus,
    /// What it does: `checking`, `copying`, `catching_up`, `verifying`, `switching`, `done`.
    pub phase: String,
    /// Where the records come from.
    pub from: StoragePlace,
    /// Where they go.
    pub to: StoragePlace,
    /// With how many records it has done that.
    pub records_done: u64,
    /// With about how many it will have.
    pub records_total: u64,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// What the records add up to, equal on both sides, when they have moved.
    pub checksum: Option<String>,
    /// How long commits have waited at the end, in microseconds.
    pub waited_us: Option<u64>,
    /// Why the records have not moved; they are where they were.
    pub error: Option<String>,
    /// What to do now that they have moved.
    pub advice: Option<String>,
}

/// What was written to a portable file or read from one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// The file.
    pub file: String,
    /// How many records.
    pub records: u64,
    /// What they add up to.
    pub checksum: String,
}

/// A SurrealDB server that was prepared for engines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initialised {
    /// The server's address, the namespace and the database.
    pub location: String,
    /// As whom engines sign in.
    pub username: String,
    /// The file with the user's password, where one was made.
    pub password_file: Option<String>,
}

//! Where the records are, `GET /storage`, and moving them elsewhere while the engine works.
//!
//! A migration that was started goes on by itself, whoever looks: the answer is 202 with the migration,
//! and `GET /storage/migrations/{id}` says how far it is. A target's directory must lie under one of the
//! directories that requests over HTTP may name.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use chrono::{DateTime, Utc};
use orchestrator_protocol::storage::{
    CancelMigration, GetMigration, GetStorage, ListMigrations, Migration, MigrationId, MigrationStatus,
    StartMigration, StoragePlace, StorageReport, StorageTarget, ValidateMigration, Validation,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{Sent, SentOrDefault};
use crate::engine::Nothing;
use crate::envelope::{ApiError, Envelope};
use crate::query::{Parameters, in_path};
use crate::state::AppState;
use crate::status::CheckView;
use crate::words;

/// The migration that a path names.
#[derive(Debug, Clone, Copy)]
pub struct Named(MigrationId);

impl FromRequestParts<AppState> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        in_path(parts, state).await.map(Self)
    }
}

/// Where records are.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoragePlace)]
pub struct PlaceView {
    /// The backend: `filesystem`, `surrealdb-embedded` or `surrealdb-server`.
    backend: String,
    /// The directory that holds it, or the address of the server.
    location: String,
}

impl From<StoragePlace> for PlaceView {
    fn from(StoragePlace { backend, location }: StoragePlace) -> Self {
        Self { backend, location }
    }
}

/// How the storage is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StorageReport)]
pub struct ReportView {
    place: PlaceView,
    /// What it is: `active` while the engine works on it.
    state: String,
    /// How often the records have moved.
    epoch: u64,
    /// The other end of a migration that has not finished.
    other: Option<PlaceView>,
    /// Whether it accepts writes.
    writable: bool,
    /// Why not.
    reason: Option<String>,
    /// Free space in bytes.
    free_bytes: Option<u64>,
    /// How many records each table holds.
    tables: BTreeMap<String, u64>,
}

/// Where the records are to go.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrationRequest {
    /// The backend: `filesystem`, `surrealdb-embedded` or `surrealdb-server`.
    storage_type: String,
    /// Its directory; the engine's own for that backend where it is left out.
    #[serde(default)]
    dir: Option<String>,
    /// The address of its server, such as `ws://127.0.0.1:8000`; the configured one where it is left out.
    #[serde(default)]
    url: Option<String>,
    /// The namespace there; the configured one where it is left out.
    #[serde(default)]
    namespace: Option<String>,
    /// The database in it; the configured one where it is left out.
    #[serde(default)]
    database: Option<String>,
    /// The user there. Where it is left out the configured one, at the configured server, and else none.
    #[serde(default)]
    username: Option<String>,
    /// The file with the user's password; it lies under one of the directories that requests may name.
    #[serde(default)]
    password_file: Option<String>,
}

impl From<MigrationRequest> for StorageTarget {
    fn from(asked: MigrationRequest) -> Self {
        let MigrationRequest { storage_type, dir, url, namespace, database, username, password_file } = asked;
        Self { storage_type, dir, url, namespace, database, username, password_file }
    }
}

/// Whether the records could be moved.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Validation)]
pub struct ValidationView {
    from: PlaceView,
    to: PlaceView,
    /// Whether nothing stands against it.
    is_possible: bool,
    /// What was looked at.
    checks: Vec<CheckView>,
}

/// A migration.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Migration)]
pub struct MigrationView {
    #[schema(value_type = words::MigrationId)]
    id: MigrationId,
    #[schema(value_type = words::MigrationStatus)]
    status: MigrationStatus,
    /// What it does: `checking`, `copying`, `catching_up`, `verifying`, `switching` or `done`.
    phase: String,
    from: PlaceView,
    to: PlaceView,
    /// With how many records it has done that.
    records_done: u64,
    /// With about how many it will have.
    records_total: u64,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    /// What the records add up to, equal on both sides, when they have moved.
    checksum: Option<String>,
    /// How long commits have waited at the end, in microseconds.
    waited_us: Option<u64>,
    /// Why the records have not moved; they are where they were.
    error: Option<String>,
    /// What to do now that they have moved.
    advice: Option<String>,
}

impl From<Migration> for MigrationView {
    fn from(migration: Migration) -> Self {
        let Migration {
            id,
            status,
            phase,
            from,
            to,
            records_done,
            records_total,
            started_at,
            ended_at,
            checksum,
            waited_us,
            error,
            advice,
        } = migration;
        Self {
            id,
            status,
            phase,
            from: from.into(),
            to: to.into(),
            records_done,
            records_total,
            started_at,
            ended_at,
            checksum,
            waited_us,
            error,
            advice,
        }
    }
}

/// How the storage is
#[utoipa::path(
    get, path = "/storage", operation_id = "getStorage", tag = "storage",
    responses((status = 200, description = "Where the records are, and how many.", body = Envelope<ReportView>)),
    extensions(("x-request" = json!("GetStorage"))),
)]
pub async fn report(State(state): State<AppState>, uri: Uri) -> Result<Envelope<ReportView>, ApiError> {
    Parameters::of(&uri).finish()?;
    let StorageReport { place, state: is, epoch, other, writable, reason, free_bytes, tables } =
        *state.ask(GetStorage {}).await?;
    let (place, other) = (place.into(), other.map(PlaceView::from));
    Ok(Envelope::new(ReportView { place, state: is, epoch, other, writable, reason, free_bytes, tables }))
}

/// Whether the records could be moved
///
/// Looks at both ends and changes nothing. 200 whatever it finds.
#[utoipa::path(
    post, path = "/storage/migrations/validate", operation_id = "validateMigration", tag = "storage",
    request_body = MigrationRequest,
    responses((status = 200, description = "What was found, and what to do.", body = Envelope<ValidationView>)),
    extensions(("x-request" = json!("ValidateMigration"))),
)]
pub async fn validate(
    State(state): State<AppState>,
    uri: Uri,
    Sent(request): Sent<MigrationRequest>,
) -> Result<Envelope<ValidationView>, ApiError> {
    Parameters::of(&uri).finish()?;
    let Validation { from, to, is_possible, checks } =
        *state.ask(ValidateMigration { to: request.into() }).await?;
    let checks = checks.into_iter().map(CheckView::from).collect();
    Ok(Envelope::new(ValidationView { from: from.into(), to: to.into(), is_possible, checks }))
}

/// Move the records while the engine works
///
/// They are copied, compared and, in one moment, moved. Until then anything that fails leaves them where
/// they are.
#[utoipa::path(
    post, path = "/storage/migrations", operation_id = "startMigration", tag = "storage",
    request_body = MigrationRequest,
    responses((status = 202, description = "The migration.", body = Envelope<MigrationView>)),
    extensions(("x-request" = json!("StartMigration"))),
)]
pub async fn start(
    State(state): State<AppState>,
    uri: Uri,
    Sent(request): Sent<MigrationRequest>,
) -> Result<(StatusCode, Envelope<MigrationView>), ApiError> {
    Parameters::of(&uri).finish()?;
    let migration = *state.change(StartMigration { to: request.into() }).await?;
    Ok((StatusCode::ACCEPTED, Envelope::new(migration.into())))
}

/// Migrations that are known, newest first
#[utoipa::path(
    get, path = "/storage/migrations", operation_id = "listMigrations", tag = "storage",
    responses((status = 200, description = "All of them.", body = Envelope<Vec<MigrationView>>)),
    extensions(("x-request" = json!("ListMigrations"))),
)]
pub async fn list(State(state): State<AppState>, uri: Uri) -> Result<Envelope<Vec<MigrationView>>, ApiError> {
    Parameters::of(&uri).finish()?;
    let all = state.ask(ListMigrations {}).await?;
    Ok(Envelope::new(all.into_iter().map(MigrationView::from).collect()))
}

/// One migration
#[utoipa::path(
    get, path = "/storage/migrations/{id}", operation_id = "getMigration", tag = "storage",
    params(("id" = inline(words::MigrationId), Path, description = "The migration.")),
    responses((status = 200, description = "How far it is, or how it ended.", body = Envelope<MigrationView>)),
    extensions(("x-request" = json!("GetMigration"))),
)]
pub async fn get(
    State(state): State<AppState>,
    Named(id): Named,
    uri: Uri,
) -> Result<Envelope<MigrationView>, ApiError> {
    Parameters::of(&uri).finish()?;
    Ok(Envelope::new((*state.ask(GetMigration { id }).await?).into()))
}

/// Call a migration off
///
/// One that has come to its moment of change is not: the answer says how it is.
#[utoipa::path(
    post, path = "/storage/migrations/{id}/cancel", operation_id = "cancelMigration", tag = "storage",
    params(("id" = inline(words::MigrationId), Path, description = "The migration.")),
    request_body = Option<Nothing>,
    responses((status = 200, description = "The migration.", body = Envelope<MigrationView>)),
    extensions(("x-request" = json!("CancelMigration"))),
)]
pub async fn cancel(
    State(state): State<AppState>,
    Named(id): Named,
    uri: Uri,
    SentOrDefault(Nothing {}): SentOrDefault<Nothing>,
) -> Result<Envelope<MigrationView>, ApiError> {
    Parameters::of(&uri).finish()?;
    Ok(Envelope::new((*state.change(CancelMigration { id }).await?).into()))
}

//! `orchestrator storage …`: the storage of a stopped engine.
//!
//! Each command opens what it needs, does one thing and closes it again. While an engine works on a storage
//! these commands refuse, and say what to do instead: nobody else can open that of one engine, and on a server
//! the engines have seats, which are looked at for as long as a lease lasts. With `--json` the answer is one JSON
//! object of the protocol, for programs; the plugin is one.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use chrono::Utc;
use clap::{Args, Subcommand};
use orchestrator_protocol::request::CheckState;
use orchestrator_protocol::storage::{
    Exported, Initialised, Migration, MigrationId, MigrationStatus, StorageReport, Validation,
};
use orchestrator_storage::migration::live::SwitchingStore;
use orchestrator_storage::migration::state::{StorageState, read_state};
use orchestrator_storage::migration::{
    MigrationError, Plan, Progress, Steering, migrate, portable, settle_target,
};
use orchestrator_storage::{Store, StoreError};
use serde::Serialize;
use tokio::sync::watch;

use super::init::{self, InitArguments};
use super::open::open_store;
use super::{advised, afterwards, alone, in_one_line, kind, open_existing, place, report, shown, validate};
use crate::config::database::read_password;
use crate::config::{Arguments, Config, StorageArguments, StorageType, SurrealdbSettings};
use crate::engine::owner_of;
use crate::membership::LeaseTimes;

/// Look at the storage of a stopped engine, and move its records
#[derive(Debug, Subcommand)]
pub enum StorageCommand {
    /// Show where the records are and how many there are
    Status(StatusArguments),
    /// Check whether records could be moved; none is changed
    Validate(MoveArguments),
    /// Move the records to another storage: copy, compare, and seal the one they come from
    Migrate(MigrateArguments),
    /// Write all records into a portable file
    Export(ExportArguments),
    /// Read all records from a portable file into an empty storage
    Import(ImportArguments),
    /// Prepare a SurrealDB server: namespace, database, tables, and the user as whom engines sign in
    Init(InitArguments),
}

/// Which engine's storage it is about.
#[derive(Debug, Args)]
pub struct Common {
    /// The engine's data directory [default: ./data]
    #[arg(long, env = "ORCHESTRATOR_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The engine's TOML file with settings
    #[arg(long, env = "ORCHESTRATOR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    storage: StorageArguments,

    /// Answer with a JSON object
    #[arg(long)]
    json: bool,
}

/// The storage that records are read from.
#[derive(Debug, Args)]
pub struct Source {
    /// What kind of storage the records are in [default: surrealdb-server where something is said of a server,
    /// else as configured]
    #[arg(long = "from", value_enum, value_name = "TYPE")]
    from: Option<StorageType>,

    /// The directory of that storage [default: as configured]
    #[arg(long, value_name = "DIR")]
    source_dir: Option<PathBuf>,

    /// Its server [default: as configured]
    #[arg(long, value_name = "URL")]
    source_url: Option<String>,

    /// The namespace there [default: as configured]
    #[arg(long, value_name = "NAME")]
    source_namespace: Option<String>,

    /// The database in it [default: as configured]
    #[arg(long, value_name = "NAME")]
    source_database: Option<String>,

    /// The user there [default: as configured]
    #[arg(long, value_name = "NAME", requires = "source_password_file")]
    source_username: Option<String>,

    /// The file with the user's password
    #[arg(long, value_name = "FILE", requires = "source_username")]
    source_password_file: Option<PathBuf>,
}

/// The storage that records go to.
#[derive(Debug, Args)]
pub struct Target {
    /// What kind of storage they go to [default: surrealdb-server where something is said of a server, else
    /// filesystem; of an import: as configured]
    #[arg(long = "to", value_enum, value_name = "TYPE")]
    to: Option<StorageType>,

    /// The directory of that storage [default: the data directory]
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,

    /// Its server [default: as configured]
    #[arg(long, value_name = "URL")]
    target_url: Option<String>,

    /// The namespace there [default: as configured]
    #[arg(long, value_name = "NAME")]
    target_namespace: Option<String>,

    /// The database in it [default: as configured]
    #[arg(long, value_name = "NAME")]
    target_database: Option<String>,

    /// The user there [default: as configured]
    #[arg(long, value_name = "NAME", requires = "target_password_file")]
    target_username: Option<String>,

    /// The file with the user's password
    #[arg(long, value_name = "FILE", requires = "target_username")]
    target_password_file: Option<PathBuf>,
}

/// `storage status`
#[derive(Debug, Args)]
pub struct StatusArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    source: Source,
}

/// `storage validate`
#[derive(Debug, Args)]
pub struct MoveArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    target: Target,
}

/// `storage migrate`
#[derive(Debug, Args)]
pub struct MigrateArguments {
    #[command(flatten)]
    of: MoveArguments,
    /// Only check, as `validate` does
    #[arg(long)]
    dry_run: bool,
}

/// `storage export`
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// The file to write; it must not exist
    file: PathBuf,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    source: Source,
}

/// `storage import`
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// The file to read
    file: PathBuf,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    target: Target,
}

impl Common {
    fn load(&self) -> anyhow::Result<Config> {
        let (data_dir, config) = (self.data_dir.clone(), self.config.clone());
        let storage = self.storage.clone();
        Ok(Config::load(Arguments { data_dir, config, storage, no_http: true, ..Arguments::default() })?)
    }
}

impl Source {
    fn of(&self, configured: &Config) -> anyhow::Result<Config> {
        let end = End {
            named: self.from,
            default: configured.storage_type,
            dir: self.source_dir.as_ref(),
            url: self.source_url.as_ref(),
            namespace: self.source_namespace.as_ref(),
            database: self.source_database.as_ref(),
            username: self.source_username.as_ref(),
            password_file: self.source_password_file.as_ref(),
        };
        end.of(configured, &configured.storage_dir)
    }
}

impl Target {
    /// Where records move to.
    fn of_move(&self, configured: &Config) -> anyhow::Result<Config> {
        self.of(configured, StorageType::Filesystem)
    }

    fn of(&self, configured: &Config, default: StorageType) -> anyhow::Result<Config> {
        let end = End {
            named: self.to,
            default,
            dir: self.target_dir.as_ref(),
            url: self.target_url.as_ref(),
            namespace: self.target_namespace.as_ref(),
            database: self.target_database.as_ref(),
            username: self.target_username.as_ref(),
            password_file: self.target_password_file.as_ref(),
        };
        end.of(configured, &configured.data_dir)
    }
}

/// What is said of one end of a migration.
struct End<'a> {
    named: Option<StorageType>,
    default: StorageType,
    dir: Option<&'a PathBuf>,
    url: Option<&'a String>,
    namespace: Option<&'a String>,
    database: Option<&'a String>,
    username: Option<&'a String>,
    password_file: Option<&'a PathBuf>,
}

impl End<'_> {
    /// The configuration with the storage at that end.
    fn of(&self, configured: &Config, default_dir: &std::path::Path) -> anyhow::Result<Config> {
        let storage_dir = match self.dir {
            Some(dir) => {
                std::path::absolute(dir).with_context(|| format!("'{}' is no path", dir.display()))?
            }
            None => default_dir.to_owned(),
        };
        let has_server = self.url.is_some()
            || self.namespace.is_some()
            || self.database.is_some()
            || self.username.is_some();
        let storage_type = kind(self.named, self.default, self.dir.is_some(), has_server)?;
        let SurrealdbSettings { namespace, database, .. } = configured.surrealdb.clone();
        let password = self.password_file.map(|file| read_password(file)).transpose()?;
        let user = self.username.map(|username| (username.clone(), password));
        let surrealdb = SurrealdbSettings {
            namespace: self.namespace.cloned().unwrap_or(namespace),
            database: self.database.cloned().unwrap_or(database),
            ..configured.surrealdb.on(self.url.map(String::as_str), user)
        };
        Ok(Config { storage_type, storage_dir, surrealdb, ..configured.clone() })
    }
}

/// Opens a storage that must be there.
async fn open(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    explained(open_existing(config).await)
}

/// The same, or makes an empty one.
async fn open_or_make(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    explained(open_store(config).await)
}

fn explained(opened: anyhow::Result<Arc<dyn Store>>) -> anyhow::Result<Arc<dyn Store>> {
    opened.map_err(|error| {
        let is_in_use = error.downcast_ref().is_some_and(|error| matches!(error, StoreError::InUse { .. }));
        match is_in_use {
            true => error.context(
                "an engine works on this storage: stop it with `orchestrator stop`, or ask it with the commands in \
                 Nushell, which move the records while it works",
            ),
            false => error,
        }
    })
}

/// Does what a command says.
///
/// # Errors
/// What went wrong, for the terminal. `validate` fails when the records could not be moved.
pub async fn run(command: StorageCommand) -> anyhow::Result<()> {
    match command {
        StorageCommand::Status(StatusArguments { common, source }) => {
            let config = source.of(&common.load()?)?;
            let store = open(&config).await?;
            let found = report(&*store, &place(&config)).await;
            store.close().await?;
            answer(common.json, &found?, print_report)
        }
        StorageCommand::Validate(MoveArguments { common, source, target }) => {
            let configured = common.load()?;
            check(&source.of(&configured)?, &target.of_move(&configured)?, common.json).await
        }
        StorageCommand::Migrate(MigrateArguments { of, dry_run }) => {
            let configured = of.common.load()?;
            let (source, target) = (of.source.of(&configured)?, of.target.of_move(&configured)?);
            match dry_run {
                true => check(&source, &target, of.common.json).await,
                false => answer(of.common.json, &move_records(&source, &target).await?, print_migration),
            }
        }
        StorageCommand::Export(ExportArguments { file, common, source }) => {
            let config = source.of(&common.load()?)?;
            let store = open(&config).await?;
            let moved = async {
                alone_on(&config, &*store).await?;
                let export =
                    async |steering: Arc<Steering>| portable::export(&*store, &file, &steering).await;
                Ok::<_, anyhow::Error>(followed("exporting", export).await?)
            };
            let moved = moved.await;
            store.close().await?;
            answer(common.json, &exported(&file, moved?), |of| print_exported("written to", of))
        }
        StorageCommand::Import(ImportArguments { file, common, target }) => {
            let file = std::path::absolute(&file)?;
            // Before the target is made.
            portable::check(&file)?;
            let configured = common.load()?;
            let store = open_or_make(&target.of(&configured, configured.storage_type)?).await?;
            let moved =
                followed("importing", async |steering| portable::import(&file, &*store, &steering).await);
            let moved = moved.await;
            store.close().await?;
            answer(common.json, &exported(&file, moved?), |of| print_exported("read from", of))
        }
        StorageCommand::Init(arguments) => {
            let json = arguments.json;
            answer(json, &init::run(arguments).await?, print_initialised)
        }
    }
}

async fn check(source: &Config, target: &Config, json: bool) -> anyhow::Result<()> {
    let store = open(source).await?;
    let validation = validate::validate(&*store, &place(source), target).await;
    store.close().await?;
    answer(json, &validation, print_validation)?;
    match validation.is_possible {
        true => Ok(()),
        false => Err(anyhow!("the records cannot be moved there")),
    }
}

async fn move_records(source: &Config, target: &Config) -> anyhow::Result<Migration> {
    let (from, to) = (place(source), place(target));
    if from == to {
        bail!(
            "the records are there already: {from}; name another place with --target-dir, --target-url or --target-database"
        );
    }
    let started_at = Utc::now();
    let store = open(source).await?;
    let mut id = MigrationId::generate();
    // A migration that was broken off after its moment of change.
    if let StorageState::Sealed { migration, epoch, to: sealed_to, target: left_to } =
        read_state(&*store).await?.state
        && sealed_to == to
    {
        store.close().await?;
        let store = open(target).await?;
        let settled = settle_target(&*store, &migration, epoch).await;
        let found = read_state(&*store).await;
        store.close().await?;
        let (is_settled, found) = (settled?, found?);
        if !found.may_be_sealed_to(left_to.as_ref()) {
            bail!(
                "the records have moved to the {to}, and another storage is there now: look where they are"
            );
        }
        if !is_settled {
            match found.state {
                StorageState::Sealed { to: on, .. } => bail!(
                    "the records have moved to the {to}, and from there to the {on}: move them from there with --from"
                ),
                StorageState::Migrating { from, .. } | StorageState::Ready { from, .. } => bail!(
                    "the records have moved to the {to}, which is being filled with those of the {from} now: look there"
                ),
                StorageState::Active { .. } => {
                    bail!("the records have moved to the {to}, which was made anew since: restore it")
                }
            }
        }
        id = migration.parse().unwrap_or(id);
        return Ok(ended(id, started_at, source, target));
    }
    if let Err(error) = alone_to_move(source, target, &*store).await {
        store.close().await?;
        return Err(error);
    }
    let found = validate::validate(&*store, &from, target).await;
    if let Some(wrong) = found.checks.iter().find(|check| check.state == CheckState::Failed) {
        store.close().await?;
        let advice = wrong.advice.as_deref().unwrap_or_default();
        bail!("the records cannot be moved: {}: {}; {advice}", wrong.name, wrong.found);
    }
    let goal = open_or_make(target).await?;
    let plan = Plan { migration: id.to_string(), from: from.clone(), to: to.clone() };
    let moved = followed("moving", async |steering| {
        if !source.storage_type.is_shared() {
            return migrate(&*store, &*goal, &plan, &steering).await;
        }
        let guarded = SwitchingStore::guarded(Arc::clone(&store)).await.map_err(MigrationError::Source)?;
        let (source, target, seats) = (source.clone(), target.clone(), Arc::clone(&store));
        // Looked at again, because whoever comes from there on keeps the records where they are.
        let alone = async move {
            let alone = alone_to_move(&source, &target, &*seats).await;
            alone.map_err(|error| MigrationError::NotAlone(format!("{error:#}")))
        };
        Arc::new(guarded).migrate_when(Arc::clone(&goal), plan, steering, alone).await
    })
    .await;
    let closed = (store.close().await, goal.close().await);
    let moved = moved.map_err(|error| {
        let stays = !matches!(error, MigrationError::Unknown(_));
        let error = anyhow::Error::from(error);
        if stays { error.context(format!("the records stay in the {from}")) } else { error }
    })?;
    // They have moved, and everything of it is durable.
    let _ = closed;
    Ok(Migration {
        advice: Some(advised(&moved, &afterwards(source, target))),
        records_done: moved.records,
        records_total: moved.records,
        checksum: Some(moved.checksum),
        ..ended(id, started_at, source, target)
    })
}

/// Fails while engines work on a storage that several may use.
async fn alone_on(config: &Config, store: &dyn Store) -> anyhow::Result<()> {
    if !config.storage_type.is_shared() {
        return Ok(());
    }
    let shown = std::io::stderr().is_terminal();
    if shown {
        eprint!("looking whether engines work on these records: up to 15 s");
    }
    let alone = alone::no_seats(store, LeaseTimes::default()).await;
    if shown {
        eprint!("\r\x1b[2K");
    }
    alone.map_err(with_help)
}

/// The same, also while attempts run that nobody can speak for where the records go.
async fn alone_to_move(source: &Config, target: &Config, store: &dyn Store) -> anyhow::Result<()> {
    alone_on(source, store).await?;
    if source.storage_type.is_shared() && !target.storage_type.is_shared() {
        let own = owner_of(&source.data_dir).context("cannot read who the data directory belongs to")?;
        alone::no_attempts_of_others(store, &own.unwrap_or_default()).await.map_err(with_help)?;
    }
    Ok(())
}

/// An error of the protocol for the terminal, with what to do.
fn with_help(error: orchestrator_protocol::Error) -> anyhow::Error {
    anyhow::Error::msg(in_one_line(&error))
}

fn ended(id: MigrationId, started_at: chrono::DateTime<Utc>, from: &Config, to: &Config) -> Migration {
    Migration {
        id,
        status: MigrationStatus::Completed,
        phase: "done".into(),
        from: shown(&place(from)),
        to: shown(&place(to)),
        records_done: 0,
        records_total: 0,
        started_at,
        ended_at: Some(Utc::now()),
        checksum: None,
        waited_us: None,
        error: None,
        advice: Some(afterwards(from, to)),
    }
}

fn exported(file: &std::path::Path, moved: portable::Moved) -> Exported {
    Exported { file: file.display().to_string(), records: moved.records, checksum: moved.checksum }
}

/// Does something long; shows on a terminal how far it is, and calls it off at Ctrl-C.
async fn followed<T, E>(what: &str, work: impl AsyncFnOnce(Arc<Steering>) -> Result<T, E>) -> Result<T, E> {
    let steering = Arc::new(Steering::default());
    let shown = std::io::stderr().is_terminal();
    let progress = steering.progress();
    let work = work(Arc::clone(&steering));
    tokio::pin!(work);
    let show = show(what, progress, shown);
    tokio::pin!(show);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            () = &mut show => {}
            Ok(()) = tokio::signal::ctrl_c() => steering.cancel(),
        }
    };
    if shown {
        eprint!("\r\x1b[2K");
    }
    result
}

async fn show(what: &str, mut progress: watch::Receiver<Progress>, shown: bool) {
    loop {
        let Progress { phase, done, total } = *progress.borrow_and_update();
        if shown {
            eprint!("\r\x1b[2K{what}: {} {done} of {total}", phase.as_str());
        }
        if !shown || progress.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn answer<T: Serialize>(json: bool, value: &T, print: impl Fn(&T)) -> anyhow::Result<()> {
    match json {
        true => println!("{}", serde_json::to_string(value)?),
        false => print(value),
    }
    Ok(())
}

fn print_report(report: &StorageReport) {
    println!("{} in {}", report.place.backend, report.place.location);
    match &report.other {
        None => println!("{}, epoch {}", report.state, report.epoch),
        Some(other) => {
            let way = if report.state == "sealed" { "moved to" } else { "from" };
            println!(
                "{}, epoch {}, {way} {} in {}",
                report.state, report.epoch, other.backend, other.location
            );
        }
    }
    if let Some(reason) = &report.reason {
        println!("not writable: {reason}");
    }
    for (table, records) in report.tables.iter().filter(|(_, records)| **records > 0) {
        println!("{records:>10}  {table}");
    }
}

fn print_validation(validation: &Validation) {
    for check in &validation.checks {
        let state = if check.state == CheckState::Failed { "FAILED" } else { "ok" };
        println!("{state:>6}  {}: {}", check.name, check.found);
        if let Some(advice) = &check.advice {
            println!("        {advice}");
        }
    }
}

fn print_migration(migration: &Migration) {
    let (from, to) = (&migration.from, &migration.to);
    println!("{} records have moved", migration.records_done);
    println!("from  {} in {}", from.backend, from.location);
    println!("to    {} in {}", to.backend, to.location);
    if let Some(checksum) = &migration.checksum {
        println!("checksum of both  {checksum}");
    }
    if let Some(advice) = &migration.advice {
        println!("{advice}");
    }
}

fn print_exported(way: &str, exported: &Exported) {
    println!("{} records {way} {}, checksum {}", exported.records, exported.file, exported.checksum);
}

fn print_initialised(made: &Initialised) {
    println!("{} is prepared; engines sign in as {}", made.location, made.username);
    if let Some(file) = &made.password_file {
        println!("the user's new password is in {file}");
    }
}

//! Preparing a SurrealDB server for engines: with an administrator's name and password, given once, the
//! namespace, the database, its tables, and the user as whom engines sign in.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use orchestrator_protocol::storage::Initialised;

use crate::config::database::read_password;
use crate::config::{Arguments, Config, StorageArguments, SurrealdbArguments, SurrealdbSettings};

/// `storage init`
#[derive(Debug, Args)]
pub struct InitArguments {
    #[command(flatten)]
    surrealdb: SurrealdbArguments,

    /// The server's administrator
    #[arg(long, env = "SURREAL_USER", value_name = "NAME", default_value = "root")]
    root_username: String,

    /// A file with the administrator's password; without it the password is read from the environment
    /// variable SURREAL_PASS
    #[arg(long, value_name = "FILE")]
    root_password_file: Option<PathBuf>,

    /// The engine's TOML file with settings
    #[arg(long, env = "ORCHESTRATOR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Answer with a JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// The engine's user, where nothing else is said.
const USERNAME: &str = "orchestrator";

/// Prepares the server. Done again it changes only the user's password.
///
/// # Errors
/// What went wrong, for the terminal. Nothing is written before all is there that it needs.
pub async fn run(arguments: InitArguments) -> anyhow::Result<Initialised> {
    if !cfg!(feature = "surrealdb") {
        return Err(unknown_here());
    }
    let root_password = match &arguments.root_password_file {
        Some(file) => read_password(file)?,
        None => std::env::var("SURREAL_PASS").map_err(|_| {
            anyhow!("the administrator's password is missing: use --root-password-file, or set SURREAL_PASS")
        })?,
    };
    let (mut surrealdb, config) = (arguments.surrealdb, arguments.config);
    // One that is not there yet is made.
    let made = surrealdb.surrealdb_password_file.take_if(|file| !file.exists());
    if made.is_some() {
        surrealdb.surrealdb_password = Some(uuid::Uuid::new_v4().simple().to_string());
    }
    let storage = StorageArguments { surrealdb, ..StorageArguments::default() };
    let mut config = Config::load(Arguments { storage, config, no_http: true, ..Arguments::default() })?;
    let SurrealdbSettings { username, password, .. } = &mut config.surrealdb;
    let username = username.get_or_insert_with(|| USERNAME.to_owned()).clone();
    let Some(password) = password.clone() else {
        bail!("the engine's user needs a password: use --surrealdb-password-file with a file to write it to");
    };
    if let Some(file) = &made {
        // Written before it is used: a password that nobody knows would be of no use.
        write_password(file, &password)
            .with_context(|| format!("the password file {} cannot be written", file.display()))?;
    }
    prepare(&config, &arguments.root_username, &root_password).await?;
    let password_file = made.map(|file| file.display().to_string());
    Ok(Initialised { location: config.surrealdb.location(), username, password_file })
}

fn write_password(file: &std::path::Path, password: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(file, "{password}")?;
    file.sync_all()
}

#[cfg(feature = "surrealdb")]
async fn prepare(config: &Config, username: &str, password: &str) -> anyhow::Result<()> {
    use orchestrator_storage::surrealdb::{Credentials, bootstrap};

    let options = super::open::server_options(config)?;
    let root = Credentials { username: username.to_owned(), password: password.to_owned() };
    Ok(bootstrap(root, &options).await?)
}

#[cfg(not(feature = "surrealdb"))]
async fn prepare(_: &Config, _: &str, _: &str) -> anyhow::Result<()> {
    Err(unknown_here())
}

fn unknown_here() -> anyhow::Error {
    anyhow!("this build knows no SurrealDB: build it with `cargo build --release --features surrealdb`")
}

/// Whether the database on the server that a configuration names has the engine's tables. Nothing is changed.
///
/// # Errors
/// When the server cannot be asked.
#[cfg(feature = "surrealdb")]
pub async fn is_prepared(config: &Config) -> anyhow::Result<bool> {
    let options = super::open::server_options(config)?;
    Ok(orchestrator_storage::surrealdb::stored_version(options).await?.is_some())
}

/// There is no such storage in this build.
#[cfg(not(feature = "surrealdb"))]
pub async fn is_prepared(config: &Config) -> anyhow::Result<bool> {
    super::open::open_store(config).await.map(|_| false)
}

//! Opening the storage that a configuration names, and the lock of the data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(not(feature = "surrealdb"))]
use anyhow::bail;
use orchestrator_protocol::client::{Client, ClientError};
use orchestrator_storage::filesystem::{FilesystemOptions, FilesystemStore};
#[cfg(feature = "surrealdb")]
use orchestrator_storage::surrealdb::{Credentials, EmbeddedOptions, ServerOptions, SurrealStore};
use orchestrator_storage::{Store, StoreError, StoreResult};

use crate::config::{Config, StorageType};

/// How long an engine waits for the one before it, which serves nobody any more, to let go.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(5);
const HANDOVER_INTERVAL: Duration = Duration::from_millis(20);
/// How long a lock may seem to be held that nobody holds: a process that an engine is just starting has it too
/// until it has begun.
const START_PATIENCE: Duration = Duration::from_millis(500);

/// Opens the storage that the configuration names; makes an empty one where there is none.
pub async fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    match config.storage_type {
        StorageType::Filesystem => {
            let options = FilesystemOptions::new(&config.storage_dir);
            let socket = config.socket.clone();
            let open =
                move || handed_over(&options.data_dir, &socket, || FilesystemStore::open(options.clone()));
            Ok(Arc::new(tokio::task::spawn_blocking(open).await??))
        }
        StorageType::SurrealdbEmbedded | StorageType::SurrealdbServer => open_surrealdb(config).await,
    }
}

/// Opens one of the backends on SurrealDB.
#[cfg(feature = "surrealdb")]
async fn open_surrealdb(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match config.storage_type {
        StorageType::SurrealdbEmbedded => {
            Arc::new(SurrealStore::open_embedded(EmbeddedOptions::new(&config.storage_dir)).await?)
        }
        _ => Arc::new(SurrealStore::open_server(server_options(config)?).await?),
    })
}

/// How to open the database on the server that the configuration names.
///
/// # Errors
/// When the configuration names none, or a user without a password or the other way round.
#[cfg(feature = "surrealdb")]
pub fn server_options(config: &Config) -> anyhow::Result<ServerOptions> {
    use anyhow::bail;

    let settings = config.surrealdb.clone();
    let Some(url) = settings.url else {
        bail!("the storage surrealdb-server needs the server's address: use --surrealdb-url ws://HOST:PORT")
    };
    if !["ws://", "wss://", "http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
        bail!("'{url}' is no address of a SurrealDB server: it should look like ws://HOST:PORT")
    }
    if url.split_once("://").is_some_and(|(_, rest)| rest.contains('@')) {
        bail!(
            "the address of the SurrealDB server holds a name or a password, which others could read: use \
             --surrealdb-username and --surrealdb-password-file"
        )
    }
    let credentials = match (settings.username, settings.password) {
        (Some(username), Some(password)) => Some(Credentials { username, password }),
        (None, None) => None,
        (Some(_), None) => bail!("the SurrealDB user has no password: use --surrealdb-password-file"),
        (None, Some(_)) => bail!("the SurrealDB password has no user: use --surrealdb-username"),
    };
    let url = url.trim_end_matches('/').to_owned();
    let (namespace, database) = (settings.namespace, settings.database);
    Ok(ServerOptions { namespace, database, credentials, ..ServerOptions::new(url) })
}

/// Says what to do for a storage that is not in this build.
#[cfg(not(feature = "surrealdb"))]
async fn open_surrealdb(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    bail!(
        "this build has no storage '{}': build it with `cargo build --release --features surrealdb`",
        config.storage_type.as_str()
    )
}

/// Takes something that one engine of a data directory has at a time. While another engine has it that
/// serves nobody any more, because it is about to end, this one waits for it.
fn handed_over<T>(
    data_dir: &Path,
    socket: &Path,
    mut take: impl FnMut() -> StoreResult<T>,
) -> StoreResult<T> {
    let start = Instant::now();
    loop {
        match take() {
            Err(StoreError::InUse { .. }) => {
                let is_served = !matches!(Client::connect(socket, None), Err(ClientError::NotRunning { .. }));
                let patience = if is_served { START_PATIENCE } else { HANDOVER_PATIENCE };
                if start.elapsed() >= patience {
                    return Err(StoreError::InUse { path: data_dir.to_owned() });
                }
                std::thread::sleep(HANDOVER_INTERVAL);
            }
            other => return other,
        }
    }
}

/// The lock that one engine of a data directory has, wherever its records are. The system lets go of it
/// when the process ends.
///
/// # Errors
/// [`StoreError::InUse`] while another engine has it.
pub async fn lock_data_dir(config: &Config) -> anyhow::Result<File> {
    let (data_dir, socket) = (config.data_dir.clone(), config.socket.clone());
    let lock = move || handed_over(&data_dir, &socket, || try_lock(&data_dir));
    Ok(tokio::task::spawn_blocking(lock).await??)
}

fn try_lock(data_dir: &Path) -> StoreResult<File> {
    let path = data_dir.join("lock");
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = opened.map_err(|source| StoreError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(StoreError::Io { path, source }),
    }
}

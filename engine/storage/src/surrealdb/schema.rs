//! Tables, indexes and their version; and what an administrator prepares on a server.

use std::time::Duration;

use surrealdb::opt::auth::Root;
use surrealdb::types::{Object, RecordId, Value};

use super::link::{Link, Session, Trouble, dial};
use super::row::{count, number, object, table_name};
use super::{Credentials, ServerOptions};
use crate::record::Table;
use crate::store::{StoreError, StoreResult};

/// The version of the schema that is written here.
const VERSION: u32 = 1;

/// How much longer than for another statement a server may take for all of them.
const DEFINITION_PATIENCE: Duration = Duration::from_secs(50);

/// The indexes of a table of records.
const RECORD_INDEXES: [(&str, &str); 4] = [
    ("by_key", "every, key"),
    ("by_status", "status, key"),
    ("by_group", "grp, key"),
    ("by_parent", "parent, key"),
];

/// The statements that make an empty database a store, each of them without effect when it was run.
fn definitions() -> Vec<String> {
    let mut statements = Vec::new();
    let mut table = |name: &str, indexes: &[(&str, &str)]| {
        statements.push(format!("DEFINE TABLE IF NOT EXISTS `{name}` SCHEMALESS PERMISSIONS NONE"));
        for (index, fields) in indexes {
            statements.push(format!("DEFINE INDEX IF NOT EXISTS `{index}` ON `{name}` FIELDS {fields}"));
        }
    };
    for name in Table::ALL.map(table_name) {
        table(name, &RECORD_INDEXES);
    }
    table("label", &[("by_word", "word, key")]);
    table("tally", &[("by_table", "t")]);
    table("meta", &[]);
    table("change", &[]);
    statements
}

/// Brings the database to this release's schema.
pub(super) async fn prepare(link: &Link) -> StoreResult<()> {
    let fail = |trouble: Trouble| trouble.of_read(&link.location);
    let table = "DEFINE TABLE IF NOT EXISTS store SCHEMALESS PERMISSIONS NONE";
    link.repeat(table, Object::new()).await.map_err(fail)?;
    let schema = || Value::RecordId(RecordId::new("store", "schema"));
    let text = "RETURN (SELECT VALUE version FROM ONLY $schema)";
    match link.repeat(text, object([("schema", schema())])).await.map_err(fail)? {
        Value::None => {}
        version => {
            let found = count(&version).and_then(|found| u32::try_from(found).ok()).unwrap_or(u32::MAX);
            return match found {
                0..=VERSION => Ok(()),
                found => Err(StoreError::NewerSchema { found, known: VERSION }),
            };
        }
    }
    // One transaction: a store is there or it is not, and one sync is enough.
    let all = format!("BEGIN; {}; COMMIT;", definitions().join("; "));
    link.repeat_long(&all, Object::new(), DEFINITION_PATIENCE).await.map_err(fail)?;
    let values = object([("schema", schema()), ("version", number(VERSION.into()))]);
    link.repeat("UPSERT $schema SET version = $version RETURN NONE", values).await.map_err(fail)?;
    Ok(())
}

/// Makes sure that the namespace and the database are there; only where everybody may do that.
pub(super) async fn make_database(link: &Link, namespace: &str, database: &str) -> StoreResult<()> {
    let session = link.session().await.map_err(|trouble| trouble.of_read(&link.location))?;
    let making = make(&session, namespace, database);
    let made = match link.patience() {
        Some(patience) => tokio::time::timeout(patience + DEFINITION_PATIENCE, making).await,
        None => Ok(making.await),
    };
    let made = made.unwrap_or_else(|_| Err(Trouble::Away("no answer".to_owned())));
    made.map_err(|trouble| trouble.of_read(&link.location))
}

async fn make(session: &Session, namespace: &str, database: &str) -> Result<(), Trouble> {
    session.run(&format!("DEFINE NAMESPACE IF NOT EXISTS `{namespace}`"), Object::new()).await?;
    session.select(namespace, None).await?;
    session.run(&format!("DEFINE DATABASE IF NOT EXISTS `{database}`"), Object::new()).await?;
    session.select(namespace, Some(database)).await
}

/// Whether an open server has the database. It is not gone into: an open server makes what is gone into.
async fn has_database(options: &ServerOptions) -> Result<bool, Trouble> {
    let session = Session::Server(dial(&options.url).await.map_err(Trouble::Away)?);
    let is_listed = async |of: &str, list: &str, name: &str| {
        let Value::Object(info) = session.run(&format!("INFO FOR {of}"), Object::new()).await? else {
            return Ok(false);
        };
        Ok(matches!(info.get(list), Some(Value::Object(names)) if names.contains_key(name)))
    };
    if !is_listed("ROOT", "namespaces", &options.namespace).await? {
        return Ok(false);
    }
    session.select(&options.namespace, None).await?;
    is_listed("NS", "databases", &options.database).await
}

/// Whether a name can stand in a statement.
pub(super) fn check_name(what: &str, name: &str) -> StoreResult<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=64).contains(&name.len()) && name.chars().all(plain) {
        return Ok(());
    }
    let reason = format!("the {what} {name:?} is not made of 1 to 64 letters, digits, '_' and '-'");
    Err(StoreError::Invalid { reason })
}

/// Text as it stands in a statement.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Prepares a server for engines: the namespace, the database, the schema, and the user as whom engines
/// sign in, who may read and write there and nothing else. Done again it changes only the user's
/// password.
///
/// # Errors
/// [`StoreError::Away`] when the server cannot be reached, [`StoreError::Database`] when it refuses,
/// [`StoreError::NewerSchema`], and [`StoreError::Invalid`] for a name that cannot be used.
pub async fn bootstrap(root: Credentials, engine: &ServerOptions) -> StoreResult<()> {
    let Some(user) = &engine.credentials else {
        return Err(StoreError::Invalid { reason: "the engine's user has no name".to_owned() });
    };
    check_name("namespace", &engine.namespace)?;
    check_name("database", &engine.database)?;
    check_name("user", &user.username)?;
    let location = engine.url.clone();
    let client = tokio::time::timeout(engine.patience, dial(&location))
        .await
        .map_err(|_| "no answer".to_owned())
        .flatten()
        .map_err(|reason| StoreError::Away { location: location.clone(), reason })?;
    let Credentials { username, password } = root;
    let refused = format!("it does not let {username} in");
    // A password takes an unoptimised server seconds.
    let signed_in = tokio::time::timeout(
        engine.patience + DEFINITION_PATIENCE,
        client.signin(Root { username, password }),
    );
    match signed_in.await {
        Err(_) => return Err(StoreError::Away { location, reason: "no answer".to_owned() }),
        Ok(Err(error)) => {
            return Err(StoreError::Database { location, reason: format!("{refused}: {error}") });
        }
        Ok(Ok(_)) => {}
    }
    let link = Link::signed_in(engine.clone(), client);
    make_database(&link, &engine.namespace, &engine.database).await?;
    prepare(&link).await?;
    let definition = format!(
        "DEFINE USER OVERWRITE `{}` ON DATABASE PASSWORD {} ROLES EDITOR",
        user.username,
        quoted(&user.password)
    );
    link.repeat(&definition, Object::new()).await.map_err(|trouble| trouble.of_read(&location))?;
    Ok(())
}

/// The schema that a database on a server has; `None` where there is none yet. Nothing is changed.
///
/// # Errors
/// [`StoreError::Away`] when the server cannot be reached or does not let this user in;
/// [`StoreError::Database`] when it refuses.
pub async fn stored_version(options: ServerOptions) -> StoreResult<Option<u32>> {
    check_name("namespace", &options.namespace)?;
    check_name("database", &options.database)?;
    if options.credentials.is_none() {
        let looked = tokio::time::timeout(options.patience, has_database(&options)).await;
        let looked = looked.unwrap_or_else(|_| Err(Trouble::Away("no answer".to_owned())));
        if !looked.map_err(|trouble| trouble.of_read(&options.url))? {
            return Ok(None);
        }
    }
    let link = Link::server(options);
    let schema = Value::RecordId(RecordId::new("store", "schema"));
    let text = "RETURN (SELECT VALUE version FROM ONLY $schema)";
    let found = link.repeat(text, object([("schema", schema)])).await;
    link.close().await;
    match found {
        Ok(Value::None) => Ok(None),
        Ok(version) => {
            let version = count(&version).and_then(|version| u32::try_from(version).ok());
            Ok(Some(version.unwrap_or(u32::MAX)))
        }
        Err(Trouble::Refused(words)) if words.contains("does not exist") => Ok(None),
        Err(trouble) => Err(trouble.of_read(&link.location)),
    }
}

//! Where the SurrealDB server is, and as whom to sign in.

use std::path::{Path, PathBuf};

use super::ConfigError;

/// What the engine's records are kept under, where nothing else is said.
const NAMESPACE: &str = "orchestrator";
const DATABASE: &str = "tasks";

/// What the command line and the environment say.
#[derive(Clone, Default, clap::Args)]
pub struct SurrealdbArguments {
    /// The SurrealDB server: ws://, wss://, http:// or https://, host and port
    #[arg(long, env = "ORCHESTRATOR_SURREALDB_URL", value_name = "URL")]
    pub surrealdb_url: Option<String>,

    /// The namespace on the SurrealDB server [default: orchestrator]
    #[arg(long, env = "ORCHESTRATOR_SURREALDB_NAMESPACE", value_name = "NAME")]
    pub surrealdb_namespace: Option<String>,

    /// The database in the namespace [default: tasks]
    #[arg(long, env = "ORCHESTRATOR_SURREALDB_DATABASE", value_name = "NAME")]
    pub surrealdb_database: Option<String>,

    /// The database's user [default: none, and the server must let everybody in; of `storage init`: orchestrator]
    #[arg(long, env = "ORCHESTRATOR_SURREALDB_USERNAME", value_name = "NAME")]
    pub surrealdb_username: Option<String>,

    /// The user's password. Others on this machine may read it here before the engine hides it: better in
    /// the environment or a file
    #[arg(
        long,
        env = "ORCHESTRATOR_SURREALDB_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD",
        conflicts_with = "surrealdb_password_file"
    )]
    pub surrealdb_password: Option<String>,

    /// A file with the user's password
    #[arg(long, env = "ORCHESTRATOR_SURREALDB_PASSWORD_FILE", value_name = "FILE")]
    pub surrealdb_password_file: Option<PathBuf>,
}

impl std::fmt::Debug for SurrealdbArguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SurrealdbArguments")
            .field("surrealdb_url", &self.surrealdb_url)
            .finish_non_exhaustive()
    }
}

impl SurrealdbArguments {
    /// The same, with what the configuration file says where nothing else is said.
    pub(super) fn or(self, file: Self) -> Self {
        // A password of one kind is not mixed with one of the other.
        let (surrealdb_password, surrealdb_password_file) =
            match (self.surrealdb_password, self.surrealdb_password_file) {
                (None, None) => (file.surrealdb_password, file.surrealdb_password_file),
                said => said,
            };
        Self {
            surrealdb_url: self.surrealdb_url.or(file.surrealdb_url),
            surrealdb_namespace: self.surrealdb_namespace.or(file.surrealdb_namespace),
            surrealdb_database: self.surrealdb_database.or(file.surrealdb_database),
            surrealdb_username: self.surrealdb_username.or(file.surrealdb_username),
            surrealdb_password,
            surrealdb_password_file,
        }
    }

    /// The settings, with the password read.
    ///
    /// # Errors
    /// When the file with the password cannot be read.
    pub(super) fn settings(self) -> Result<SurrealdbSettings, ConfigError> {
        let password = match (self.surrealdb_password, self.surrealdb_password_file) {
            (Some(password), _) => Some(password),
            (None, Some(path)) => Some(read_password(&path)?),
            (None, None) => None,
        };
        Ok(SurrealdbSettings {
            url: self.surrealdb_url,
            namespace: self.surrealdb_namespace.unwrap_or_else(|| NAMESPACE.to_owned()),
            database: self.surrealdb_database.unwrap_or_else(|| DATABASE.to_owned()),
            username: self.surrealdb_username,
            password,
        })
    }
}

/// Where the SurrealDB server is, and as whom to sign in.
#[derive(Clone, PartialEq, Eq)]
pub struct SurrealdbSettings {
    /// Its address.
    pub url: Option<String>,
    /// The namespace.
    pub namespace: String,
    /// The database in it.
    pub database: String,
    /// The user.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<String>,
}

impl Default for SurrealdbSettings {
    fn default() -> Self {
        let (namespace, database) = (NAMESPACE.to_owned(), DATABASE.to_owned());
        Self { url: None, namespace, database, username: None, password: None }
    }
}

impl std::fmt::Debug for SurrealdbSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SurrealdbSettings")
            .field("url", &self.url)
            .field("namespace", &self.namespace)
            .field("database", &self.database)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl SurrealdbSettings {
    /// The database's place in one line: the server's address, the namespace, the database.
    pub fn location(&self) -> String {
        let url = self.url.as_deref().unwrap_or("no address").trim_end_matches('/');
        format!("{url}/{}/{}", self.namespace, self.database)
    }

    /// These settings with another server or user, where those are named. The configured user signs in only at
    /// the configured server.
    pub fn on(&self, url: Option<&str>, user: Option<(String, Option<String>)>) -> Self {
        let is_configured = |url: &str| {
            let own = self.url.as_deref().map(|own| own.trim_end_matches('/'));
            own == Some(url.trim_end_matches('/'))
        };
        let (username, password) = match user {
            Some((username, password)) => (Some(username), password),
            None if url.is_none_or(is_configured) => (self.username.clone(), self.password.clone()),
            None => (None, None),
        };
        let url = url.map(str::to_owned).or_else(|| self.url.clone());
        Self { url, username, password, ..self.clone() }
    }

    /// The same user at the place that such a line names; `None` where it names none.
    pub fn at(&self, location: &str) -> Option<Self> {
        let (rest, database) = location.rsplit_once('/')?;
        let (url, namespace) = rest.rsplit_once('/')?;
        let (_, host) = url.split_once("://")?;
        let is_whole = [host, namespace, database].iter().all(|part| !part.is_empty());
        is_whole.then(|| Self {
            url: Some(url.to_owned()),
            namespace: namespace.to_owned(),
            database: database.to_owned(),
            ..self.clone()
        })
    }
}

/// A password from a file: without the line end behind it.
pub(crate) fn read_password(path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(ConfigError::Invalid(format!("the file {} holds no password", path.display())));
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn the_configured_user_signs_in_only_at_the_configured_server() {
        let (username, password) = (Some("engine".to_owned()), Some("secret".to_owned()));
        let url = Some("ws://db.example:8000/".to_owned());
        let settings = SurrealdbSettings { url, username, password, ..SurrealdbSettings::default() };
        let user = |settings: &SurrealdbSettings| settings.username.clone().zip(settings.password.clone());
        let own = user(&settings);
        assert!(own.is_some());
        assert_eq!(user(&settings.on(None, None)), own);
        assert_eq!(user(&settings.on(Some("ws://db.example:8000"), None)), own);
        assert_eq!(user(&settings.on(Some("ws://other.example:8000"), None)), None);
        let nowhere = SurrealdbSettings { url: None, ..settings.clone() };
        assert_eq!(user(&nowhere.on(Some("ws://db.example:8000"), None)), None);
        let other = ("other".to_owned(), Some("word".to_owned()));
        assert_eq!(user(&settings.on(None, Some(other))), Some(("other".into(), "word".into())));
    }

    #[test]
    fn a_place_names_the_server_the_namespace_and_the_database() {
        let settings = SurrealdbSettings {
            url: Some("ws://db.example:8000/".into()),
            username: Some("engine".into()),
            ..SurrealdbSettings::default()
        };
        assert_eq!(settings.location(), "ws://db.example:8000/orchestrator/tasks");
        let back = settings.at("http://10.0.0.1:8000/team/queue").unwrap();
        assert_eq!(back.url.as_deref(), Some("http://10.0.0.1:8000"));
        assert_eq!((back.namespace.as_str(), back.database.as_str()), ("team", "queue"));
        assert_eq!(back.username, settings.username);
        for wrong in ["", "/", "ws://host", "ws://host/a", "ws://host//a", "/srv/data/x"] {
            assert_eq!(settings.at(wrong), None, "{wrong}");
        }
    }
}

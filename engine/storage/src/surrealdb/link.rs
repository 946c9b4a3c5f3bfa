//! The way to the database: inside this process or over the network, and what becomes of it when it is
//! lost.
//!
//! The client's own way to reconnect is not used: what waits in it is sent late, after its author has
//! been told that it was not. A connection that fails once is given up, and the next statement opens
//! another. What was given up may still deliver a transaction late; the committer sees to it that such a
//! one changes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use surrealdb::Surreal;
use surrealdb::engine::any::Any;
use surrealdb::engine::local::Db;
use surrealdb::opt::auth::Database;
use surrealdb::opt::{Config, WebsocketConfig};
use surrealdb::types::{Object, QueryError, Value};
use tokio::sync::Mutex;

use super::{ServerOptions, tls};
use crate::store::StoreError;

/// How long after a vain attempt to connect the next one is made; doubled with each that follows, up to the
/// bound. Leases are renewed every two seconds: it must stay below that.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(100);
const MAX_RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
/// The longest message, in bytes, that is sent or taken over a web socket.
const MAX_MESSAGE_BYTES: usize = 256 * 1024 * 1024;

/// Why a statement has no result.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// Another transaction came first, and this one has left nothing.
    Conflict,
    /// The database has answered that it does not do this.
    Refused(String),
    /// No answer came: it may have been done or not, and it may still be done.
    Lost(String),
    /// It was not sent.
    Away(String),
}

impl Trouble {
    /// What a reader is told.
    pub(super) fn of_read(self, location: &str) -> StoreError {
        let location = location.to_owned();
        match self {
            Self::Conflict => StoreError::Away { location, reason: "others keep changing it".to_owned() },
            Self::Refused(reason) => StoreError::Database { location, reason },
            Self::Lost(reason) | Self::Away(reason) => StoreError::Away { location, reason },
        }
    }
}

/// An open connection.
pub(super) enum Session {
    /// To the engine in this process.
    Embedded(Surreal<Db>),
    /// To a server.
    Server(Surreal<Any>),
}

impl Session {
    /// Runs one statement; its result.
    pub(super) async fn run(&self, text: &str, variables: Object) -> Result<Value, Trouble> {
        let answer = match self {
            Self::Embedded(client) => client.query(text).bind(variables).await,
            Self::Server(client) => client.query(text).bind(variables).await,
        };
        let mut results = answer.map_err(|error| self.no_answer(&error))?;
        let errors = results.take_errors();
        if errors.values().any(is_conflict) {
            return Err(Trouble::Conflict);
        }
        if let Some(error) = errors.into_values().next() {
            return Err(Trouble::Refused(error.to_string()));
        }
        results.take(0).map_err(|error| Trouble::Refused(error.to_string()))
    }

    /// Goes into a namespace, and a database in it.
    pub(super) async fn select(&self, namespace: &str, database: Option<&str>) -> Result<(), Trouble> {
        let selected = match (self, database) {
            (Self::Embedded(client), None) => client.use_ns(namespace).await,
            (Self::Embedded(client), Some(database)) => client.use_ns(namespace).use_db(database).await,
            (Self::Server(client), None) => client.use_ns(namespace).await,
            (Self::Server(client), Some(database)) => client.use_ns(namespace).use_db(database).await,
        };
        selected.map(|_| ()).map_err(|error| self.no_answer(&error))
    }

    /// What an error of the whole request means.
    fn no_answer(&self, error: &surrealdb::Error) -> Trouble {
        if is_conflict(error) {
            return Trouble::Conflict;
        }
        match self {
            Self::Embedded(_) => Trouble::Refused(error.to_string()),
            Self::Server(_) => Trouble::Lost(error.to_string()),
        }
    }
}

fn is_conflict(error: &surrealdb::Error) -> bool {
    error.query_details() == Some(&QueryError::TransactionConflict)
        || error.message().contains("This transaction can be retried")
}

/// Vain attempts to connect.
struct Failure {
    /// When the last one ended.
    at: Instant,
    /// How long after it the next one is made.
    interval: Duration,
    reason: String,
}

/// Opens connections as they are needed.
pub(super) struct Link {
    /// `None` for the engine in this process, which is never opened again.
    server: Option<ServerOptions>,
    /// Where the database is, for messages.
    pub(super) location: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    failure: Option<Failure>,
    closed: bool,
}

impl Link {
    /// To the engine in this process.
    pub(super) fn embedded(client: Surreal<Db>, location: String) -> Self {
        let session = Some(Arc::new(Session::Embedded(client)));
        Self { server: None, location, state: Mutex::new(State { session, ..State::default() }) }
    }

    /// To a server, not yet connected.
    pub(super) fn server(options: ServerOptions) -> Self {
        let location = options.url.clone();
        Self { server: Some(options), location, state: Mutex::new(State::default()) }
    }

    /// To a server to which somebody has signed in already.
    pub(super) fn signed_in(options: ServerOptions, client: Surreal<Any>) -> Self {
        let (session, location) = (Some(Arc::new(Session::Server(client))), options.url.clone());
        Self { server: Some(options), location, state: Mutex::new(State { session, ..State::default() }) }
    }

    /// Whether several engines may use the database.
    pub(super) fn is_shared(&self) -> bool {
        self.server.is_some()
    }

    /// How long a call may take before it is given up; `None` inside this process, where nothing is lost.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.server.as_ref().map(|options| options.patience)
    }

    /// Between two looks at what others have written; `None` inside this process, where nobody else writes.
    pub(super) fn poll_interval(&self) -> Option<Duration> {
        self.server.as_ref().map(|options| options.poll_interval)
    }

    /// The connection; a new one where there is none.
    pub(super) async fn session(&self) -> Result<Arc<Session>, Trouble> {
        let mut state = self.state.lock().await;
        if let Some(session) = &state.session {
            return Ok(Arc::clone(session));
        }
        let options = match &self.server {
            Some(options) if !state.closed => options,
            _ => return Err(Trouble::Away("the store is closed".to_owned())),
        };
        let interval = match &state.failure {
            Some(failure) if failure.at.elapsed() < failure.interval => {
                return Err(Trouble::Away(failure.reason.clone()));
            }
            Some(failure) => (failure.interval * 2).min(MAX_RECONNECT_INTERVAL),
            None => RECONNECT_INTERVAL,
        };
        let attempt = tokio::time::timeout(options.patience, connect(options)).await;
        let reason = match attempt {
            Ok(Ok(client)) => {
                let session = Arc::new(Session::Server(client));
                *state = State { session: Some(Arc::clone(&session)), ..State::default() };
                return Ok(session);
            }
            Ok(Err(reason)) => reason,
            Err(_) => no_answer_within(options.patience),
        };
        state.failure = Some(Failure { at: Instant::now(), interval, reason: reason.clone() });
        Err(Trouble::Away(reason))
    }

    /// Gives a connection up, unless that has been done.
    async fn give_up(&self, session: &Arc<Session>) {
        if self.is_shared() {
            let mut state = self.state.lock().await;
            state.session.take_if(|current| Arc::ptr_eq(current, session));
        }
    }

    /// Runs one statement, which the server may take so much longer for than for others.
    pub(super) async fn run(
        &self,
        text: &str,
        variables: Object,
        longer: Duration,
    ) -> Result<Value, Trouble> {
        let session = self.session().await?;
        let Some(patience) = self.patience() else { return session.run(text, variables).await };
        let patience = patience + longer;
        let result = tokio::time::timeout(patience, session.run(text, variables))
            .await
            .unwrap_or_else(|_| Err(Trouble::Lost(no_answer_within(patience))));
        if let Err(Trouble::Lost(_)) = &result {
            self.give_up(&session).await;
        }
        result
    }

    /// Runs a statement that changes nothing: once more on a new connection when the old one was lost.
    pub(super) async fn read(&self, text: &str, variables: Object) -> Result<Value, Trouble> {
        self.read_long(text, variables, Duration::ZERO).await
    }

    async fn read_long(&self, text: &str, variables: Object, longer: Duration) -> Result<Value, Trouble> {
        match self.run(text, variables.clone(), longer).await {
            Err(Trouble::Lost(_)) => self.run(text, variables, longer).await,
            result => result,
        }
    }

    /// Runs a statement that may be run twice, until no other transaction is in its way.
    pub(super) async fn repeat(&self, text: &str, variables: Object) -> Result<Value, Trouble> {
        self.repeat_long(text, variables, Duration::ZERO).await
    }

    /// The same for one that the server may take longer for than for others.
    pub(super) async fn repeat_long(
        &self,
        text: &str,
        variables: Object,
        longer: Duration,
    ) -> Result<Value, Trouble> {
        for _ in 0..MAX_REPEATS {
            match self.read_long(text, variables.clone(), longer).await {
                Err(Trouble::Conflict) => tokio::time::sleep(back_off(1)).await,
                result => return result,
            }
        }
        Err(Trouble::Conflict)
    }

    /// Lets go of the connection, for good.
    pub(super) async fn close(&self) {
        *self.state.lock().await = State { closed: true, ..State::default() };
    }
}

/// How often a definition is tried while others are in its way.
const MAX_REPEATS: u32 = 100;

/// A random pause after so many conflicts in a row.
pub(super) fn back_off(conflicts: u32) -> Duration {
    let bound = 2_000_u64.saturating_mul(u64::from(conflicts.min(25)));
    Duration::from_micros(rand::random_range(0..=bound))
}

fn no_answer_within(patience: Duration) -> String {
    format!("no answer within {} s", patience.as_secs_f32())
}

/// Opens a connection without any rights.
pub(super) async fn dial(url: &str) -> Result<Surreal<Any>, String> {
    let words = |error: surrealdb::Error| error.to_string();
    let socket = WebsocketConfig::new().max_message_size(MAX_MESSAGE_BYTES);
    let mut config = Config::new().websocket(socket).map_err(words)?;
    let tls = tls::config(url)?;
    // Over HTTP the library does not say what is wrong with a certificate.
    let is_silent = tls.is_some() && url.starts_with("https://");
    if let Some(tls) = tls {
        config = config.rustls(tls);
    }
    surrealdb::engine::any::connect((url, config)).await.map_err(|error| match is_silent {
        true => {
            format!("{error} (its certificate must be one that this machine trusts, or SSL_CERT_FILE names)")
        }
        false => error.to_string(),
    })
}

async fn connect(options: &ServerOptions) -> Result<Surreal<Any>, String> {
    let words = |error: surrealdb::Error| error.to_string();
    let client = dial(&options.url).await?;
    if let Some(credentials) = &options.credentials {
        let user = Database {
            namespace: options.namespace.clone(),
            database: options.database.clone(),
            username: credentials.username.clone(),
            password: credentials.password.clone(),
        };
        let refused = |error| format!("it does not let {} in: {error}", credentials.username);
        client.signin(user).await.map_err(refused)?;
    }
    client.use_ns(&options.namespace).use_db(&options.database).await.map_err(words)?;
    Ok(client)
}

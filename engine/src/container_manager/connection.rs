//! The connection to a daemon: calls with limits, and what becomes of their errors.

use std::error::Error as _;
use std::fs::File;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, SystemInfo};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptionsBuilder, ListNetworksOptionsBuilder,
    RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use orchestrator_protocol::event::OutputStream;
use tokio::time::{sleep, timeout};

use super::address::Address;
use super::answers::first_subnet;
use super::fault::{Fault, Subject};
use super::requests::{container_body, filters};
use super::{limits, subnet};
use crate::containers::calls::{Call, Calls};
use crate::containers::{ContainerError, ContainerSpec, Labels, Network, Output, Result};

/// How long the daemon may take for what it answers out of its memory.
pub(super) const ANSWER: Duration = Duration::from_secs(60);

/// How long it may take for what moves data: a commit of a large file system, an upload, a removal.
pub(super) const WORK: Duration = Duration::from_secs(15 * 60);

/// The oldest version of the interface that has all that is used here: that of Docker 20.10.
const OLDEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

/// A connection, the words for where it goes, and the count of what goes over it. What a stream needs.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) docker: Docker,
    pub(super) at: Arc<str>,
    pub(super) calls: Arc<Calls>,
}

impl Connection {
    /// Connects, and agrees on a version of the interface.
    pub(super) async fn open(address: &Address, calls: Arc<Calls>) -> Result<Self> {
        let at: Arc<str> = address.to_string().into();
        let docker = connect(address)?;
        let subject = Subject { what: "daemon", name: &at, doing: "to say its version at" };
        calls.count(Call::Version);
        // bounded by the client library's own timeout, which `connect` sets to a long one
        let negotiated = timeout(ANSWER, docker.negotiate_version()).await;
        let docker = negotiated.map_err(|_| no_answer(ANSWER)).and_then(|answer| answer.map_err(fault));
        let docker = docker.map_err(|fault| fault.into_error(&at, subject))?;
        let version = docker.client_version();
        if version < OLDEST {
            return Err(ContainerError::Unsupported(format!(
                "Docker at {at} speaks version {version} of its interface; {OLDEST} is needed (Docker 20.10)"
            )));
        }
        Ok(Self { docker, at, calls })
    }

    /// Makes one call and counts it.
    pub(super) async fn call<T>(
        &self,
        call: Call,
        limit: Duration,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Fault> {
        self.calls.count(call);
        timeout(limit, request).await.map_err(|_| no_answer(limit))?.map_err(fault)
    }

    pub(super) fn error(
        &self,
        fault: Fault,
        what: &'static str,
        name: &str,
        doing: &'static str,
    ) -> ContainerError {
        fault.into_error(&self.at, Subject { what, name, doing })
    }

    /// The client for a stream: its answer must begin in time, and may then last.
    pub(super) fn streaming(&self) -> Docker {
        self.docker.clone().with_timeout(ANSWER)
    }

    pub(super) async fn info(&self) -> Result<SystemInfo> {
        let info = self.call(Call::Info, ANSWER, self.docker.info()).await;
        info.map_err(|fault| self.error(fault, "daemon", &self.at, "to describe itself at"))
    }

    pub(super) async fn inspect(&self, id: &str, size: bool) -> Result<Option<ContainerInspectResponse>> {
        checked("container", id)?;
        let options = InspectContainerOptionsBuilder::default().size(size).build();
        let answer = self.docker.inspect_container(id, Some(options));
        match self.call(Call::InspectContainer, ANSWER, answer).await {
            Ok(found) => Ok(Some(found)),
            Err(fault) if fault.is_not_found() => Ok(None),
            Err(fault) => Err(self.error(fault, "container", id, "to look at the container")),
        }
    }

    pub(super) async fn create(&self, spec: &ContainerSpec) -> Result<String> {
        checked("container", &spec.name)?;
        let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let answer = self.docker.create_container(Some(options), container_body(spec));
        let created = self.call(Call::CreateContainer, WORK, answer).await.map_err(|fault| {
            if fault.says("no such image") {
                return self.error(fault, "image", &spec.image, "to use the image");
            }
            self.error(fault, "container", &spec.name, "to make the container")
        })?;
        match limits::dropped(spec, &created.warnings) {
            None => Ok(created.id),
            Some(words) => {
                self.remove(&created.id).await?;
                Err(ContainerError::Unsupported(words))
            }
        }
    }

    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        checked("container", id)?;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.call(Call::RemoveContainer, WORK, self.docker.remove_container(id, Some(options))).await {
            Ok(()) => Ok(()),
            Err(fault) if fault.is_not_found() => Ok(()),
            // Somebody else removes it: it is gone when they are done, and not before.
            Err(fault) if fault.says("already in progress") => self.wait_removed(id).await,
            Err(fault) => Err(self.error(fault, "container", id, "to remove the container")),
        }
    }

    async fn wait_removed(&self, id: &str) -> Result<()> {
        let options = WaitContainerOptionsBuilder::default().condition("removed").build();
        let mut gone = Box::pin(self.docker.wait_container(id, Some(options)));
        let answer = async { gone.next().await.unwrap_or_else(|| Ok(Default::default())) };
        match self.call(Call::WaitRemoved, WORK, answer).await {
            Ok(_) => Ok(()),
            // The exit status of its process, which is of no interest any more.
            Err(Fault::Other(_)) => Ok(()),
            Err(fault) if fault.is_not_found() => Ok(()),
            Err(fault) => Err(self.error(fault, "container", id, "to remove the container")),
        }
    }

    /// A call that changes the state of a container. An answer that says one of `done` is a success: it is
    /// in that state already.
    pub(super) async fn change(
        &self,
        call: Call,
        limit: Duration,
        (id, doing): (&str, &'static str),
        done: &[&str],
        request: impl Future<Output = Result<(), Error>>,
    ) -> Result<()> {
        checked("container", id)?;
        match self.call(call, limit, request).await {
            Err(fault) if !fault.is_not_found() && done.iter().any(|words| fault.says(words)) => Ok(()),
            other => other.map_err(|fault| self.error(fault, "container", id, doing)),
        }
    }

    /// The networks of the daemon.
    pub(super) async fn networks(&self, labels: &Labels) -> Result<Vec<Network>> {
        let options = ListNetworksOptionsBuilder::default().filters(&filters(labels)).build();
        let listed = self.call(Call::ListNetworks, ANSWER, self.docker.list_networks(Some(options))).await;
        let listed = listed.map_err(|fault| self.error(fault, "network", "*", "to list networks"))?;
        let networks = listed.into_iter().map(|network| Network {
            id: network.id.unwrap_or_default(),
            name: network.name.unwrap_or_default(),
            subnet: first_subnet(network.ipam),
            labels: network.labels.into_iter().flatten().collect(),
        });
        Ok(networks.collect())
    }

    /// Who holds addresses of `subnet`, with what it holds.
    pub(super) async fn holder(&self, subnet: &str) -> Result<Option<String>> {
        let networks = self.networks(&Labels::new()).await?;
        let held = networks.into_iter().filter_map(|network| Some((network.name, network.subnet?)));
        let mut holders = held.filter(|(_, held)| subnet::overlap(subnet, held));
        Ok(holders.next().map(|(name, held)| format!("{name} ({held})")))
    }

    /// The exit status of a program whose output has ended.
    pub(super) async fn exit_status(&self, exec: &str) -> Result<Output> {
        let mut wait = Duration::from_millis(5);
        loop {
            let answer = self.call(Call::InspectExec, ANSWER, self.docker.inspect_exec(exec)).await;
            let state =
                answer.map_err(|fault| self.error(fault, "container", exec, "to tell the exit status of"))?;
            if let (Some(false), Some(code)) = (state.running, state.exit_code) {
                return Ok(Output::Exit(code));
            }
            // The interface has no call that waits for it. A program may also go on after it has closed its
            // output.
            sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(1));
        }
    }

    pub(super) fn output(
        self,
        id: String,
        source: impl Stream<Item = Result<LogOutput, Error>> + Send + 'static,
    ) -> Outputs {
        let translated = source.map(move |item| match item {
            Ok(LogOutput::StdErr { message }) => Ok(Output::Bytes(OutputStream::Stderr, message.to_vec())),
            Ok(other) => Ok(Output::Bytes(OutputStream::Stdout, other.into_bytes().to_vec())),
            Err(error) => {
                Err(self.error(fault(error), "container", &id, "to give the output of the container"))
            }
        });
        translated.boxed()
    }
}

pub(super) type Outputs = BoxStream<'static, Result<Output>>;

/// Makes a client. Only TLS reads anything; only a socket that is not there fails at once.
fn connect(address: &Address) -> Result<Docker> {
    // Every call has its own limit here, and some of them are longer than any default.
    let limit = 24 * 60 * 60;
    let made = match address {
        Address::Unix(path) => Docker::connect_with_unix(&path.to_string_lossy(), limit, API_DEFAULT_VERSION),
        Address::Plain(authority) => {
            Docker::connect_with_http(&format!("tcp://{authority}"), limit, API_DEFAULT_VERSION)
        }
        Address::Ssh(destination) => {
            Docker::connect_with_ssh(&format!("ssh://{destination}"), limit, API_DEFAULT_VERSION, None)
        }
        Address::Tls { authority, certificates } => {
            let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| certificates.join(name));
            // The library takes a certificate that cannot be read for none, and the daemon's refusal would
            // not say why.
            for file in [&ca, &cert, &key] {
                File::open(file).map_err(|error| {
                    ContainerError::Unsupported(format!("TLS to Docker needs {}: {error}", file.display()))
                })?;
            }
            // The library asks for the process's default, and there is none where more than one is linked. One that
            // is there already stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
            Docker::connect_with_ssl(authority, &key, &cert, &ca, limit, API_DEFAULT_VERSION)
        }
    };
    made.map_err(|error| match fault(error) {
        Fault::Away(reason) => ContainerError::Away { at: address.to_string(), reason },
        Fault::Answer(_, reason) | Fault::Other(reason) => {
            ContainerError::Unsupported(format!("Docker cannot be used at {address}: {reason}"))
        }
    })
}

/// What an error of the client library is.
pub(super) fn fault(error: Error) -> Fault {
    match error {
        Error::DockerResponseServerError { status_code, message } => Fault::Answer(status_code, message),
        Error::DockerStreamError { error } => Fault::Other(error),
        Error::RequestTimeoutError => Fault::Away("it did not answer in time".into()),
        Error::SocketNotFoundError(path) => Fault::Away(format!("there is no socket {path}")),
        Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } | Error::IOError { .. } => {
            Fault::Away(with_causes(&error))
        }
        other => Fault::Other(with_causes(&other)),
    }
}

/// An error and what is behind it: the first only says that there was no connection.
fn with_causes(error: &Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !words.contains(&next) {
            words = format!("{words}: {next}");
        }
        cause = error.source();
    }
    words
}

fn no_answer(limit: Duration) -> Fault {
    Fault::Away(format!("it did not answer within {} s", limit.as_secs()))
}

/// A name becomes part of a path: one with other characters would name another thing, or another call.
pub(super) fn checked(what: &'static str, name: &str) -> Result<()> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "_.:/@-".contains(character);
    let steps_up = name.split('/').any(|part| matches!(part, "" | "." | ".."));
    if steps_up || !name.chars().all(is_plain) || (what != "image" && name.contains('/')) {
        return Err(ContainerError::Unsupported(format!("'{name}' cannot be the name of a {what}")));
    }
    Ok(())
}

//! The local socket: one connection a client, many questions in flight on each.
//!
//! The socket is mode 0600 in a directory of mode 0700, and the peer's user is checked as well. A
//! connection begins with a hello of both sides. Each question is answered by a task of its own, and
//! each stream is one; all of them write through one bounded channel, so that a client that does not
//! read holds up nobody but itself.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use interprocess::local_socket::tokio::{Listener, Stream, prelude::*};
use interprocess::local_socket::{GenericFilePath, ListenerOptions};
use orchestrator_protocol::client::HELLO_TIMEOUT;
use orchestrator_protocol::frame::{self, ClientFrame, Decoder, EngineFrame, FrameError};
use orchestrator_protocol::hello::{Hello, Side};
use orchestrator_protocol::service::{Caller, Service};
use orchestrator_protocol::{Error, ErrorCode, socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// How many answers wait for a client that reads slowly, before whoever makes them waits too.
const OUTBOX: usize = 256;

/// Opens the socket. The caller holds the lock of the data directory, so that a socket that is there
/// already belongs to an engine that is gone.
pub fn listen(path: &Path) -> io::Result<Listener> {
    socket::prepare_directory(path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let name = path.to_fs_name::<GenericFilePath>()?;
    // The engine removes it itself, once it has let go of everything else.
    let listener = ListenerOptions::new().name(name).reclaim_name(false).create_tokio()?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until `stop` fires.
pub async fn serve(listener: impl Into<Arc<Listener>>, service: Arc<dyn Service>, stop: CancellationToken) {
    let listener = listener.into();
    let connections = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match stream {
            Ok(stream) => {
                let (service, stop) = (Arc::clone(&service), stop.clone());
                connections.spawn(async move {
                    if let Err(error) = converse(stream, service, stop).await {
                        debug!(%error, "a connection ended");
                    }
                });
            }
            Err(error) => {
                // Too many open files, for example: those who are connected go on.
                warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

#[derive(Debug, thiserror::Error)]
enum ConversationError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("refused: {0}")]
    Refused(Error),
}

async fn converse(
    stream: Stream,
    service: Arc<dyn Service>,
    stop: CancellationToken,
) -> Result<(), ConversationError> {
    let stream = Arc::new(stream);
    let mut decoder = Decoder::default();
    let caller = match admit(&stream, &mut decoder).await {
        Ok(caller) => caller,
        Err(ConversationError::Refused(error)) => {
            send(&stream, &EngineFrame::Refused(error.clone())).await?;
            return Err(ConversationError::Refused(error));
        }
        Err(ConversationError::Frame(error)) => {
            let refusal = Error::new(ErrorCode::Malformed, error.to_string());
            send(&stream, &EngineFrame::Refused(refusal)).await?;
            return Err(error.into());
        }
        Err(error) => return Err(error),
    };
    let (outbox, mut outgoing) = mpsc::channel::<EngineFrame>(OUTBOX);
    let writer = {
        let stream = Arc::clone(&stream);
        tokio::spawn(async move {
            while let Some(frame) = outgoing.recv().await {
                if let Err(error) = send(&stream, &frame).await {
                    debug!(%error, "an answer cannot be sent");
                    break;
                }
            }
        })
    };
    let mut conversation =
        Conversation { service, caller, outbox, streams: HashMap::new(), tasks: TaskTracker::new() };
    let result = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            received = receive::<ClientFrame>(&stream, &mut decoder) => match received {
                Ok(Some(frame)) => conversation.hear(frame).await,
                Ok(None) => break Ok(()),
                Err(ConversationError::Frame(error)) => {
                    let refusal = Error::new(ErrorCode::Malformed, error.to_string());
                    // The client may be gone.
                    let _ = conversation.outbox.send(EngineFrame::Refused(refusal)).await;
                    break Err(error.into());
                }
                Err(error) => break Err(error),
            },
        }
    };
    for stream in conversation.streams.values() {
        stream.cancel();
    }
    conversation.tasks.close();
    if stop.is_cancelled() {
        // Whoever asked the engine to stop still gets the answer.
        conversation.tasks.wait().await;
    }
    drop(conversation);
    if result.is_err() || stop.is_cancelled() {
        let _ = writer.await;
    }
    result
}

/// Checks the peer's user and exchanges hellos.
async fn admit(stream: &Stream, decoder: &mut Decoder) -> Result<Caller, ConversationError> {
    let peer = stream.peer_creds()?;
    let ours = socket::user_id();
    if peer.euid().is_none_or(|user| user != ours && user != 0) {
        let error = Error::new(ErrorCode::Forbidden, "the socket serves its own user only");
        return Err(ConversationError::Refused(error));
    }
    let hello = tokio::time::timeout(HELLO_TIMEOUT, receive::<ClientFrame>(stream, decoder))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let Some(ClientFrame::Hello(theirs)) = hello else {
        let error = Error::new(ErrorCode::Malformed, "the first frame must be a hello");
        return Err(ConversationError::Refused(error));
    };
    Hello::ours().check(Side::Engine, &theirs).map_err(ConversationError::Refused)?;
    send(stream, &EngineFrame::Hello(Hello::ours())).await?;
    Ok(Caller::Local { pid: peer.pid().and_then(|pid| u32::try_from(pid).ok()) })
}

async fn send(mut stream: &Stream, frame: &EngineFrame) -> Result<(), ConversationError> {
    let bytes = match (frame::encode(frame), frame) {
        (Ok(bytes), _) => bytes,
        (Err(error), EngineFrame::Reply { id, .. }) => {
            let result =
                Err(Error::new(ErrorCode::TooLarge, error.to_string()).with_help("ask for fewer at once"));
            frame::encode(&EngineFrame::Reply { id: *id, result })?
        }
        (Err(error), _) => return Err(error.into()),
    };
    Ok(stream.write_all(&bytes).await?)
}

/// The next frame; `None` when the other side has closed the connection.
async fn receive<T: serde::de::DeserializeOwned>(
    mut stream: &Stream,
    decoder: &mut Decoder,
) -> Result<Option<T>, ConversationError> {
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return Ok(Some(frame));
        }
        match stream.read(&mut buffer).await? {
            0 if decoder.is_mid_frame() => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            0 => return Ok(None),
            read => decoder.push(&buffer[..read]),
        }
    }
}

/// One client.
struct Conversation {
    service: Arc<dyn Service>,
    caller: Caller,
    outbox: mpsc::Sender<EngineFrame>,
    streams: HashMap<u64, CancellationToken>,
    tasks: TaskTracker,
}

impl Conversation {
    async fn hear(&mut self, frame: ClientFrame) {
        let (service, caller, outbox) = (Arc::clone(&self.service), self.caller.clone(), self.outbox.clone());
        match frame {
            ClientFrame::Hello(_) => {}
            ClientFrame::Call { id, request } => {
                self.tasks.spawn(async move {
                    let result = service.call(&caller, *request).await.map(Box::new);
                    // The client may be gone: what it asked for has happened all the same.
                    let _ = outbox.send(EngineFrame::Reply { id, result }).await;
                });
            }
            ClientFrame::Subscribe { id, subscription } => {
                self.streams.retain(|_, token| !token.is_cancelled());
                let token = CancellationToken::new();
                self.streams.insert(id, token.clone());
                self.tasks.spawn(async move {
                    let _ended = token.clone().drop_guard();
                    let answer = async {
                        let mut items = service.subscribe(&caller, subscription).await?;
                        while let Some(item) = items.next().await {
                            if outbox.send(EngineFrame::Item { id, item: item? }).await.is_err() {
                                break;
                            }
                        }
                        Ok(())
                    };
                    let result: Result<(), Error> = tokio::select! {
                        () = token.cancelled() => return,
                        result = answer => result,
                    };
                    let _ = outbox.send(EngineFrame::End { id, error: result.err() }).await;
                });
            }
            ClientFrame::Unsubscribe { id } => {
                if let Some(token) = self.streams.remove(&id) {
                    token.cancel();
                }
            }
        }
    }
}

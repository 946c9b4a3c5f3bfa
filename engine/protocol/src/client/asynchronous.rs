//! A client with many questions in flight over one connection.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interprocess::local_socket::tokio::{Stream, prelude::*};
use interprocess::local_socket::{ConnectOptions, GenericFilePath};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::start::{self, StartError, StartOptions};
use super::{ClientError, HELLO_TIMEOUT, stopped};
use crate::error::Result as EngineResult;
use crate::event::Item;
use crate::frame::{self, ClientFrame, Decoder, EngineFrame};
use crate::hello::{Hello, Side};
use crate::request::{Call, Response, Subscription, UnexpectedResponse};

/// How many items of a stream wait for a slow reader before the connection waits for it too.
const STREAM_BUFFER: usize = 256;

#[derive(Default)]
struct Waiting {
    calls: HashMap<u64, oneshot::Sender<EngineResult<Box<Response>>>>,
    streams: HashMap<u64, mpsc::Sender<EngineResult<Item>>>,
    closed: bool,
}

fn locked(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that many tasks may use at once. Dropping it closes the connection.
pub struct AsyncClient {
    stream: Arc<Stream>,
    /// Held while a frame is written, so that frames do not mix.
    writing: tokio::sync::Mutex<()>,
    delivery: AbortHandle,
    waiting: Arc<Mutex<Waiting>>,
    next_id: AtomicU64,
}

impl AsyncClient {
    /// Connects to the engine behind a socket.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let name = socket.to_fs_name::<GenericFilePath>().map_err(ClientError::Broken)?;
        let stream: Stream =
            ConnectOptions::new().name(name).connect_tokio().await.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning { socket: socket.to_owned() }
                }
                _ => ClientError::Broken(error),
            })?;
        let mut decoder = Decoder::default();
        send(&stream, &ClientFrame::Hello(Hello::ours())).await?;
        let hello = tokio::time::timeout(HELLO_TIMEOUT, receive(&stream, &mut decoder))
            .await
            .map_err(|_| ClientError::TimedOut { waited: HELLO_TIMEOUT })??;
        match hello {
            EngineFrame::Hello(hello) => Hello::ours().check(Side::Client, &hello)?,
            EngineFrame::Refused(error) => return Err(error.into()),
            _ => return Err(UnexpectedResponse.into()),
        }
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let stream = Arc::new(stream);
        let delivery =
            tokio::spawn(deliver(Arc::clone(&stream), decoder, Arc::clone(&waiting))).abort_handle();
        let writing = tokio::sync::Mutex::new(());
        Ok(Self { stream, writing, delivery, waiting, next_id: AtomicU64::new(1) })
    }

    /// Connects to the engine behind a socket, and starts one first if there is none. Also says whether
    /// this call has started it.
    pub async fn connect_or_start(socket: &Path, options: StartOptions) -> Result<(Self, bool), StartError> {
        let path = socket.to_owned();
        let started = tokio::task::spawn_blocking(move || {
            start::connect_or_start(&path, Some(options.patience), &options).map(|(_, started)| started)
        })
        .await
        .map_err(|error| ClientError::Broken(io::Error::other(error)))??;
        Ok((Self::connect(socket).await?, started))
    }

    /// Asks a question.
    pub async fn call<C: Call>(&self, call: C) -> Result<C::Reply, ClientError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.register(|waiting| {
            waiting.calls.insert(id, answer);
        })?;
        self.send(&ClientFrame::Call { id, request: Box::new(call.into()) }).await?;
        let response = answered.await.map_err(|_| broken())??;
        Ok(C::reply(*response)?)
    }

    /// Asks a question with many answers. The channel closes at the end; dropping it ends the stream.
    pub async fn subscribe(
        &self,
        subscription: Subscription,
    ) -> Result<mpsc::Receiver<EngineResult<Item>>, ClientError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (items, received) = mpsc::channel(STREAM_BUFFER);
        self.register(|waiting| {
            waiting.streams.insert(id, items);
        })?;
        self.send(&ClientFrame::Subscribe { id, subscription }).await?;
        Ok(received)
    }

    async fn send(&self, frame: &ClientFrame) -> Result<(), ClientError> {
        let _writing = self.writing.lock().await;
        send(&self.stream, frame).await
    }

    fn register(&self, insert: impl FnOnce(&mut Waiting)) -> Result<(), ClientError> {
        let mut waiting = locked(&self.waiting);
        if waiting.closed {
            return Err(broken());
        }
        insert(&mut waiting);
        Ok(())
    }
}

impl Drop for AsyncClient {
    fn drop(&mut self) {
        self.delivery.abort();
    }
}

fn broken() -> ClientError {
    ClientError::Broken(io::ErrorKind::BrokenPipe.into())
}

async fn send(mut stream: &Stream, frame: &ClientFrame) -> Result<(), ClientError> {
    let bytes = frame::encode(frame)?;
    stream.write_all(&bytes).await.map_err(ClientError::Broken)
}

async fn receive(mut stream: &Stream, decoder: &mut Decoder) -> Result<EngineFrame, ClientError> {
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return Ok(frame);
        }
        match stream.read(&mut buffer).await.map_err(ClientError::Broken)? {
            0 => return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into())),
            read => decoder.push(&buffer[..read]),
        }
    }
}

/// Hands every frame to whoever waits for it, until the connection ends; then nobody waits any more.
async fn deliver(stream: Arc<Stream>, mut decoder: Decoder, waiting: Arc<Mutex<Waiting>>) {
    while let Ok(frame) = receive(&stream, &mut decoder).await {
        match frame {
            EngineFrame::Reply { id, result } => {
                if let Some(answer) = locked(&waiting).calls.remove(&id) {
                    // Whoever asked may have gone.
                    let _ = answer.send(result);
                }
            }
            EngineFrame::Item { id, item } => {
                let stream = locked(&waiting).streams.get(&id).cloned();
                if let Some(stream) = stream
                    && stream.send(Ok(item)).await.is_err()
                {
                    locked(&waiting).streams.remove(&id);
                }
            }
            EngineFrame::End { id, error } => {
                let stream = locked(&waiting).streams.remove(&id);
                if let (Some(stream), Some(error)) = (stream, error) {
                    let _ = stream.send(Err(error)).await;
                }
            }
            EngineFrame::Hello(_) | EngineFrame::Refused(_) => break,
        }
    }
    let streams: Vec<_> = {
        let mut waiting = locked(&waiting);
        waiting.closed = true;
        waiting.calls.clear();
        waiting.streams.drain().map(|(_, stream)| stream).collect()
    };
    for stream in streams {
        let _ = stream.send(Err(stopped())).await;
    }
}

//! HTTP as it is on the wire. Tests of what goes wrong need a client that can be cut off anywhere, that
//! sends what no library would send, and that reads slowly.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use orchestrator_tests::wait;
use serde_json::Value;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// Reads one to its end.
    pub fn read(stream: impl BufRead) -> Self {
        let (status, headers, mut body) = begin(stream);
        let mut text = String::new();
        body.read_to_string(&mut text).unwrap();
        Self { status, headers, body: text }
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    /// The body, which must be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A connection to an engine.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        stream.set_write_timeout(Some(wait::PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// The socket beneath.
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Sends bytes as they are.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        self.socket().write_all(bytes.as_ref()).unwrap();
    }

    /// The whole answer.
    pub fn answer(self) -> Answer {
        Answer::read(self.stream)
    }

    /// What comes, to be read.
    pub fn into_stream(self) -> BufReader<TcpStream> {
        self.stream
    }
}

/// Sends the same bytes again and again, as long as they are taken. How often they were.
pub fn write_while_taken(mut socket: &TcpStream, bytes: &[u8], times: usize) -> usize {
    for time in 0..times {
        match socket.write_all(bytes) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                return time;
            }
            Err(error) => panic!("{error}"),
        }
    }
    times
}

/// Reads the status and the headers of an answer; its body can then be read as it comes.
pub fn begin<S: BufRead>(mut stream: S) -> (u16, Vec<(String, String)>, Body<S>) {
    let status = line(&mut stream);
    let status = status.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: '{status}'")).parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let header = line(&mut stream);
        let Some((name, value)) = header.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let value = |name: &str| headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str());
    let left = match (value("content-length"), value("transfer-encoding")) {
        (Some(length), _) => Left::Bytes(length.parse().unwrap()),
        (None, Some(_)) => Left::Chunks,
        (None, None) => Left::Bytes(0),
    };
    (status, headers, Body { stream, left, in_chunk: 0 })
}

/// A line without its end.
fn line(stream: &mut impl BufRead) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

enum Left {
    Bytes(u64),
    Chunks,
}

/// The body of an answer, without its chunks' frames.
pub struct Body<S> {
    stream: S,
    left: Left,
    in_chunk: u64,
}

impl<S: BufRead> Read for Body<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.left {
            Left::Bytes(left) => {
                let read = Read::by_ref(&mut self.stream).take(*left).read(buffer)?;
                *left -= read as u64;
                Ok(read)
            }
            Left::Chunks => {
                if self.in_chunk == 0 {
                    let mut size = String::new();
                    self.stream.read_line(&mut size)?;
                    if size.is_empty() {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    self.in_chunk =
                        u64::from_str_radix(size.trim_end(), 16).map_err(std::io::Error::other)?;
                    if self.in_chunk == 0 {
                        self.left = Left::Bytes(0);
                        return Ok(0);
                    }
                }
                let read = Read::by_ref(&mut self.stream).take(self.in_chunk).read(buffer)?;
                self.in_chunk -= read as u64;
                if self.in_chunk == 0 {
                    self.stream.read_line(&mut String::new())?;
                }
                Ok(read)
            }
        }
    }
}

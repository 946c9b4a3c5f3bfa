//! Bytes on the socket: frames with a length before them, MessagePack inside.
//!
//! The codec is pure: [`encode`] makes bytes, a [`Decoder`] is given whatever was read and hands out
//! what is complete. Blocking and asynchronous connections put the same thin loop around it. A frame
//! larger than [`MAX_FRAME_BYTES`] is refused from its length alone, before any memory is taken.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::event::Item;
use crate::hello::Hello;
use crate::request::{Request, Response, Subscription};

/// The largest frame, in bytes, without its length.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

const HEAD_BYTES: usize = 4;

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientFrame {
    /// The first frame.
    Hello(Hello),
    /// A question.
    Call {
        /// Chosen by the client; comes back with the answer.
        id: u64,
        /// The question.
        request: Box<Request>,
    },
    /// A question with many answers.
    Subscribe {
        /// Chosen by the client; comes back with each answer.
        id: u64,
        /// The question.
        subscription: Subscription,
    },
    /// The client no longer listens to a stream.
    Unsubscribe {
        /// The stream.
        id: u64,
    },
}

/// What an engine sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineFrame {
    /// The first frame.
    Hello(Hello),
    /// The connection is refused, and closed after this.
    Refused(Error),
    /// The answer to a question.
    Reply {
        /// The question's.
        id: u64,
        /// The answer.
        result: Result<Box<Response>>,
    },
    /// One of many answers.
    Item {
        /// The stream's.
        id: u64,
        /// The answer.
        item: Item,
    },
    /// A stream has ended.
    End {
        /// The stream's.
        id: u64,
        /// Why, unless it came to its end.
        error: Option<Error>,
    },
}

/// A frame that cannot be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME_BYTES`].
    #[error("a frame of {bytes} bytes is larger than the {MAX_FRAME_BYTES} bytes that are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Its content is not what was expected.
    #[error("a frame cannot be read")]
    Unreadable(#[source] rmp_serde::decode::Error),
    /// A value cannot be encoded.
    #[error("a frame cannot be written")]
    Unwritable(#[source] rmp_serde::encode::Error),
}

/// The bytes of a frame, with its length before it.
pub fn encode<T: Serialize>(frame: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; HEAD_BYTES];
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    frame.serialize(&mut serializer).map_err(FrameError::Unwritable)?;
    let length = bytes.len() - HEAD_BYTES;
    if length > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge { bytes: length });
    }
    let head = u32::try_from(length).map_err(|_| FrameError::TooLarge { bytes: length })?;
    bytes[..HEAD_BYTES].copy_from_slice(&head.to_be_bytes());
    Ok(bytes)
}

/// Puts together what was read, in pieces of any size, and hands out whole frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    consumed: usize,
}

impl Decoder {
    /// Takes in bytes as they were read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.consumed > 0 && self.consumed >= self.buffer.len() / 2 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` until more has been read.
    ///
    /// # Errors
    /// After an error the connection cannot be used any more: where the next frame starts is unknown.
    pub fn next_frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let rest = &self.buffer[self.consumed..];
        let Some((head, body)) = rest.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge { bytes: length });
        }
        let Some(body) = body.get(..length) else { return Ok(None) };
        let frame = rmp_serde::from_slice(body).map_err(FrameError::Unreadable)?;
        self.consumed += HEAD_BYTES + length;
        Ok(Some(frame))
    }

    /// Whether a frame has begun and not ended.
    pub fn is_mid_frame(&self) -> bool {
        self.consumed < self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;
    use crate::request::GetStatus;

    fn call(id: u64) -> ClientFrame {
        ClientFrame::Call { id, request: Box::new(GetStatus {}.into()) }
    }

    #[test]
    fn a_huge_frame_is_refused_by_its_length_alone() {
        let mut decoder = Decoder::default();
        decoder.push(&(1_u32 << 30).to_be_bytes());
        let refused = decoder.next_frame::<ClientFrame>();
        assert!(matches!(refused, Err(FrameError::TooLarge { bytes }) if bytes == 1 << 30));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(ids in prop::collection::vec(any::<u64>(), 1..20), cut in 1_usize..40) {
            let bytes: Vec<u8> = ids.iter().flat_map(|id| encode(&call(*id)).unwrap()).collect();
            let mut decoder = Decoder::default();
            let mut read = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame::<ClientFrame>().unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, ids.iter().map(|id| call(*id)).collect::<Vec<_>>());
            prop_assert!(!decoder.is_mid_frame());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame::<ClientFrame>() {}
        }
    }
}

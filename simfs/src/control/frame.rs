//! Messages as bytes: one JSON value in a length-prefixed, versioned frame.
//!
//! ```text
//! 0        4        5
//! | length | version | JSON (length - 1 bytes) |
//! ```
//! `length` is little-endian and counts the version byte. Invariants:
//! 1. No bytes whatever make the reader panic, or allocate more than what really arrived.
//! 2. A frame never exceeds [`MAX_REPLY`], one that a daemon accepts never [`MAX_REQUEST`].

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The version of the messages that this program speaks.
pub const VERSION: u8 = 1;
/// Most bytes after the length of a request.
pub const MAX_REQUEST: u32 = 64 * 1024;
/// Most bytes after the length of a reply.
pub const MAX_REPLY: u32 = 16 * 1024 * 1024;

/// Why a frame could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than the bound.
    #[error("a message of {length} bytes is longer than the {max} allowed")]
    TooLong {
        /// What the frame says.
        length: u64,
        /// What is accepted.
        max: u32,
    },
    /// Spoken by another version of the program.
    #[error("version {found} of the control protocol is not understood, only {VERSION}")]
    Version {
        /// What the frame says.
        found: u8,
    },
    /// Not JSON, or not a message.
    #[error("not a message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The other side went away in the middle of a frame.
    #[error("the connection ended in the middle of a message")]
    Truncated,
    /// The socket failed or timed out.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
}

/// The frame that holds `message`.
///
/// # Errors
/// `TooLong` above `max`.
pub fn encode<T: Serialize>(message: &T, max: u32) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0, 0, 0, 0, VERSION];
    serde_json::to_writer(&mut frame, message)?;
    let body = frame.len().saturating_sub(4);
    let length = u32::try_from(body)
        .ok()
        .filter(|length| *length <= max)
        .ok_or_else(|| FrameError::TooLong {
            length: u64::try_from(body).unwrap_or(u64::MAX),
            max,
        })?;
    if let Some(prefix) = frame.first_chunk_mut::<4>() {
        *prefix = length.to_le_bytes();
    }
    Ok(frame)
}

/// Writes one frame.
///
/// # Errors
/// `TooLong` above `max`, `Io` when the other side is gone.
pub fn write<T: Serialize>(to: &mut impl Write, message: &T, max: u32) -> Result<(), FrameError> {
    let frame = encode(message, max)?;
    to.write_all(&frame)?;
    Ok(to.flush()?)
}

/// Reads one frame; `None` when the other side closed the connection between two.
///
/// # Errors
/// Every [`FrameError`]; after one, the connection is of no more use.
pub fn read<T: DeserializeOwned>(from: &mut impl Read, max: u32) -> Result<Option<T>, FrameError> {
    let mut prefix = Vec::with_capacity(4);
    from.by_ref().take(4).read_to_end(&mut prefix)?;
    let Ok(prefix) = <[u8; 4]>::try_from(prefix.as_slice()) else {
        return if prefix.is_empty() {
            Ok(None)
        } else {
            Err(FrameError::Truncated)
        };
    };
    let length = u32::from_le_bytes(prefix);
    if length > max {
        return Err(FrameError::TooLong {
            length: u64::from(length),
            max,
        });
    }
    let mut body = Vec::new();
    let got = from
        .by_ref()
        .take(u64::from(length))
        .read_to_end(&mut body)?;
    if u32::try_from(got).ok() != Some(length) {
        return Err(FrameError::Truncated);
    }
    match body.split_first() {
        Some((&VERSION, json)) => Ok(Some(serde_json::from_slice(json)?)),
        Some((&found, _)) => Err(FrameError::Version { found }),
        None => Err(FrameError::Truncated),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::control::protocol::{Reply, Request};

    fn framed(version: u8, json: &[u8]) -> Vec<u8> {
        let length = u32::try_from(json.len() + 1).unwrap().to_le_bytes();
        [&length, &[version][..], json].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        write(&mut bytes, &Request::Check { repair: true }, MAX_REQUEST).unwrap();
        write(&mut bytes, &Request::Status, MAX_REQUEST).unwrap();
        let mut from = bytes.as_slice();
        let mut next = || read::<Request>(&mut from, MAX_REQUEST).unwrap();
        assert_eq!(next(), Some(Request::Check { repair: true }));
        assert_eq!(next(), Some(Request::Status));
        assert_eq!(next(), None);
    }

    #[test]
    fn bounds_versions_and_ends_are_checked() {
        let read = |bytes: &[u8]| read::<Request>(&mut { bytes }, MAX_REQUEST).unwrap_err();
        assert!(matches!(read(&[1, 0]), FrameError::Truncated));
        assert!(matches!(
            read(&[9, 0, 0, 0, 1, b'"']),
            FrameError::Truncated
        ));
        assert!(matches!(read(&[0; 4]), FrameError::Truncated));
        assert!(matches!(read(&[0xff; 4]), FrameError::TooLong { .. }));
        assert!(matches!(
            read(&framed(2, b"{}")),
            FrameError::Version { found: 2 }
        ));
        assert!(matches!(
            read(&framed(1, b"\"nonsense\"")),
            FrameError::Malformed(_)
        ));
        let long = "x".repeat(usize::try_from(MAX_REQUEST).unwrap());
        assert!(matches!(
            encode(&long, MAX_REQUEST),
            Err(FrameError::TooLong { .. })
        ));
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let deep = vec![b'['; 60_000];
        let error = read::<Reply>(&mut framed(1, &deep).as_slice(), MAX_REPLY).unwrap_err();
        assert!(matches!(error, FrameError::Malformed(_)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _any = read::<Request>(&mut bytes.as_slice(), MAX_REQUEST);
            let _any = read::<Reply>(&mut framed(1, &bytes).as_slice(), MAX_REPLY);
        }
    }
}

//! What the store's bytes mean: keys, and values with a format number and a checksum.
//!
//! Every value is framed the same way (numbers little-endian):
//! ```text
//! 0        1                    len-4      len
//! +--------+---------------------+----------+
//! | format | payload             | CRC-32   |
//! +--------+---------------------+----------+
//! ```
//! The checksum covers the key, then the format byte, then the payload: a value that turns up under another key
//! is found out. The last four bytes are the checksum in every format to come.
//!
//! Invariants:
//! 1. `decode(key, encode(key, record)) == record`.
//! 2. No input makes `decode` panic; a single flipped bit is always reported.
//! 3. A format number higher than known is [`RecordError::NewerFormat`], never guessed at.

use super::StoreError;

mod account;
mod bytes;
mod info;
pub mod key;
mod schema;
mod standing;

pub use account::AccountRecord;
pub use bytes::{Reader, Writer};
pub use info::InfoRecord;
pub use schema::SchemaRecord;
pub(super) use schema::schema_batch;

/// Bytes of the checksum at the end.
const CRC_LEN: usize = 4;

/// A value of the store.
pub trait Record: Sized {
    /// The format number that is written; all from 1 to this can be read.
    const FORMAT: u8;

    /// Writes the payload.
    fn write(&self, out: &mut Writer);

    /// Reads a payload of this format.
    ///
    /// # Errors
    /// [`RecordError`] when the bytes are not a payload.
    fn read(format: u8, input: &mut Reader<'_>) -> Result<Self, RecordError>;
}

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Fewer or more bytes than the format has.
    #[error("wrong length of {len} bytes")]
    Length {
        /// Bytes found.
        len: usize,
    },
    /// The checksum does not match key and value.
    #[error("checksum does not match")]
    Checksum,
    /// A later release wrote this.
    #[error("format {found} is newer than {known}")]
    NewerFormat {
        /// Format number in the value.
        found: u8,
        /// Highest that can be read.
        known: u8,
    },
    /// The checksum is right, but a field has a value that is never written.
    #[error("field {field} has an impossible value")]
    Field {
        /// Its name.
        field: &'static str,
    },
}

impl RecordError {
    /// The store's error for a bad value of this key.
    pub fn at(self, key: &[u8]) -> StoreError {
        match self {
            Self::NewerFormat { found, known } => StoreError::NewerFormat { found, known },
            other => StoreError::damaged_key(other.to_string(), key),
        }
    }
}

/// The value's bytes for this key.
pub fn encode<T: Record>(key: &[u8], record: &T) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(T::FORMAT);
    record.write(&mut out);
    let mut bytes = out.into_bytes();
    bytes.extend_from_slice(&checksum(key, &bytes).to_le_bytes());
    bytes
}

/// The record in a value of this key.
///
/// # Errors
/// [`RecordError`], also for a right value under a wrong key.
pub fn decode<T: Record>(key: &[u8], value: &[u8]) -> Result<T, RecordError> {
    let (format, payload) = open(key, value)?;
    if format > T::FORMAT {
        return Err(RecordError::NewerFormat {
            found: format,
            known: T::FORMAT,
        });
    }
    if format == 0 {
        return Err(RecordError::Field { field: "format" });
    }
    let mut input = Reader::new(payload);
    let record = T::read(format, &mut input)?;
    input.finish()?;
    Ok(record)
}

/// Checks the frame of a value of any kind, format and payload aside.
///
/// # Errors
/// [`RecordError::Length`], [`RecordError::Checksum`].
pub fn check(key: &[u8], value: &[u8]) -> Result<(), RecordError> {
    open(key, value).map(|_| ())
}

/// Format and payload of a value whose checksum is right.
fn open<'a>(key: &[u8], value: &'a [u8]) -> Result<(u8, &'a [u8]), RecordError> {
    let short = RecordError::Length { len: value.len() };
    let (body, crc) = value.split_last_chunk::<CRC_LEN>().ok_or(short.clone())?;
    if u32::from_le_bytes(*crc) != checksum(key, body) {
        return Err(RecordError::Checksum);
    }
    let (&format, payload) = body.split_first().ok_or(short)?;
    Ok((format, payload))
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

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

use crate::account::Refusals;
use crate::grace::{Deadlines, GracePeriod, GracePeriods, Timestamp};
use crate::limit::{Limit, Limits};
use crate::subject::VeId;
use crate::units::{Bytes, Inodes};
use crate::usage::Usage;

use super::StoreError;

mod bytes;
pub mod key;

pub use bytes::{Reader, Writer};

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
        return Err(RecordError::NewerFormat { found: format, known: T::FORMAT });
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

/// What is stored of one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountRecord {
    /// What it holds.
    pub usage: Usage,
    /// The most it ever held, per resource.
    pub peak: Usage,
    /// How often it refused, per resource.
    pub refused: Refusals,
    /// Its limits.
    pub limits: Limits,
    /// Its running deadlines.
    pub deadlines: Deadlines,
}

/// Payload of an account; a limit or deadline whose flag is clear is absent and stored as zero.
/// ```text
///  0  usage.space     u64 |  8  usage.inodes    u64
/// 16  peak.space      u64 | 24  peak.inodes     u64
/// 32  refused.space   u64 | 40  refused.inodes  u64
/// 48  flags u8: bit 0 space soft, 1 space hard, 2 inodes soft, 3 inodes hard, 4 deadline space, 5 inodes
/// 49  space soft      u64 | 57  space hard      u64
/// 65  inodes soft     u64 | 73  inodes hard     u64
/// 81  deadline space  i64 | 89  deadline inodes i64      97 in all
/// ```
impl Record for AccountRecord {
    const FORMAT: u8 = 1;

    fn write(&self, out: &mut Writer) {
        put_usage(out, self.usage);
        put_usage(out, self.peak);
        out.u64(self.refused.space);
        out.u64(self.refused.inodes);
        let limits = [
            self.limits.space.soft.map(Bytes::get),
            self.limits.space.hard.map(Bytes::get),
            self.limits.inodes.soft.map(Inodes::get),
            self.limits.inodes.hard.map(Inodes::get),
        ];
        let deadlines = [self.deadlines.space, self.deadlines.inodes];
        let present = limits.iter().map(Option::is_some).chain(deadlines.iter().map(Option::is_some));
        out.u8(present.enumerate().fold(0, |flags, (bit, set)| flags | (u8::from(set) << bit)));
        limits.iter().for_each(|limit| out.u64(limit.unwrap_or(0)));
        deadlines.iter().for_each(|deadline| out.i64(deadline.map_or(0, Timestamp::get)));
    }

    fn read(_format: u8, input: &mut Reader<'_>) -> Result<Self, RecordError> {
        let usage = take_usage(input)?;
        let peak = take_usage(input)?;
        let refused = Refusals { space: input.u64()?, inodes: input.u64()? };
        let flags = input.u8()?;
        if flags >= 1 << 6 {
            return Err(RecordError::Field { field: "flags" });
        }
        let has = |bit: u8| flags & (1 << bit) != 0;
        let mut limit = |bit| input.u64().map(|value| has(bit).then_some(value));
        let (space, inodes) = ((limit(0)?, limit(1)?), (limit(2)?, limit(3)?));
        let mut deadline = |bit| input.i64().map(|at| has(bit).then_some(Timestamp::new(at)));
        let deadlines = Deadlines { space: deadline(4)?, inodes: deadline(5)? };
        let limits = Limits {
            space: Limit::new(space.0.map(Bytes::new), space.1.map(Bytes::new)),
            inodes: Limit::new(inodes.0.map(Inodes::new), inodes.1.map(Inodes::new)),
        };
        Ok(Self { usage, peak, refused, limits, deadlines })
    }
}

/// What is stored of the VE besides its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoRecord {
    /// Whose store it is.
    pub ve: VeId,
    /// The private area, as `vzquota init` was given it.
    pub private: String,
    /// Grace periods of the VE, of users, of groups.
    pub grace: [GracePeriods; 3],
    /// Whether limits of the VE, of users, of groups are enforced.
    pub enforced: [bool; 3],
    /// How many user and group ids the administrator expects; kept, not enforced.
    pub ugid_limit: u32,
    /// Grows with each commit; joins the totals and the journal.
    pub epoch: u64,
    /// When the record was first written.
    pub created: Timestamp,
}

/// Payload of the info record.
/// ```text
///  0  ve u32 |  4  ugid_limit u32 |  8  epoch u64 | 16  created i64
/// 24  grace: VE space, VE inodes, users space, users inodes, groups space, groups inodes, 6 x u64
/// 72  enforced u8: bit 0 VE, 1 users, 2 groups
/// 73  private, UTF-8, to the end
/// ```
impl Record for InfoRecord {
    const FORMAT: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u32(self.ve.get());
        out.u32(self.ugid_limit);
        out.u64(self.epoch);
        out.i64(self.created.get());
        for periods in &self.grace {
            out.u64(periods.space.get());
            out.u64(periods.inodes.get());
        }
        let [ve, users, groups] = self.enforced.map(u8::from);
        out.u8(ve | users << 1 | groups << 2);
        out.raw(self.private.as_bytes());
    }

    fn read(_format: u8, input: &mut Reader<'_>) -> Result<Self, RecordError> {
        let ve = VeId::new(input.u32()?);
        let ugid_limit = input.u32()?;
        let epoch = input.u64()?;
        let created = Timestamp::new(input.i64()?);
        let mut periods = || -> Result<GracePeriods, RecordError> {
            let space = GracePeriod::new(input.u64()?);
            Ok(GracePeriods { space, inodes: GracePeriod::new(input.u64()?) })
        };
        let grace = [periods()?, periods()?, periods()?];
        let flags = input.u8()?;
        if flags >= 1 << 3 {
            return Err(RecordError::Field { field: "enforced" });
        }
        let enforced = [0, 1, 2].map(|bit| flags & (1 << bit) != 0);
        let private = String::from_utf8(input.rest().to_vec())
            .map_err(|_| RecordError::Field { field: "private" })?;
        Ok(Self { ve, private, grace, enforced, ugid_limit, epoch, created })
    }
}

/// Names the store itself: written when it is made, never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaRecord {
    /// Whose store it is.
    pub ve: VeId,
}

/// The first bytes of a schema record.
const SCHEMA_MAGIC: u64 = u64::from_le_bytes(*b"simfs-db");

/// Payload of the schema record.
/// ```text
///  0  magic "simfs-db" |  8  ve u32
/// ```
impl Record for SchemaRecord {
    const FORMAT: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u64(SCHEMA_MAGIC);
        out.u32(self.ve.get());
    }

    fn read(_format: u8, input: &mut Reader<'_>) -> Result<Self, RecordError> {
        if input.u64()? != SCHEMA_MAGIC {
            return Err(RecordError::Field { field: "magic" });
        }
        Ok(Self { ve: VeId::new(input.u32()?) })
    }
}

fn put_usage(out: &mut Writer, usage: Usage) {
    out.u64(usage.space.get());
    out.u64(usage.inodes.get());
}

fn take_usage(input: &mut Reader<'_>) -> Result<Usage, RecordError> {
    let space = Bytes::new(input.u64()?);
    Ok(Usage::new(space, Inodes::new(input.u64()?)))
}

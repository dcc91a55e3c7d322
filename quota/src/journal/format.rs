//! The bytes of a journal file. Little-endian; every part carries a CRC-32 in its last four bytes.               (pure)
//! ```text
//! 0      header, 4096: magic u64 | format u32 | VE u32 | session u64 | chunks u32 | state u32 | boot id, 64 | zeros | CRC
//! 4096   64 intents of 512: tag u8 | handle length u8 | name length u16 | handle type i32 | inode u64 | handle, 40
//!                           | number u64 | name, 255 | zeros | CRC
//! 36864  chunks of 512 records of 128: tag u8 | exists u8 | handle length u8 | 0 | handle type i32 | inode u64
//!                           | handle, 40 | uid u32 | gid u32 | space u64 | inodes u64 | epoch u64 | ends u64 | zeros | CRC
//! ```
//! The tag is 1 where something is written and 2 where the place is free; the rest of a free place is zeros, CRC apart. The
//! CRC of an intent or a record covers its place in the file, too. So zeros are damage, and so is what belongs elsewhere.
//!
//! An intent counts until its place is marked free, or a record, of whatever epoch, ends the intent with this number; 0 ends
//! none.
//!
//! Format 1 had zeros for free places: what was overwritten by zeros was lost in silence. Format 2 had no numbers: each
//! place of an intent was marked free, with a write of its own.

use crate::inode::{Charged, InodeId};
use crate::subject::{Owner, VeId};
use crate::units::{Bytes, Inodes};
use crate::usage::Usage;

use super::{Epoch, Identity};

/// Bytes of the header.
pub(super) const HEADER: usize = 4096;
/// Bytes of an intent.
pub(super) const INTENT: usize = 512;
/// How many operations can be in flight.
pub(super) const INTENTS: usize = 64;
/// Bytes of a record.
pub(super) const RECORD: usize = 128;
/// Records of a chunk, by which the file grows.
pub(super) const CHUNK_RECORDS: usize = 512;
/// Bytes of a chunk.
pub(super) const CHUNK: usize = RECORD * CHUNK_RECORDS;
/// Longest name, as NAME_MAX.
const NAME_MAX: usize = 255;
/// Longest boot id that is told apart.
const BOOT_MAX: usize = 64;

const MAGIC: u64 = u64::from_le_bytes(*b"simfs-jn");
const FORMAT: u32 = 3;

/// First byte of a place where something is written.
const USED: u8 = 1;
/// First byte of a free place.
const FREE: u8 = 2;

/// Where the place of a name starts.
pub(super) fn intent_start(slot: usize) -> u64 {
    offset(HEADER + slot * INTENT)
}

/// Where a chunk starts.
pub(super) fn chunk_start(chunk: u32) -> u64 {
    intent_start(INTENTS).saturating_add(u64::from(chunk).saturating_mul(offset(CHUNK)))
}

/// Where the place of a record starts.
pub(super) fn record_start(chunk: u32, record: usize) -> u64 {
    chunk_start(chunk).saturating_add(offset(record * RECORD))
}

fn offset(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Why bytes are not a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled(pub(super) &'static str);

/// The header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) identity: Identity,
    pub(super) chunks: u32,
    pub(super) sound: bool,
}

/// What the totals of a commit hold for an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) inode: InodeId,
    pub(super) charged: Option<Charged>,
    pub(super) epoch: Epoch,
    /// The intent that led to this inode, by its number.
    pub(super) ends: Option<u64>,
}

/// A name that is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Intent {
    pub(super) parent: InodeId,
    /// Never 0, and never used twice.
    pub(super) number: u64,
    pub(super) name: Vec<u8>,
}

/// Fills a part of fixed length from the front.
struct Filler<'a> {
    rest: &'a mut [u8],
}

impl Filler<'_> {
    fn raw(&mut self, bytes: &[u8]) {
        let rest = std::mem::take(&mut self.rest);
        let length = bytes.len().min(rest.len());
        let (head, tail) = rest.split_at_mut(length);
        head.copy_from_slice(bytes.get(..length).unwrap_or_default());
        self.rest = tail;
    }

    /// Bytes in a field of this width; the rest of it stays zero.
    fn field(&mut self, bytes: &[u8], width: usize) {
        let taken = bytes.get(..width).unwrap_or(bytes);
        self.raw(taken);
        let rest = std::mem::take(&mut self.rest);
        let (_, tail) = rest.split_at_mut((width - taken.len()).min(rest.len()));
        self.rest = tail;
    }
}

/// Takes numbers from the front.
struct Taker<'a> {
    rest: &'a [u8],
}

impl<'a> Taker<'a> {
    fn raw(&mut self, length: usize) -> Result<&'a [u8], Garbled> {
        let (head, tail) = self
            .rest
            .split_at_checked(length)
            .ok_or(Garbled("a part is too short"))?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        let bytes = self.raw(N)?;
        bytes.try_into().map_err(|_| Garbled("a part is too short"))
    }

    fn u32(&mut self) -> Result<u32, Garbled> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Garbled> {
        self.array().map(u64::from_le_bytes)
    }
}

/// The checksum of what stands at this place of the file.
fn checksum(body: &[u8], at: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&at.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Writes the checksum for this place into the last four bytes.
fn seal(bytes: &mut [u8], at: u64) {
    if let Some((body, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = checksum(body, at).to_le_bytes();
    }
}

fn unseal<'a>(bytes: &'a [u8], at: u64, what: &'static str) -> Result<Taker<'a>, Garbled> {
    match bytes.split_last_chunk::<4>() {
        Some((body, crc)) if u32::from_le_bytes(*crc) == checksum(body, at) => {
            Ok(Taker { rest: body })
        }
        _ => Err(Garbled(what)),
    }
}

/// So many free places of `N` bytes, from this one on.
pub(super) fn free_places<const N: usize>(count: usize, at: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count.saturating_mul(N));
    for at in (at..).step_by(N).take(count) {
        bytes.extend(free_place::<N>(at));
    }
    bytes
}

/// The bytes of a free place.
pub(super) fn free_place<const N: usize>(at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    Filler { rest: &mut bytes }.raw(&[FREE]);
    seal(&mut bytes, at);
    bytes
}

fn length_byte(bytes: &[u8]) -> u8 {
    u8::try_from(bytes.len()).unwrap_or(0)
}

fn inode_from(ino: u64, kind: i32, length: u8, handle: &[u8]) -> Result<InodeId, Garbled> {
    let handle = handle
        .get(..usize::from(length))
        .ok_or(Garbled("a handle is too long"))?;
    Ok(InodeId::new(ino, kind, handle))
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut out = Filler { rest: &mut bytes };
        out.raw(&MAGIC.to_le_bytes());
        out.raw(&FORMAT.to_le_bytes());
        out.raw(&self.identity.ve.get().to_le_bytes());
        out.raw(&self.identity.session.to_le_bytes());
        out.raw(&self.chunks.to_le_bytes());
        out.raw(&u32::from(self.sound).to_le_bytes());
        out.field(self.identity.boot.as_bytes(), BOOT_MAX);
        if let Some((body, crc)) = bytes.split_last_chunk_mut::<4>() {
            *crc = crc32fast::hash(body).to_le_bytes();
        }
        bytes
    }

    /// The header in these bytes; `None` where it is of another format.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<Self>, Garbled> {
        let (body, crc) = bytes
            .split_last_chunk::<4>()
            .ok_or(Garbled("a part is too short"))?;
        if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
            return Err(Garbled("the header is damaged"));
        }
        let mut input = Taker { rest: body };
        if input.u64()? != MAGIC {
            return Err(Garbled("the header is that of something else"));
        }
        if input.u32()? != FORMAT {
            return Ok(None);
        }
        let ve = VeId::new(input.u32()?);
        let session = input.u64()?;
        let chunks = input.u32()?;
        let sound = input.u32()? == 1;
        let boot = input.raw(BOOT_MAX)?;
        let boot = boot.split(|&byte| byte == 0).next().unwrap_or_default();
        let boot = String::from_utf8_lossy(boot).into_owned();
        Ok(Some(Self {
            identity: Identity { ve, boot, session },
            chunks,
            sound,
        }))
    }
}

impl Entry {
    /// The bytes of a record for this place.
    pub(super) fn encode(&self, at: u64) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        let (kind, handle) = self.inode.handle().unwrap_or_default();
        let charged = self.charged.unwrap_or(Charged {
            owner: Owner::new(0, 0),
            usage: Usage::ZERO,
        });
        let mut out = Filler { rest: &mut bytes };
        out.raw(&[
            USED,
            u8::from(self.charged.is_some()),
            length_byte(handle),
            0,
        ]);
        out.raw(&kind.to_le_bytes());
        out.raw(&self.inode.ino().to_le_bytes());
        out.field(handle, InodeId::HANDLE_MAX);
        out.raw(&charged.owner.uid.get().to_le_bytes());
        out.raw(&charged.owner.gid.get().to_le_bytes());
        out.raw(&charged.usage.space.get().to_le_bytes());
        out.raw(&charged.usage.inodes.get().to_le_bytes());
        out.raw(&self.epoch.get().to_le_bytes());
        out.raw(&self.ends.unwrap_or(0).to_le_bytes());
        seal(&mut bytes, at);
        bytes
    }

    /// The record in the bytes of this place; `None` where none was written yet.
    pub(super) fn decode(bytes: &[u8], at: u64) -> Result<Option<Self>, Garbled> {
        let mut input = unseal(bytes, at, "a record is damaged")?;
        let [tag, exists, length, _] = input.array()?;
        if tag == FREE {
            return Ok(None);
        }
        if tag != USED || exists > 1 {
            return Err(Garbled("a record has an impossible value"));
        }
        let kind = i32::from_le_bytes(input.array()?);
        let ino = input.u64()?;
        let inode = inode_from(ino, kind, length, input.raw(InodeId::HANDLE_MAX)?)?;
        let owner = Owner::new(input.u32()?, input.u32()?);
        let usage = Usage::new(Bytes::new(input.u64()?), Inodes::new(input.u64()?));
        let epoch = Epoch::new(input.u64()?);
        let ends = Some(input.u64()?).filter(|&number| number > 0);
        let charged = (exists == 1).then_some(Charged { owner, usage });
        Ok(Some(Self {
            inode,
            charged,
            epoch,
            ends,
        }))
    }
}

impl Intent {
    /// The bytes of an intent for this place; `None` for a name that no file system has.
    pub(super) fn encode(
        parent: &InodeId,
        number: u64,
        name: &[u8],
        at: u64,
    ) -> Option<[u8; INTENT]> {
        let length = u16::try_from(name.len())
            .ok()
            .filter(|_| name.len() <= NAME_MAX)?;
        let mut bytes = [0; INTENT];
        let (kind, handle) = parent.handle().unwrap_or_default();
        let mut out = Filler { rest: &mut bytes };
        out.raw(&[USED, length_byte(handle)]);
        out.raw(&length.to_le_bytes());
        out.raw(&kind.to_le_bytes());
        out.raw(&parent.ino().to_le_bytes());
        out.field(handle, InodeId::HANDLE_MAX);
        out.raw(&number.to_le_bytes());
        out.raw(name);
        seal(&mut bytes, at);
        Some(bytes)
    }

    /// The intent in the bytes of this place; `None` where it is free.
    pub(super) fn decode(bytes: &[u8], at: u64) -> Result<Option<Self>, Garbled> {
        let mut input = unseal(bytes, at, "an intent is damaged")?;
        let [tag, length] = input.array()?;
        if tag == FREE {
            return Ok(None);
        }
        if tag != USED {
            return Err(Garbled("an intent has an impossible value"));
        }
        let name = usize::from(u16::from_le_bytes(input.array()?));
        let kind = i32::from_le_bytes(input.array()?);
        let ino = input.u64()?;
        let parent = inode_from(ino, kind, length, input.raw(InodeId::HANDLE_MAX)?)?;
        let number = input.u64()?;
        Ok(Some(Self {
            parent,
            number,
            name: input.raw(name)?.to_vec(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(exists: bool) -> Entry {
        let usage = Usage::inode(Bytes::new(4096));
        let charged = exists.then_some(Charged {
            owner: Owner::new(7, 8),
            usage,
        });
        Entry {
            inode: InodeId::new(9, 1, &[5; 12]),
            charged,
            epoch: Epoch::new(3),
            ends: (!exists).then_some(u64::MAX),
        }
    }

    #[test]
    fn parts_are_read_as_they_were_written() {
        let identity = Identity {
            ve: VeId::new(101),
            boot: "abc".into(),
            session: 77,
        };
        let header = Header {
            identity,
            chunks: 4,
            sound: true,
        };
        assert_eq!(Header::decode(&header.encode()), Ok(Some(header)));
        for exists in [true, false] {
            assert_eq!(
                Entry::decode(&entry(exists).encode(640), 640),
                Ok(Some(entry(exists)))
            );
        }
        let parent = InodeId::new(2, 1, &[5; 40]);
        let name = vec![b'n'; NAME_MAX];
        let number = 1 << 40;
        let bytes = Intent::encode(&parent, number, &name, 512).unwrap();
        let intent = Intent {
            parent,
            number,
            name,
        };
        assert_eq!(Intent::decode(&bytes, 512), Ok(Some(intent)));
        assert_eq!(Intent::encode(&parent, 1, &[b'n'; NAME_MAX + 1], 0), None);
        assert_eq!(Entry::decode(&free_place::<RECORD>(128), 128), Ok(None));
        assert_eq!(Intent::decode(&free_place::<INTENT>(512), 512), Ok(None));
        let places = free_places::<RECORD>(2, 128);
        assert_eq!(places[RECORD..], free_place::<RECORD>(256));
    }

    #[test]
    fn a_flipped_bit_is_found() {
        for whole in [entry(true).encode(128), free_place(128)] {
            for bit in 0..RECORD * 8 {
                let mut bytes = whole;
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(Entry::decode(&bytes, 128).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn zeros_and_what_belongs_elsewhere_are_no_free_place() {
        for at in [0, 128, 4096] {
            assert!(Entry::decode(&[0; RECORD], at).is_err());
            assert!(Intent::decode(&[0; INTENT], at).is_err());
            assert!(Entry::decode(&free_place::<RECORD>(at), at + 128).is_err());
            assert!(Intent::decode(&free_place::<INTENT>(at), at + 512).is_err());
            assert!(Entry::decode(&entry(true).encode(at), at + 128).is_err());
        }
    }
}

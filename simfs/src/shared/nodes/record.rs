//! One record: what it says, and how it is written and read.

use std::io;
use std::sync::atomic::Ordering;

use super::super::layout::seal;
use super::{HEAD, KIND, NodeRecords, SUPERSEDED, Shard, Slot};
use crate::id::NodeId;
use crate::sys::handle::{HANDLE_MAX, KernelHandle};
use crate::sys::stat::FileKind;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// The kernel's number.
    pub id: NodeId,
    /// The file underneath; `None` where the backing file system has no handles.
    pub handle: Option<KernelHandle>,
    /// Kind of file and permissions when it was first seen; the kind does not change.
    pub mode: u16,
}

impl NodeRecord {
    /// Its kind of file.
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode.into())
    }
}

impl NodeRecords {
    pub(super) fn is_superseded(&self, slot: Slot) -> bool {
        self.map.word(self.at(slot) + 2).load(Ordering::Relaxed) & SUPERSEDED << 8 != 0
    }

    pub(super) fn read(&self, slot: Slot) -> Option<NodeRecord> {
        let at = self.at(slot);
        let id = self.map.word(at).load(Ordering::Acquire);
        let word = self.map.word(at + 2).load(Ordering::Relaxed);
        let shape = word & u64::from(u32::MAX) & !(SUPERSEDED << 8);
        let [kind, length, ..] = shape.to_le_bytes();
        let length = usize::from(length);
        if length > self.handle_bytes || self.seal_of(at, id, shape) != word >> 32 {
            return None;
        }
        let mut bytes = [0; HANDLE_MAX];
        let bytes = bytes.get_mut(..length)?;
        self.map.load_bytes(at + HEAD, bytes);
        Some(NodeRecord {
            id: NodeId::new(id),
            handle: KernelHandle::from_parts(i32::from(kind), bytes),
            mode: u16::try_from(shape >> 16).ok()?,
        })
    }

    pub(super) fn write(
        &self,
        shard: &mut Shard,
        record: &NodeRecord,
        owed: u64,
    ) -> io::Result<Slot> {
        let too_long = || io::Error::from_raw_os_error(libc::EOVERFLOW);
        let (kind, bytes) = match &record.handle {
            Some(handle) => (handle.handle_type(), handle.bytes()),
            None => (0, &[][..]),
        };
        let kind = u8::try_from(kind).map_err(|_| too_long())?;
        let length = u8::try_from(bytes.len())
            .ok()
            .filter(|_| bytes.len() <= self.handle_bytes)
            .ok_or_else(too_long)?;
        let slot = self.take_place(shard, record.id)?;
        let at = self.at(slot);
        let shape = u64::from(kind) | u64::from(length) << 8 | u64::from(record.mode) << 16;
        let mut padded = [0; HANDLE_MAX];
        if let Some(start) = padded.get_mut(..bytes.len()) {
            start.copy_from_slice(bytes);
        }
        let id = record.id.get();
        self.map.store_bytes(
            at + HEAD,
            padded.get(..self.handle_bytes).unwrap_or(&padded),
        );
        self.map.word(at + 1).store(owed, Ordering::Relaxed);
        let sealed = shape | self.seal_of(at, id, shape) << 32;
        self.map.word(at + 2).store(sealed, Ordering::Relaxed);
        self.map.word(at).store(id, Ordering::Release);
        Ok(slot)
    }

    /// Half a seal: it shares a word with what it covers.
    fn seal_of(&self, at: usize, id: u64, shape: u64) -> u64 {
        let mut sum = seal(KIND, &[id, shape]);
        for word in 0..self.handle_bytes / 8 {
            sum = seal(
                sum,
                &[self.map.word(at + HEAD + word).load(Ordering::Relaxed)],
            );
        }
        sum >> 32
    }
}

//! Writes: as much work for the accounts as the space that a write may take, and none where it can take none.
//!
//! A write below [`Node::dense_to`] needs no space, so it takes no lock and asks no account. Every other one promises the
//! worst case, writes, reads `st_blocks` and settles, with the node's state locked; then it notes up to where the file is
//! allocated without a gap:
//!
//! - a write that begins before that end moves that end, to the edge of its last block;
//! - one behind it that took nothing shows that the file has content of earlier days. Once for as long as the inode is
//!   open the backing file system is asked where its first hole is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Fs;
use crate::accounting::Caller;
use crate::accounting::data::{DataRange, Least};
use crate::error::{FsError, FsResult};
use crate::handle::HandleId;
use crate::node::{Node, State};
use crate::sys::file::{self, FallocateMode};
use crate::sys::stat::{Stat, stat_fd};

/// A write request.
#[derive(Clone, Copy, Debug)]
pub struct WriteRequest<'a> {
    /// First byte.
    pub offset: u64,
    /// What to write.
    pub data: &'a [u8],
    /// Written out from the page cache, for stores through a mapping.
    pub from_cache: bool,
    /// The writer may not keep set-id bits alive.
    pub kill_setid: bool,
    /// The writer wants it on the disk (O_SYNC, O_DSYNC).
    pub sync: bool,
    /// All or nothing: of a short answer to an O_DIRECT write the kernel makes EIO (`fs/fuse/file.c`, `fuse_get_res_by_io`).
    pub whole: bool,
    /// Sent again after a daemon died with it.
    pub is_repeated: bool,
}

impl Fs {
    /// Writes, all of it or the part that fits; a part ends at a block edge.
    ///
    /// # Errors
    /// EDQUOT where nothing fits; the backing file system's own.
    pub fn write(
        &self,
        caller: Caller,
        handle: HandleId,
        request: WriteRequest<'_>,
    ) -> FsResult<usize> {
        let open = self.files.get(handle)?;
        let node = &open.node;
        let fd = self.descriptor_of(&open)?;
        let length = u64::try_from(request.data.len()).map_err(|_| FsError::Invalid)?;
        let end = request.offset.checked_add(length).ok_or(FsError::Invalid)?;
        open.note_change();
        if open.direct {
            node.pass_cache();
        }
        if request.kill_setid {
            self.take_setid(caller, node, &fd)?;
        }
        let may_share = !request.from_cache && !open.appends;
        let share = may_share.then(|| node.enter_dense(end)).flatten();
        let written = match share {
            Some(_share) => file::write_full(&fd, request.data, request.offset)?,
            None if open.appends => self.append(caller, node, &fd, request)?,
            None => self.write_growing(caller, node, &mut node.state(), &fd, request)?,
        };
        if request.sync && written > 0 {
            file::fdatasync(&fd)?;
        }
        Ok(written)
    }

    pub(super) fn write_growing(
        &self,
        caller: Caller,
        node: &Arc<Node>,
        state: &mut State,
        fd: &OwnedFd,
        request: WriteRequest<'_>,
    ) -> FsResult<usize> {
        let charged = state.charged;
        let range = DataRange {
            file: fd,
            offset: request.offset,
            length: u64::try_from(request.data.len()).map_err(|_| FsError::Invalid)?,
            at_least: match request.from_cache || request.whole {
                true => Least::Whole,
                false => Least::Part,
            },
        };
        let grant = self.accounting.reserve_data(caller, node, state, range)?;
        let granted = usize::try_from(grant.length)
            .unwrap_or(usize::MAX)
            .min(request.data.len());
        let data = request.data.get(..granted).unwrap_or(request.data);
        self.promise_gap(caller, node, state, fd, request.offset)?;
        let prepared = if grant.is_exact {
            self.allocate_exactly(fd, request.offset, grant.length)
        } else {
            Ok(())
        };
        let result = prepared.and_then(|()| file::write_full(fd, data, request.offset));
        let seen = stat_fd(fd.as_fd())?;
        let written = result.as_ref().copied().unwrap_or(0);
        let written_bytes = u64::try_from(written).unwrap_or(0);
        self.accounting
            .settle_data(node, state, grant.promise, &seen, written_bytes);
        let end = request.offset.saturating_add(written_bytes);
        if request.offset <= node.dense_to() {
            node.extend_dense(self.accounting.growth().allocated_to(end, &seen));
        } else if charged == state.charged {
            self.survey(node, state, fd, &seen);
        }
        Ok(result?)
    }

    /// Finds out how far a file is allocated that was written before it was opened.
    fn survey(&self, node: &Node, state: &mut State, fd: &OwnedFd, seen: &Stat) {
        let growth = self.accounting.growth();
        let Some(open) = state.open.as_mut().filter(|open| !open.is_surveyed) else {
            return;
        };
        open.is_surveyed = true;
        if !growth.writes_in_place() {
            return;
        }
        let start = i64::try_from(node.dense_to()).unwrap_or(i64::MAX);
        // A file that cannot be asked has no allocation that is known.
        let hole = file::seek_data_or_hole(fd, start, libc::SEEK_HOLE).unwrap_or(0);
        let hole = u64::try_from(hole).unwrap_or(0);
        // The end of the file counts as a hole.
        let end = if hole == seen.size {
            growth.allocated_to(hole, seen)
        } else {
            hole
        };
        node.extend_dense(end);
    }

    /// Takes the blocks of a range and no more: writing into them preallocates nothing behind them.
    pub(super) fn allocate_exactly(
        &self,
        fd: &OwnedFd,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        let growth = self.accounting.growth();
        let start = growth.floor(offset);
        let end = growth.ceil(offset.saturating_add(length));
        file::fallocate(fd, FallocateMode::KEEP_SIZE, start, end - start)
    }

    /// A write past the end leaves a hole behind it, which a passed-through mapping could fill unseen.
    fn promise_gap(
        &self,
        caller: Caller,
        node: &Node,
        state: &mut State,
        fd: &OwnedFd,
        offset: u64,
    ) -> FsResult<()> {
        if state.open.as_ref().is_some_and(|open| open.mappers > 0) {
            let size = stat_fd(fd.as_fd())?.size;
            if offset > size {
                self.promise_new_holes(caller, node, state, offset - size)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use super::super::testbed::{Bed, ROOT, at};
    use super::*;
    use crate::node::NodeId;

    fn open(bed: &mut Bed, name: &str) -> (NodeId, HandleId) {
        let entry = bed.ask(|fs, call| fs.lookup(call, at(name))).unwrap();
        let id = entry.node.id();
        let (handle, _) = bed
            .ask(|fs, call| fs.open(call, id, libc::O_WRONLY, &mut |_| Err(io::Error::other(""))))
            .unwrap();
        (id, handle)
    }

    fn write(bed: &Bed, handle: HandleId, offset: u64, length: usize) {
        let request = WriteRequest {
            offset,
            data: &vec![1; length],
            from_cache: false,
            kill_setid: false,
            sync: false,
            whole: false,
            is_repeated: false,
        };
        assert_eq!(bed.fs.write(ROOT, handle, request).unwrap(), length);
    }

    /// Lets a file be made, opens it, writes, and says up to where it is known to be allocated.
    fn known_after(make: impl FnOnce(&Path), writes: &[(u64, usize)]) -> u64 {
        let mut bed = Bed::new();
        make(&bed.dir.path().join("f"));
        let (id, handle) = open(&mut bed, "f");
        for (offset, length) in writes {
            write(&bed, handle, *offset, *length);
        }
        let node = bed.fs.nodes().get(id).unwrap();
        let charged = node.state().charged.unwrap();
        let stat = std::fs::metadata(bed.dir.path().join("f")).unwrap();
        let occupied = std::os::unix::fs::MetadataExt::blocks(&stat) * 512;
        assert_eq!(charged.usage.space.get(), occupied);
        let known = node.dense_to();
        bed.fs.release(handle).unwrap();
        drop(node);
        bed.fs.forget(id, 1);
        bed.assert_empty();
        known
    }

    /// The edge of the last block where this machine's file system writes in place, else the end.
    fn edge(end: u64) -> u64 {
        let bed = Bed::new();
        let growth = bed.fs.accounting().growth();
        if growth.writes_in_place() {
            growth.ceil(end)
        } else {
            end
        }
    }

    fn empty(path: &Path) {
        std::fs::write(path, []).unwrap();
    }

    fn full(path: &Path) {
        std::fs::write(path, [7; 50_000]).unwrap();
    }

    fn holed(path: &Path) {
        let file = std::fs::File::create(path).unwrap();
        file.write_all_at(&[7; 8192], 0).unwrap();
        file.write_all_at(&[7; 8192], 65_536).unwrap();
    }

    #[test]
    fn writes_in_order_are_known_to_the_edge_of_their_last_block() {
        assert_eq!(known_after(empty, &[(0, 100)]), 100, "may lie in the inode");
        assert_eq!(known_after(empty, &[(0, 5000)]), edge(5000));
        assert_eq!(known_after(empty, &[(0, 5000), (5000, 100)]), edge(5100));
        assert_eq!(known_after(empty, &[(0, 5000), (5000, 4000)]), edge(9000));
        assert_eq!(known_after(empty, &[(0, 5000), (20_000, 100)]), edge(5000));
    }

    #[test]
    fn content_of_earlier_days_is_known_once_it_is_written_again() {
        let in_place = edge(1) != 1;
        let known = |end: u64| if in_place { end } else { 0 };
        assert_eq!(known_after(full, &[(20_000, 10)]), known(edge(50_000)));
        assert_eq!(known_after(holed, &[(65_536, 10)]), known(8192));
        assert_eq!(known_after(holed, &[(32_768, 10)]), 0, "it took a block");
        assert_eq!(known_after(full, &[(60_000, 10)]), 0, "it took a block");
    }

    #[test]
    fn a_shorter_file_is_known_to_its_end_only() {
        let mut bed = Bed::new();
        empty(&bed.dir.path().join("f"));
        let (id, handle) = open(&mut bed, "f");
        write(&bed, handle, 0, 9000);
        let shorter = crate::fs::attr::SetAttr {
            size: Some(6000),
            ..crate::fs::attr::SetAttr::default()
        };
        bed.fs.setattr(ROOT, id, Some(handle), shorter).unwrap();
        assert_eq!(bed.fs.nodes().get(id).unwrap().dense_to(), 6000);
        bed.fs.release(handle).unwrap();
        bed.fs.forget(id, 1);
        bed.assert_empty();
    }
}

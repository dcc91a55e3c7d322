//! fallocate(2): space is allocated, freed or zeroed, all of it or nothing.
//!
//! What extents may need beside the data is promised as the worst case, as for a write. Where that does not fit, the range is
//! allocated in steps: all of the data is promised, and of the rest what there is room for; each step may take no more than is
//! left of that, and its true need is known afterwards. What does not fit in the end is given back.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use quota::{Bytes, Reservation};

use super::Fs;
use super::data::sync_change;
use crate::accounting::Caller;
use crate::accounting::data::{DataRange, Least, Steps};
use crate::error::FsResult;
use crate::handle::HandleId;
use crate::node::{Node, State};
use crate::sys::file::{self, FallocateMode};
use crate::sys::stat::stat_fd;

impl Fs {
    /// Allocates, frees or zeroes a range, as fallocate(2) does.
    ///
    /// # Errors
    /// EDQUOT where the range does not fit; the backing file system's own.
    pub fn fallocate(
        &self,
        caller: Caller,
        handle: HandleId,
        mode: FallocateMode,
        offset: u64,
        length: u64,
    ) -> FsResult<()> {
        let open = self.files.get(handle)?;
        let node = &open.node;
        let fd = self.descriptor_of(&open)?;
        open.note_change();
        let mut state = node.state();
        self.take_setid(caller, node, &fd)?;
        if mode.punches() {
            self.promise_new_holes(caller, node, &mut state, length)?;
            let _watch = self.accounting.watch(node, &state);
            node.cut_dense(offset);
            let result = file::fallocate(&fd, mode, offset, length);
            let seen = stat_fd(fd.as_fd())?;
            self.accounting.record(node, &mut state, &seen);
            self.accounting.late().push(node, &mut state);
            return sync_change(&open, &fd, result);
        }
        let at_least =
            match mode.zeroes() || state.open.as_ref().is_some_and(|open| open.mappers > 0) {
                // What is zeroed cannot be taken back, nor may a store through a mapping.
                true => Least::Whole,
                false => Least::Steps,
            };
        let range = DataRange {
            file: &fd,
            offset,
            length,
            at_least,
        };
        let promise = self.promise_range(caller, node, &mut state, range)?;
        if mode.zeroes() {
            node.cut_dense(offset);
        }
        let result = file::fallocate(&fd, mode, offset, length);
        let seen = stat_fd(fd.as_fd())?;
        match promise {
            Some(promise) => self
                .accounting
                .settle_data(node, &mut state, promise, &seen, length),
            None => self.accounting.record(node, &mut state, &seen),
        }
        sync_change(&open, &fd, result)
    }

    /// Promises a range, or allocates it in steps: then nothing is left to be promised.
    fn promise_range(
        &self,
        caller: Caller,
        node: &Arc<Node>,
        state: &mut State,
        range: DataRange<'_>,
    ) -> FsResult<Option<Reservation>> {
        let grant = self.accounting.reserve_data(caller, node, state, range)?;
        let Some(steps) = grant.steps else {
            return Ok(Some(grant.promise));
        };
        let result = self.allocate_in_steps(range.file, &steps);
        let seen = stat_fd(range.file)?;
        self.accounting.settle(node, state, grant.promise, &seen);
        self.accounting.late().push(node, state);
        if result? {
            return Ok(None);
        }
        // The extents took more than there is room for: the refusal that counts, unless room was made meanwhile.
        let range = DataRange {
            at_least: Least::Whole,
            ..range
        };
        let grant = self.accounting.reserve_data(caller, node, state, range)?;
        Ok(Some(grant.promise))
    }

    /// Allocates what is missing without changing the size. Says whether all of it was done; else it is as before.
    fn allocate_in_steps(&self, fd: &OwnedFd, steps: &Steps) -> FsResult<bool> {
        let growth = self.accounting.growth();
        let before = stat_fd(fd)?.blocks.bytes();
        let mut data = Bytes::ZERO;
        let mut made = Vec::new();
        for &(start, length) in &steps.gaps {
            let end = start.saturating_add(length);
            let mut at = start;
            while at < end {
                let taken = stat_fd(fd)?.blocks.bytes().saturating_sub(before);
                let left = steps.spare.saturating_sub(taken.saturating_sub(data));
                let step = growth.step(left).min(end - at);
                let result = match step {
                    0 => Ok(false),
                    _ => {
                        made.push((at, step));
                        file::fallocate(fd, FallocateMode::KEEP_SIZE, at, step).map(|()| true)
                    }
                };
                if !matches!(result, Ok(true)) {
                    give_back(fd, &made);
                    return Ok(result?);
                }
                data = data.saturating_add(Bytes::new(step));
                at += step;
            }
        }
        Ok(true)
    }
}

/// Frees what was allocated. What cannot be freed stays, and is counted.
fn give_back(fd: &OwnedFd, made: &[(u64, u64)]) {
    for &(start, length) in made {
        if let Err(error) = file::fallocate(fd, FallocateMode::PUNCH, start, length) {
            tracing::warn!(%error, "space of an allocation that was refused cannot be given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::super::testbed::Bed;
    use super::*;

    /// Bytes in extents; `None` where the file system does not tell.
    fn allocated(file: &OwnedFd) -> Option<u64> {
        let extents = file::allocated_extents(file, 0, 3000 * 4096).ok()?;
        Some(extents.iter().map(|(_, length)| length).sum())
    }

    /// On ext4 each gap that is filled makes an extent of its own, and 340 of them a block: more than there is room for.
    #[test]
    fn what_turns_out_too_large_is_given_back() {
        let bed = Bed::new();
        let path = bed.dir.path().join("f");
        let plain = std::fs::File::create_new(&path).unwrap();
        for block in (0..3000).step_by(2) {
            plain.write_all_at(&[7; 4096], block * 4096).unwrap();
        }
        plain.sync_all().unwrap();
        let fd = OwnedFd::from(
            std::fs::File::options()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap(),
        );
        let steps = Steps {
            gaps: (1..3000)
                .step_by(2)
                .map(|block| (block * 4096, 4096))
                .collect(),
            spare: Bytes::new(4096),
        };
        let before = allocated(&fd);
        let all = bed.fs.allocate_in_steps(&fd, &steps).unwrap();
        let is_ext4 = bed.fs.area.backing() == crate::private::Backing::Ext4;
        assert!(!(all && is_ext4), "one block for 1500 extents");
        assert_eq!(allocated(&fd) == before, !all);
        let content = std::fs::read(&path).unwrap();
        assert!(content.chunks(8192).all(|pair| pair[..4096] == [7; 4096]));
    }
}

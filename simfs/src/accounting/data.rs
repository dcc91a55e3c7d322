//! Space for data: promised as the worst case, or as what a range still needs where that does not fit.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use quota::{Bytes, Owner, Reservation, Usage, Want};

use super::growth::Growth;
use super::{Accounting, Caller, change};
use crate::error::FsResult;
use crate::node::{Node, State};
use crate::sys::file;
use crate::sys::stat::{Stat, stat_fd};

impl Accounting {
    /// Promises data space for as much of a range as fits: all of it, or a part that ends at a block edge.
    ///
    /// # Errors
    /// [`quota::Denied`] where not even the first block fits; what looking at the file fails with.
    pub fn reserve_data(
        &self,
        caller: Caller,
        node: &Node,
        state: &mut State,
        range: DataRange<'_>,
    ) -> FsResult<Grant> {
        let allocated = state.charged.map_or(0, |charged| charged.usage.space.get());
        let worst = self
            .growth
            .data(range.offset, range.length)
            .saturating_add(self.growth.preallocation(allocated))
            .saturating_add(self.growth.old_end(0, range.offset));
        match self.try_data(caller, node, state, range.length, worst) {
            Some(promise) => Ok(Grant {
                promise,
                length: range.length,
                is_exact: false,
                steps: None,
            }),
            None => {
                let is_exact = !self.growth.preallocation(allocated).is_zero();
                let grant = self.reserve_scarce_data(caller, node, state, range)?;
                Ok(Grant { is_exact, ..grant })
            }
        }
    }

    /// Promises data space of a file, if it fits.
    fn try_data(
        &self,
        caller: Caller,
        node: &Node,
        state: &State,
        length: u64,
        data: Bytes,
    ) -> Option<Reservation> {
        let touched = [(node.inode_id(), state.charged)];
        let owner = state.owner()?;
        let space = data.saturating_add(self.metadata_delta(state, length));
        let want = [Want::new(owner, Usage::space(space))];
        let exempt = || self.passes_second_level(caller);
        self.engine.try_reserve(&touched, &want, &exempt).ok()
    }

    /// The worst case does not fit: makes room, finds the true need, and takes what there is.
    fn reserve_scarce_data(
        &self,
        caller: Caller,
        node: &Node,
        state: &mut State,
        range: DataRange<'_>,
    ) -> FsResult<Grant> {
        self.make_room();
        if state.promised.is_some() {
            file::fdatasync(range.file)?;
            let seen = stat_fd(range.file)?;
            self.record_final(node, state, &seen);
        }
        let size = stat_fd(range.file)?.size;
        let old_end = self.growth.old_end(size, range.offset);
        let data = self
            .growth
            .data(range.offset, range.length)
            .saturating_add(old_end);
        if let Some(promise) = self.try_data(caller, node, state, range.length, data) {
            return Ok(Grant::of(promise, range.length));
        }
        let touched = [(node.inode_id(), state.charged)];
        let owner = state.owner().unwrap_or(Owner::new(caller.uid, caller.gid));
        let exempt = || self.passes_second_level(caller);
        let metadata = self
            .metadata_delta(state, range.length)
            .saturating_add(old_end);
        let want = |data: Bytes| {
            [Want::new(
                owner,
                Usage::space(data.saturating_add(metadata)),
            )]
        };
        let holes = Holes::find(range.file, &self.growth, range.offset, range.length)?;
        let need = want(holes.total());
        if range.at_least == Least::Whole {
            let promise = self.engine.reserve(&touched, &need, &exempt)?;
            return Ok(Grant::of(promise, range.length));
        }
        if let Ok(promise) = self.engine.try_reserve(&touched, &need, &exempt) {
            return Ok(Grant::of(promise, range.length));
        }
        let room = self.engine.room(owner, !exempt()).space;
        let part = match range.at_least {
            Least::Steps => self
                .steps(&holes, room)
                .map(|steps| (holes.total().saturating_add(steps.spare), 0, Some(steps))),
            _ => {
                let room = Bytes::new(self.growth.floor(room.saturating_sub(metadata).get()));
                let length = holes.covered_by(room, range.offset, range.length);
                let space = room.min(holes.total()).saturating_add(metadata);
                (length > 0).then_some((space, length, None))
            }
        };
        if let Some((space, length, steps)) = part {
            let part = [Want::new(owner, Usage::space(space))];
            if let Ok(promise) = self.engine.try_reserve(&touched, &part, &exempt) {
                return Ok(Grant {
                    steps,
                    ..Grant::of(promise, length)
                });
            }
        }
        // Others took the rest meanwhile, or there was none: this refusal is the one that counts.
        let promise = self.engine.reserve(&touched, &need, &exempt)?;
        Ok(Grant::of(promise, range.length))
    }

    /// The steps in which these holes can be allocated with this much room, if it is enough for extents that nothing breaks up.
    fn steps(&self, holes: &Holes, room: Bytes) -> Option<Steps> {
        let gaps = u64::try_from(holes.gaps.len()).ok()?;
        let least = self
            .growth
            .metadata(u64::MAX, gaps.saturating_mul(self.growth.block()));
        let spare = room.saturating_sub(holes.total());
        let is_enough = holes.are_known && !spare.is_zero() && spare >= least;
        is_enough.then(|| Steps {
            gaps: holes.gaps.clone(),
            spare,
        })
    }

    /// Settles a write: charges what the file occupies now and keeps what its metadata may still need.
    pub fn settle_data(
        &self,
        node: &Arc<Node>,
        state: &mut State,
        promise: Reservation,
        seen: &Stat,
        written: u64,
    ) {
        let owner = seen.owner();
        let held = promised_space(state);
        state.unsettled = state.unsettled.saturating_add(written);
        let wanted = self
            .growth
            .metadata(seen.blocks.bytes().get(), state.unsettled);
        let keep = wanted.saturating_sub(held).min(promise.reserved().space);
        let changes = [change(node, state, Some(seen))];
        if keep.is_zero() {
            self.apply(&changes, || promise.settle(&changes));
        } else {
            let mut promise = promise;
            let keep = [Want::new(owner, Usage::space(keep))];
            self.apply(&changes, || promise.settle_part(&keep, &changes));
            match &mut state.promised {
                Some(held) => held.merge(promise),
                None => state.promised = Some(Box::new(promise)),
            }
        }
        self.late.push(node, state);
    }

    fn metadata_delta(&self, state: &State, length: u64) -> Bytes {
        let allocated = state.charged.map_or(0, |charged| charged.usage.space.get());
        let unsettled = state.unsettled.saturating_add(length);
        self.growth
            .metadata(allocated.saturating_add(length), unsettled)
            .saturating_sub(promised_space(state))
    }
}

/// Space that was promised for a range of a file.
#[derive(Debug)]
pub struct Grant {
    /// The promise.
    pub promise: Reservation,
    /// How many bytes of the range it covers.
    pub length: u64,
    /// Whether there is no room for what the backing file system would take beyond the range: then the range is to be
    /// allocated before it is written.
    pub is_exact: bool,
    /// Set: the range is to be allocated in these steps.
    pub steps: Option<Steps>,
}

/// A range of a file that is about to be written or allocated.
#[derive(Clone, Copy, Debug)]
pub struct DataRange<'a> {
    /// The backing file, open for writing.
    pub file: &'a OwnedFd,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// What is to be done of it where not all fits.
    pub at_least: Least,
}

/// How much of a range must be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// A part, down to a block edge.
    Part,
    /// All of it or nothing.
    Whole,
    /// The same; but it can be done in steps, and taken back.
    Steps,
}

/// How a range is to be allocated for which not all fits that its extents might need.
#[derive(Debug)]
pub struct Steps {
    /// Offset and length in bytes of what is to be allocated, in order, whole blocks.
    pub gaps: Vec<(u64, u64)>,
    /// What may be taken beside that.
    pub spare: Bytes,
}

/// The blocks of a range that are not allocated yet.
#[derive(Debug)]
pub struct Holes {
    /// Offset and length in bytes, in order, whole blocks.
    gaps: Vec<(u64, u64)>,
    /// Whether the file system told.
    are_known: bool,
}

impl Grant {
    fn of(promise: Reservation, length: u64) -> Self {
        Self {
            promise,
            length,
            is_exact: false,
            steps: None,
        }
    }
}

impl Holes {
    /// Looks for the unallocated blocks of a range.
    ///
    /// # Errors
    /// The kernel's, where the file system cannot list extents: then all of the range counts as a hole.
    pub fn find(file: &OwnedFd, growth: &Growth, offset: u64, length: u64) -> io::Result<Self> {
        let start = growth.floor(offset);
        let end = growth.ceil(offset.saturating_add(length));
        let Ok(extents) = file::allocated_extents(file, start, end - start) else {
            return Ok(Self {
                gaps: vec![(start, end - start)],
                are_known: false,
            });
        };
        Ok(Self::between(&extents, growth, start, end))
    }

    /// What the extents, of which the first may begin before the range and the last may end behind it, leave of a range of
    /// whole blocks.
    fn between(extents: &[(u64, u64)], growth: &Growth, start: u64, end: u64) -> Self {
        let mut gaps = Vec::new();
        let mut at = start;
        for &(first, length) in extents {
            let from = growth.floor(first).clamp(at, end);
            if from > at {
                gaps.push((at, from - at));
            }
            // From where the extent begins, not from where it enters the range: btrfs tells of the whole extent.
            let until = growth.ceil(first.saturating_add(length));
            at = at.max(until.min(end));
        }
        if at < end {
            gaps.push((at, end - at));
        }
        Self {
            gaps,
            are_known: true,
        }
    }

    /// All of them together.
    pub fn total(&self) -> Bytes {
        Bytes::new(self.gaps.iter().map(|(_, length)| length).sum())
    }

    /// How many bytes of the range can be written with this much room; a part ends at a block edge.
    pub fn covered_by(&self, room: Bytes, offset: u64, length: u64) -> u64 {
        let mut left = room.get();
        for &(start, size) in &self.gaps {
            if size > left {
                let end = start + left;
                return end.saturating_sub(offset).min(length);
            }
            left -= size;
        }
        length
    }
}

fn promised_space(state: &State) -> Bytes {
    state
        .promised
        .as_ref()
        .map_or(Bytes::ZERO, |promise| promise.reserved().space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_that_begins_before_the_range_ends_where_it_ends() {
        let growth = Growth::new(crate::private::Backing::Btrfs, 4096);
        let gaps = |extents: &[_]| Holes::between(extents, &growth, 49152, 208_896).gaps;
        assert_eq!(gaps(&[(0, 200_704)]), [(200_704, 8192)]);
        assert_eq!(gaps(&[(0, 49152)]), [(49152, 159_744)]);
        assert_eq!(
            gaps(&[(0, 53248), (61440, 4096)]),
            [(53248, 8192), (65536, 143_360)]
        );
        assert_eq!(gaps(&[(0, 1 << 20)]), []);
        assert_eq!(gaps(&[(61440, 1 << 20)]), [(49152, 12288)]);
        assert_eq!(gaps(&[]), [(49152, 159_744)]);
    }

    #[test]
    fn a_part_ends_at_a_block_edge() {
        let holes = Holes {
            gaps: vec![(4096, 8192), (20480, 4096)],
            are_known: true,
        };
        assert_eq!(holes.total(), Bytes::new(12288));
        let covered = |room, offset, length| holes.covered_by(Bytes::new(room), offset, length);
        assert_eq!(covered(12288, 100, 24000), 24000);
        assert_eq!(covered(8192, 100, 24000), 20480 - 100);
        assert_eq!(covered(4096, 100, 24000), 8192 - 100);
        // The allocated start of the range can be written without any room.
        assert_eq!(covered(0, 100, 24000), 4096 - 100);
        assert_eq!(covered(0, 4096, 10), 0);
    }
}

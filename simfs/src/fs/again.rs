//! Requests that are sent again after a daemon died: what it had done of them, and what it had counted for the answer.
//!
//! The kernel keeps the directories of an unanswered request locked, so what is there now is what the dead daemon left, and
//! what it said it was about to do ([`Intent`]) tells whether it did it. Whoever edits the private area behind the mount
//! can make this wrong for the one name, as it can for any request.

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::{Call, Entry, Fs, Place};
use crate::accounting::Caller;
use crate::error::FsResult;
use crate::fault;
use crate::node::NodeId;
use crate::shared::flights::{Intent, Step};
use crate::shared::{Description, Flight};
use crate::sys::file::RenameFlags;
use crate::sys::stat::stat_at;

impl Fs {
    /// A request, as the operations want it. What a dead daemon counted for its answer is taken back first.
    pub fn call<'a>(&self, caller: Caller, flight: &'a Flight<'a>) -> Call<'a> {
        if flight.earlier().is_some() {
            if let Some(handle) = flight.handed_out_handle() {
                // Perhaps it was not opened after all.
                let _ = self.release(handle);
                flight.handle_is_back();
            }
            if let Some(node) = flight.take_back_node() {
                self.nodes.forget(node, 1);
            }
            while let Some(node) = flight.take_back_listed() {
                self.nodes.forget(node, 1);
            }
        }
        Call { caller, flight }
    }

    /// Says what is about to be done under one name; `source` is the inode that it is about, 0 for a new one.
    pub(super) fn describe(&self, call: Call<'_>, step: Step, place: Place<'_>, source: u64) {
        call.flight.describe(&Intent {
            step,
            parent: place.parent,
            name: place.name,
            to: None,
            source,
        });
        fault::point("described");
    }

    /// Says what is about to be renamed.
    pub(super) fn describe_rename(
        &self,
        call: Call<'_>,
        (from, source): (Place<'_>, u64),
        to: Place<'_>,
        flags: RenameFlags,
    ) {
        let step = if flags.contains(RenameFlags::EXCHANGE) {
            Step::Exchange
        } else if flags.contains(RenameFlags::WHITEOUT) {
            Step::Whiteout
        } else {
            Step::Rename
        };
        call.flight.describe(&Intent {
            step,
            parent: from.parent,
            name: from.name,
            to: Some((to.parent, to.name)),
            source,
        });
        fault::point("described");
    }

    /// The inode that a dead daemon made or linked under this name for this very call. It is charged already: by that daemon
    /// or by the recovery.
    pub(super) fn made_before(&self, call: Call<'_>, place: Place<'_>) -> FsResult<Option<Entry>> {
        let Some(said) = said(call, place, &[Step::Make, Step::Link]) else {
            return Ok(None);
        };
        let parent = self.nodes.get(place.parent)?;
        let dir = self.nodes.descriptor(&parent)?;
        let found = match self.find(dir.as_fd(), place.name) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if said.step == Step::Link && found.stat.ino != said.source {
            return Ok(None);
        }
        Ok(Some(self.answer(call, found)?))
    }
}

/// What the dead daemon said of this name, if it was one of these steps.
fn said<'a>(call: Call<'a>, place: Place<'_>, steps: &[Step]) -> Option<&'a Description> {
    let said = call.flight.described()?;
    let is_it = said.parent == place.parent && said.name == place.name;
    (is_it && steps.contains(&said.step)).then_some(said)
}

/// Whether a name is missing because a dead daemon removed it for this very call.
pub(super) fn removed_before(call: Call<'_>, place: Place<'_>, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound && said(call, place, &[Step::Remove]).is_some()
}

/// Whether a dead daemon renamed this for this very call.
pub(super) fn renamed_before(
    call: Call<'_>,
    (from, old_dir): (Place<'_>, &OwnedFd),
    (to, new_dir): (Place<'_>, &OwnedFd),
) -> bool {
    let steps = [Step::Rename, Step::Exchange, Step::Whiteout];
    let Some(said) = said(call, from, &steps) else {
        return false;
    };
    if said.new_parent != to.parent || said.new_name != to.name {
        return false;
    }
    if inode_at(new_dir, to.name) != Some(said.source) {
        return false;
    }
    // Where both are names of one inode nothing moves: it can be done again, or fails again.
    let old = stat_at(old_dir, from.name).ok();
    match said.step {
        Step::Rename => old.is_none(),
        _ => old.is_some_and(|old| old.ino != said.source),
    }
}

/// Whether a dead daemon said that it was about to do this with an attribute.
pub(super) fn said_of_attribute(call: Call<'_>, id: NodeId, name: &OsStr, step: Step) -> bool {
    let place = Place { parent: id, name };
    said(call, place, &[step]).is_some()
}

fn inode_at(dir: &OwnedFd, name: &OsStr) -> Option<u64> {
    stat_at(dir, name).ok().map(|stat| stat.ino)
}

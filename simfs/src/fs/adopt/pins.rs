//! The keeper's descriptors of inodes that lost their last name, and of files that cannot be opened again, as a successor
//! finds them.

use std::os::fd::OwnedFd;

use quota::InodeId;

use crate::fs::spare::Inherited;
use crate::node::NodeId;
use crate::private::PrivateArea;
use crate::shared::{Deposit, Hold, Inheritance};
use crate::sys::handle::KernelHandle;
use crate::sys::stat::{Stat, stat_fd};

/// The keeper's descriptors: of inodes that were about to lose their last name, or have lost it, and of files that cannot be
/// opened again.
#[derive(Debug, Default)]
pub struct Pins {
    pub(super) pins: Vec<Pinned>,
    pub(super) spares: Vec<Inherited>,
    /// Records of descriptors that are not there, or of no use.
    pub(super) stale: Vec<(Deposit, NodeId)>,
}

#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) fd: OwnedFd,
    pub(super) deposit: Deposit,
    pub(super) handle: KernelHandle,
    pub(super) stat: Stat,
}

impl Pins {
    /// Looks at them. `take` gives a descriptor that the keeper handed on, by its number.
    pub fn collect(
        inheritance: &Inheritance,
        area: &PrivateArea,
        take: &mut dyn FnMut(u32) -> Option<OwnedFd>,
    ) -> Self {
        let mut pins = Self::default();
        for record in &inheritance.holds {
            let Some((hold, node)) = Hold::of(record) else {
                continue;
            };
            let deposit = |number| Deposit {
                number,
                place: record.place,
            };
            let number = match hold {
                Hold::Pin(number) => number,
                Hold::Spare(number) => {
                    pins.spares.push(Inherited {
                        node,
                        deposit: deposit(number),
                        fd: take(number),
                    });
                    continue;
                }
                Hold::Backing(_) => continue,
            };
            let deposit = deposit(number);
            match take(number).and_then(|fd| Pinned::look(fd, deposit, area)) {
                Some(pinned) => pins.pins.push(pinned),
                None => pins.stale.push((deposit, node)),
            }
        }
        pins
    }

    /// All that have no name but are kept in being, as new to the totals.
    #[cfg(test)]
    pub(in crate::fs) fn without_names(&self) -> Vec<quota::Change> {
        let unnamed = self.pins.iter().filter(|pinned| pinned.stat.nlink == 0);
        let change = |pinned: &Pinned| quota::Change {
            inode: pinned.inode(),
            before: None,
            after: Some(crate::accounting::charged_as(&pinned.stat)),
        };
        unnamed.map(change).collect()
    }

    /// Attributes of an inode that has no name but is kept in being: it stays charged.
    pub fn stat_of(&self, inode: &InodeId) -> Option<Stat> {
        let mut unnamed = self.pins.iter().filter(|pinned| pinned.stat.nlink == 0);
        unnamed
            .find(|pinned| pinned.inode() == *inode)
            .map(|pinned| pinned.stat)
    }
}

impl Pinned {
    fn inode(&self) -> InodeId {
        let handle = &self.handle;
        InodeId::new(self.stat.ino, handle.handle_type(), handle.bytes())
    }

    fn look(fd: OwnedFd, deposit: Deposit, area: &PrivateArea) -> Option<Self> {
        let stat = stat_fd(&fd).ok()?;
        area.refuse_foreign(&stat).ok()?;
        let handle = area.identify(&fd).ok()??;
        Some(Self {
            fd,
            deposit,
            handle,
            stat,
        })
    }
}

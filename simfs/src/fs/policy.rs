//! How an open file's data travels: one policy per inode for as long as it is open.                          (pure)
//!
//! The kernel allows only some mixtures of handles on one inode; a wrong one fails the guest's open with EIO
//! (Linux `fs/fuse/iomode.c`). So the first open decides, and the decision holds until the last release.
//!
//! | mode of the inode | read-only open | write-only open | read-write open |
//! |---|---|---|---|
//! | not open, or [`IoMode::Direct`] | passthrough | direct | cached |
//! | [`IoMode::Passthrough`] | passthrough | passthrough, writes to the daemon | same, holes promised |
//! | [`IoMode::Cached`] | cached | cached | cached |
//!
//! Where a file is known to have holes, a read-only open takes the cached mode, so that a later read-write open can have
//! its mapped stores sent to the daemon. Where passthrough is not to be had, all opens are cached.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use quota::Reservation;

use super::backing::Backing;
use super::spare::Spare;

/// What the kernel knows a backing file by; closed on drop. Made and read by the transport only.
pub trait BackingToken: Any + Send + Sync + fmt::Debug {
    /// For the transport to recognise its own.
    fn as_any(&self) -> &dyn Any;

    /// The kernel's number, for a successor.
    fn number(&self) -> u32;
}

/// How the handles of one inode do their I/O. Of handles that may meet on one inode the greatest mode is the inode's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IoMode {
    /// Only writers, each request to the daemon, nothing cached.
    Direct,
    /// Reads and mappings go to the backing file in the kernel; writes to the daemon.
    Passthrough,
    /// Through the kernel's page cache for this mount; misses and writes to the daemon.
    Cached,
}

/// What a guest opened a file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// O_RDONLY, and execution.
    Read,
    /// O_WRONLY.
    Write,
    /// O_RDWR.
    ReadWrite,
}

impl Access {
    /// Reads the access mode of open(2) flags.
    pub fn from_flags(flags: i32) -> Self {
        match flags & libc::O_ACCMODE {
            libc::O_WRONLY => Self::Write,
            libc::O_RDWR => Self::ReadWrite,
            _ => Self::Read,
        }
    }

    /// Whether the handle can write.
    pub fn writes(self) -> bool {
        self != Self::Read
    }

    /// The open(2) flag.
    pub fn flag(self) -> i32 {
        match self {
            Self::Read => libc::O_RDONLY,
            Self::Write => libc::O_WRONLY,
            Self::ReadWrite => libc::O_RDWR,
        }
    }
}

/// The decision for one open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The inode's mode from now on.
    pub mode: IoMode,
    /// The handle carries the backing id.
    pub passthrough: bool,
    /// Requests of read(2) and write(2) bypass the page cache and come to the daemon.
    pub direct: bool,
    /// Stores through a mapping of this handle do not reach the daemon, so holes must be promised in advance.
    pub promise_holes: bool,
}

/// Decides how a new handle does its I/O.
pub fn decide(
    present: Option<IoMode>,
    access: Access,
    has_holes: bool,
    passthrough: bool,
) -> Decision {
    let cached = Decision {
        mode: IoMode::Cached,
        passthrough: false,
        direct: false,
        promise_holes: false,
    };
    if !passthrough {
        return cached;
    }
    match (present, access) {
        (Some(IoMode::Cached), _) => cached,
        (Some(IoMode::Passthrough), access) => Decision {
            mode: IoMode::Passthrough,
            passthrough: true,
            direct: access.writes(),
            promise_holes: access == Access::ReadWrite,
        },
        (None | Some(IoMode::Direct), Access::Read) if has_holes => cached,
        (None | Some(IoMode::Direct), Access::Read) => Decision {
            mode: IoMode::Passthrough,
            passthrough: true,
            direct: false,
            promise_holes: false,
        },
        (None | Some(IoMode::Direct), Access::Write) => Decision {
            mode: IoMode::Direct,
            passthrough: false,
            direct: true,
            promise_holes: false,
        },
        (None | Some(IoMode::Direct), Access::ReadWrite) => cached,
    }
}

/// The handles of one inode and what they have in common.
#[derive(Debug)]
pub struct OpenState {
    /// The common policy.
    pub mode: IoMode,
    /// How many handles.
    pub handles: u32,
    /// How many of them can write.
    pub writers: u32,
    /// Whether there was a writer since the inode was last unopened: then it may have got holes.
    pub written: bool,
    /// How many of them map the backing file for writing.
    pub mappers: u32,
    /// The id under which the kernel knows the backing file; the same for all handles.
    pub backing: Option<Arc<Backing>>,
    /// Whether space behind the end of the file may go with the close of a writer, whenever that comes.
    pub tail: bool,
    /// Whether the backing file system was asked for the first hole.
    pub is_surveyed: bool,
    /// Writes for its handles where a flag keeps the file from being opened again.
    pub spare: Option<Spare>,
    /// Space promised for holes that a mapping may fill unseen.
    pub holes: Option<Reservation>,
}

impl OpenState {
    /// No handle yet, in this mode.
    pub fn new(mode: IoMode) -> Self {
        Self {
            mode,
            handles: 0,
            writers: 0,
            written: false,
            mappers: 0,
            backing: None,
            tail: false,
            is_surveyed: false,
            spare: None,
            holes: None,
        }
    }

    /// Adds to what is promised for holes.
    pub fn promise(&mut self, holes: Option<Reservation>) {
        let Some(more) = holes else { return };
        match &mut self.holes {
            Some(held) => held.merge(more),
            None => self.holes = Some(more),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [Option<IoMode>; 4] = [
        None,
        Some(IoMode::Direct),
        Some(IoMode::Passthrough),
        Some(IoMode::Cached),
    ];
    const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::ReadWrite];

    /// Linux `fs/fuse/iomode.c`: cached and passthrough handles exclude each other on one inode, and once an inode has
    /// a passthrough handle every handle must carry the same backing id.
    #[test]
    fn no_two_policies_meet_on_one_inode() {
        for first in ACCESSES {
            for second in ACCESSES {
                for holes in [(false, false), (true, true), (false, true), (true, false)] {
                    let one = decide(None, first, holes.0, true);
                    let two = decide(Some(one.mode), second, holes.1, true);
                    let cached = |d: Decision| !d.passthrough && !d.direct;
                    assert!(
                        !(one.passthrough && cached(two)),
                        "{first:?} then {second:?}"
                    );
                    assert!(
                        !(cached(one) && two.passthrough),
                        "{first:?} then {second:?}"
                    );
                    let plain_direct = two.direct && !two.passthrough;
                    assert!(
                        !(one.passthrough && plain_direct),
                        "{first:?} then {second:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_mapping_that_escapes_the_daemon_has_its_holes_promised() {
        for mode in MODES {
            for holes in [false, true] {
                let decision = decide(mode, Access::ReadWrite, holes, true);
                assert_eq!(decision.passthrough, decision.promise_holes);
            }
        }
    }

    #[test]
    fn a_write_is_never_passed_through() {
        for mode in MODES {
            for access in [Access::Write, Access::ReadWrite] {
                let decision = decide(mode, access, false, true);
                assert!(
                    decision.direct || !decision.passthrough,
                    "{mode:?} {access:?}"
                );
            }
        }
    }

    #[test]
    fn without_passthrough_all_is_cached() {
        for access in ACCESSES {
            assert_eq!(decide(None, access, false, false).mode, IoMode::Cached);
        }
    }
}

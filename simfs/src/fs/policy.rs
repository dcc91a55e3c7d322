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

use crate::open::{Access, IoMode};

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

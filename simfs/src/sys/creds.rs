//! Acting as the caller of a request: file-system ids, groups and umask of one thread.
//!
//! New files then belong to the caller, while the daemon's capabilities stay in force: the kernel in front of us has
//! checked permissions already (`default_permissions`).
//!
//! Invariants:
//! 1. A thread that acts for others has called [`prepare_thread`]; otherwise [`Identity::assume`] refuses.
//! 2. Outside an [`Identity`] a prepared thread is 0:0, without supplementary groups. Its umask stays that of the last
//!    one: whatever makes a file does so within an identity that says its umask.
//! 3. A root caller without groups, and with the umask of the last one, costs no system call.
//!
//! What the kept capabilities change for the caller: with CAP_FSETID the kernel does not take the setgid bit from a
//! file made in a setgid directory by a stranger to its group, nor setuid and setgid bits from a file that is
//! written; [`without_fsetid`] lays it aside for one operation.
//!
//! No locks; all state belongs to the thread.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;

use quota::Gid;
use rustix::fs::Mode;
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, UnshareFlags};

/// Bound on supplementary groups that are taken over, that of Linux.
pub const GROUPS_MAX: usize = 65536;

thread_local! {
    static PREPARED: Cell<bool> = const { Cell::new(false) };
    /// The umask of a prepared thread.
    static UMASK: Cell<u32> = const { Cell::new(0) };
    /// The ids that were last seen to be in force after they had been set: they can be set again unseen.
    static PROVEN: Cell<Ids> = const { Cell::new(OWN) };
}

/// A user and a group.
type Ids = (u32, u32);

/// The daemon's own.
const OWN: Ids = (0, 0);

/// The thread acts as a caller as long as this lives.
#[must_use = "the caller's identity ends when this is dropped"]
#[derive(Debug)]
pub struct Identity {
    ids: Option<Ids>,
    groups: bool,
    /// The identity belongs to the thread: this must not leave it.
    thread: PhantomData<*const ()>,
}

impl Identity {
    /// Makes the calling thread act as this user and group with this umask; `None` where nothing is made that has a mode.
    /// Identities do not nest.
    ///
    /// `EPERM` on a thread that is not prepared, `EINVAL` for the all-ones id; nothing is changed then.
    pub fn assume(uid: u32, gid: u32, umask: Option<u32>) -> io::Result<Self> {
        Self::take_on(uid, gid, None, umask)
    }

    /// The same with supplementary groups, for the few operations in which they decide something.
    pub fn assume_with_groups(
        uid: u32,
        gid: u32,
        groups: &[Gid],
        umask: Option<u32>,
    ) -> io::Result<Self> {
        Self::take_on(uid, gid, Some(groups), umask)
    }

    fn take_on(uid: u32, gid: u32, groups: Option<&[Gid]>, umask: Option<u32>) -> io::Result<Self> {
        let mut taken = Self {
            ids: None,
            groups: false,
            thread: PhantomData,
        };
        let ids = (uid, gid);
        let umask = umask
            .map(|umask| umask & 0o777)
            .filter(|&umask| umask != UMASK.get());
        if ids == OWN && groups.is_none() && umask.is_none() {
            return Ok(taken);
        }
        if !PREPARED.get() {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        if uid == u32::MAX || gid == u32::MAX {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        if let Some(umask) = umask {
            rustix::process::umask(Mode::from_raw_mode(umask));
            UMASK.set(umask);
        }
        if let Some(groups) = groups {
            // First, so that a failure half way is undone by the drop.
            taken.groups = true;
            set_groups(groups)?;
        }
        if ids != OWN {
            set_ids(OWN, ids)?;
            taken.ids = Some(ids);
        }
        Ok(taken)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let restored = self.ids.map_or(Ok(()), |ids| set_ids(ids, OWN));
        let emptied = if self.groups { set_groups(&[]) } else { Ok(()) };
        if let Err(error) = restored.and(emptied) {
            // Going back to 0:0 needs what going forth needed. Should it fail all the same, the thread must not act for
            // anybody again.
            PREPARED.set(false);
            tracing::error!(%error, "cannot return to the daemon's own identity");
        }
    }
}

/// Readies the calling thread for [`Identity::assume`]: an own umask (0), no supplementary groups, capabilities that do
/// not go with the file-system ids. Call once, with the capabilities that are to stay.
///
/// `EPERM` without CAP_SETUID, CAP_SETGID and (unless the bit was inherited) CAP_SETPCAP.
///
/// # Source
/// capabilities(7): SECBIT_NO_SETUID_FIXUP; unshare(2): CLONE_FS; credentials(7): ids are those of a thread.
pub fn prepare_thread() -> io::Result<()> {
    // SAFETY: only the sharing of umask and working directory ends; no descriptor table is touched.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
    let bits = rustix::thread::capabilities_secure_bits()?;
    if !bits.contains(CapabilitiesSecureBits::NO_SETUID_FIXUP) {
        rustix::thread::set_capabilities_secure_bits(
            bits | CapabilitiesSecureBits::NO_SETUID_FIXUP,
        )?;
    }
    set_groups(&[])?;
    rustix::process::umask(Mode::empty());
    UMASK.set(0);
    // A trial: setfsuid(2) itself never says that it failed.
    set_ids(OWN, (1, 1))?;
    set_ids((1, 1), OWN)?;
    PREPARED.set(true);
    Ok(())
}

/// Lays CAP_FSETID aside until the guard is dropped, so that the kernel treats setuid and setgid bits as for an
/// unprivileged caller.
pub fn without_fsetid() -> io::Result<FsetidGuard> {
    let sets = rustix::thread::capabilities(None)?;
    let had = sets.effective.contains(CapabilitySet::FSETID);
    if had {
        let mut lowered = sets;
        lowered.effective.remove(CapabilitySet::FSETID);
        rustix::thread::set_capabilities(None, lowered)?;
    }
    Ok(FsetidGuard {
        had,
        thread: PhantomData,
    })
}

/// CAP_FSETID is laid aside as long as this lives.
#[must_use = "the capability is back when the guard is dropped"]
#[derive(Debug)]
pub struct FsetidGuard {
    had: bool,
    thread: PhantomData<*const ()>,
}

impl Drop for FsetidGuard {
    fn drop(&mut self) {
        if !self.had {
            return;
        }
        let raised = rustix::thread::capabilities(None).and_then(|mut sets| {
            sets.effective.insert(CapabilitySet::FSETID);
            rustix::thread::set_capabilities(None, sets)
        });
        if let Err(error) = raised {
            tracing::error!(%error, "cannot take CAP_FSETID back");
        }
    }
}

/// Sets both file-system ids and makes sure of it: of ids that are new to the thread by asking for them, and each time
/// that those before were in force. After a failure they are the daemon's own.
fn set_ids(before: Ids, ids: Ids) -> io::Result<()> {
    let replaced = replace_ids(ids);
    let is_proven = ids == OWN || ids == PROVEN.get();
    // The all-ones id changes nothing and so asks only.
    if replaced == before && (is_proven || replace_ids((u32::MAX, u32::MAX)) == ids) {
        PROVEN.set(if ids == OWN { before } else { ids });
        Ok(())
    } else {
        PROVEN.set(OWN);
        replace_ids(OWN);
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

/// Sets both ids of this thread; returns those before.
fn replace_ids((uid, gid): Ids) -> Ids {
    let gid = set_fs_id(libc::SYS_setfsgid, gid);
    let uid = set_fs_id(libc::SYS_setfsuid, uid);
    (uid, gid)
}

/// Sets one id of this thread; returns the one before.
fn set_fs_id(call: libc::c_long, id: u32) -> u32 {
    // SAFETY: the call takes a number and changes nothing but this thread's credentials.
    let before = unsafe { libc::syscall(call, id) };
    // An id is 32 bits wide, and -1 where it comes back as none.
    u32::try_from(before & 0xffff_ffff).unwrap_or(u32::MAX)
}

/// Sets the supplementary groups of this thread alone (the C library's function would change all threads).
fn set_groups(groups: &[Gid]) -> io::Result<()> {
    if groups.len() > GROUPS_MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let groups: smallvec::SmallVec<[rustix::fs::Gid; 32]> = groups
        .iter()
        .map(|gid| rustix::fs::Gid::from_raw(gid.get()))
        .collect();
    Ok(rustix::thread::set_thread_groups(&groups)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::{
        chmod, chown, create_at, mkdir_at, open_dir_path, symlink_at, unlink_at,
    };
    use crate::sys::stat::{Stat, stat_at};
    use std::ffi::OsStr;
    use std::os::fd::OwnedFd;

    /// Runs on a thread of its own, as credentials and umask stay changed.
    fn on_prepared_thread<T: Send>(test: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                prepare_thread().unwrap();
                test()
            });
            thread.join().unwrap()
        })
    }

    /// A directory of another owner.
    fn foreign_dir(mode: u32) -> (tempfile::TempDir, OwnedFd) {
        let area = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = open_dir_path(area.path()).unwrap();
        chown(&dir, Some(77), Some(77)).unwrap();
        chmod(&dir, mode).unwrap();
        (area, dir)
    }

    fn create(dir: &OwnedFd, entry: &str, mode: u32) -> Stat {
        create_at(dir, OsStr::new(entry), libc::O_WRONLY, mode).unwrap();
        stat_at(dir, OsStr::new(entry)).unwrap()
    }

    #[test]
    fn what_a_caller_makes_is_the_callers_even_where_it_may_not_write() {
        let (_area, dir) = foreign_dir(0o700);
        on_prepared_thread(|| {
            let caller = Identity::assume(1000, 1001, Some(0)).unwrap();
            let stat = create(&dir, "f", 0o666);
            assert_eq!(
                (stat.uid, stat.gid, stat.permissions()),
                (1000, 1001, 0o666)
            );
            mkdir_at(&dir, OsStr::new("d"), 0o700).unwrap();
            symlink_at(OsStr::new("x"), &dir, OsStr::new("l")).unwrap();
            drop(caller);
            for entry in ["d", "l"] {
                let stat = stat_at(&dir, OsStr::new(entry)).unwrap();
                assert_eq!((stat.uid, stat.gid), (1000, 1001), "{entry}");
            }
            let own = create(&dir, "own", 0o600);
            assert_eq!((own.uid, own.gid), (0, 0));
        });
    }

    #[test]
    fn callers_in_turn_are_never_taken_for_each_other() {
        let (_area, dir) = foreign_dir(0o700);
        on_prepared_thread(|| {
            let callers = [(5, 6), (5, 6), (5, 7), (0, 7), (0, 0), (5, 6), (6, 5)];
            for (number, (uid, gid)) in callers.into_iter().enumerate() {
                let caller = Identity::assume(uid, gid, Some(0)).unwrap();
                let stat = create(&dir, &number.to_string(), 0o600);
                drop(caller);
                assert_eq!((stat.uid, stat.gid), (uid, gid), "{number}");
            }
        });
    }

    #[test]
    fn ids_that_were_not_in_force_end_the_threads_service() {
        on_prepared_thread(|| {
            let caller = Identity::assume(5, 6, None).unwrap();
            replace_ids((7, 7));
            drop(caller);
            assert_eq!(replace_ids((u32::MAX, u32::MAX)), OWN);
            let refused = Identity::assume(5, 6, None).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        });
    }

    #[test]
    fn each_identity_has_its_umask_and_groups_end_with_it() {
        let (_area, dir) = foreign_dir(0o755);
        let groups = [Gid::new(5000), Gid::new(5001)];
        on_prepared_thread(|| {
            let caller = Identity::assume_with_groups(0, 0, &groups, Some(0o027)).unwrap();
            assert_eq!(create(&dir, "f", 0o666).permissions(), 0o640);
            assert_eq!(own_groups(), vec![5000, 5001]);
            on_prepared_thread(|| assert_eq!(own_groups(), Vec::<u32>::new()));
            assert_eq!(own_groups(), vec![5000, 5001]);
            assert_eq!(create(&dir, "still", 0o666).permissions(), 0o640);
            drop(caller);
            assert_eq!(own_groups(), Vec::<u32>::new());
            for (umask, mode) in [(0, 0o666), (0o027, 0o640), (0o027, 0o640), (0o1077, 0o600)] {
                let _caller = Identity::assume(0, 0, Some(umask)).unwrap();
                assert_eq!(create(&dir, "g", 0o666).permissions(), mode);
                unlink_at(&dir, OsStr::new("g"), false).unwrap();
            }
            on_prepared_thread(|| {
                let _caller = Identity::assume(0, 0, Some(0)).unwrap();
                assert_eq!(create(&dir, "other", 0o666).permissions(), 0o666);
            });
        });
    }

    fn own_groups() -> Vec<u32> {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Groups:"))
            .unwrap();
        line.split_whitespace()
            .map(|group| group.parse().unwrap())
            .collect()
    }

    #[test]
    fn an_unprepared_thread_and_an_impossible_id_are_refused() {
        let errno = |refused: io::Result<Identity>| refused.unwrap_err().raw_os_error();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(errno(Identity::assume(1000, 1000, None)), Some(libc::EPERM));
                assert!(
                    Identity::assume(0, 0, Some(0)).is_ok(),
                    "root costs nothing and needs nothing"
                );
            });
        });
        on_prepared_thread(|| {
            assert_eq!(
                errno(Identity::assume(u32::MAX, 0, None)),
                Some(libc::EINVAL)
            );
        });
    }

    #[test]
    fn a_strangers_setgid_bit_goes_without_fsetid() {
        let (_area, dir) = foreign_dir(0o2777);
        on_prepared_thread(|| {
            let caller = Identity::assume(1000, 1000, Some(0)).unwrap();
            let kept = create(&dir, "kept", 0o2771);
            let guard = without_fsetid().unwrap();
            let taken = create(&dir, "taken", 0o2771);
            drop(guard);
            let again = create(&dir, "again", 0o2771);
            drop(caller);
            assert_eq!((kept.permissions(), kept.gid), (0o2771, 77));
            assert_eq!((taken.permissions(), taken.gid), (0o771, 77));
            assert_eq!(again.permissions(), 0o2771);
        });
    }
}

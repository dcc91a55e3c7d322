//! What the caller of a request may do beyond its ids: asked only when the answer matters.
//!
//! Capabilities count in the user namespace that the VE runs in: the host's, or the one that the VE's first process was
//! seen in. A namespace that some user of the VE made inside counts for nothing.

use std::io;

use parking_lot::Mutex;
use quota::Gid;
use rustix::thread::CapabilitySet;

use crate::quotactl::id_map::IdMap;
use crate::sys::process::{CallerLook, UserNamespace};
use crate::sys::task::NamespaceId;

/// Looks callers up in /proc.
#[derive(Debug)]
pub struct Privileges {
    processes: CallerLook,
    host: UserNamespace,
    /// Ids on the disk are those of the VE's user namespace, not the host's.
    own_ids: bool,
    /// A leaf lock.
    ve: Mutex<Option<UserNamespace>>,
}

impl Privileges {
    /// Opens /proc. `own_ids`: the ids on the disk are those of the VE's user namespace, not the host's.
    ///
    /// # Errors
    /// Where /proc cannot be opened.
    pub fn new(own_ids: bool) -> io::Result<Self> {
        let processes = CallerLook::open()?;
        let host = processes.user_namespace(std::process::id())?;
        Ok(Self {
            processes,
            host,
            own_ids,
            ve: Mutex::new(None),
        })
    }

    /// The VE runs in the user namespace of this process; the last that is named counts: a VE that is started again
    /// has another one.
    pub fn learn_ve(&self, pid: u32) {
        if let Ok(namespace) = self.processes.user_namespace(pid) {
            *self.ve.lock() = Some(namespace);
        }
    }

    /// The VE runs in this user namespace, as a predecessor learnt.
    pub fn adopt_ve(&self, namespace: NamespaceId) {
        let (_, number) = namespace.numbers();
        *self.ve.lock() = Some(UserNamespace::new(number));
    }

    /// CAP_SYS_RESOURCE: second-level limits do not hold.
    ///
    /// # Source
    /// Linux `fs/quota/dquot.c`, `ignore_hardlimit`.
    pub fn passes_second_level(&self, pid: u32) -> bool {
        self.has(pid, CapabilitySet::SYS_RESOURCE)
    }

    /// CAP_FSETID: writing and truncating leave set-id bits alone.
    pub fn may_keep_setid(&self, pid: u32) -> bool {
        self.has(pid, CapabilitySet::FSETID)
    }

    /// CAP_FSETID, or membership in the group.
    pub fn may_keep_setgid(&self, pid: u32, group: Gid) -> bool {
        self.may_keep_setid(pid)
            || self.processes.groups(pid).is_ok_and(|groups| {
                groups
                    .iter()
                    .any(|held| self.on_disk(pid, *held) == Some(group))
            })
    }

    /// The number that a group of a caller has on the disk; `None` if it has none there.
    fn on_disk(&self, pid: u32, group: Gid) -> Option<Gid> {
        let namespace = self.processes.user_namespace(pid).ok()?;
        if !self.own_ids || namespace == self.host {
            return Some(group);
        }
        if *self.ve.lock() != Some(namespace) {
            return None;
        }
        let map = IdMap::parse(&self.processes.gid_map(pid).ok()?).ok()?;
        map.to_inside(group.get()).map(Gid::new)
    }

    fn has(&self, pid: u32, capability: CapabilitySet) -> bool {
        let Ok(namespace) = self.processes.user_namespace(pid) else {
            return false;
        };
        (namespace == self.host || *self.ve.lock() == Some(namespace))
            && self
                .processes
                .effective_capabilities(pid)
                .is_ok_and(|held| held.contains(capability))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process in a user namespace of its own, with every capability there; ended when it is let go.
    struct Namespaced(Child);

    impl Namespaced {
        /// `None` where such namespaces cannot be made.
        fn start() -> Option<Self> {
            let child = Command::new("unshare")
                .args([
                    "--user",
                    "--map-root-user",
                    "sh",
                    "-c",
                    "echo there; exec cat",
                ])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn();
            let mut process = Self(child.ok()?);
            let mut said = [0; 6];
            process.0.stdout.take()?.read_exact(&mut said).ok()?;
            Some(process)
        }

        fn pid(&self) -> u32 {
            self.0.id()
        }
    }

    impl Drop for Namespaced {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn capabilities_count_in_the_namespace_of_the_ve_alone() {
        let privileges = Privileges::new(false).unwrap();
        let (Some(first), Some(second)) = (Namespaced::start(), Namespaced::start()) else {
            return;
        };
        let passing = || [&first, &second].map(|its| privileges.passes_second_level(its.pid()));
        assert_eq!(passing(), [false, false]);
        privileges.learn_ve(first.pid());
        assert_eq!(passing(), [true, false]);
        assert!(privileges.may_keep_setid(first.pid()));
        // Started again: the namespace before it is a stranger's.
        privileges.learn_ve(second.pid());
        assert_eq!(passing(), [false, true]);
    }

    #[test]
    fn in_the_hosts_namespace_the_capability_decides() {
        let privileges = Privileges::new(false).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let own = rustix::thread::gettid().as_raw_pid().cast_unsigned();
                let mut sets = rustix::thread::capabilities(None).unwrap();
                let had = sets.effective.contains(CapabilitySet::SYS_RESOURCE);
                assert_eq!(privileges.passes_second_level(own), had);
                sets.effective.remove(CapabilitySet::SYS_RESOURCE);
                rustix::thread::set_capabilities(None, sets).unwrap();
                assert!(!privileges.passes_second_level(own));
            });
        });
    }

    #[test]
    fn a_caller_that_cannot_be_seen_passes_nothing() {
        let privileges = Privileges::new(false).unwrap();
        for pid in [0, u32::MAX] {
            assert!(!privileges.passes_second_level(pid));
        }
    }
}

//! Acting as somebody else.

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// A user with a group and further groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: &'static [u32],
}

/// The administrator of the host and of the VE.
pub(crate) const ROOT: User = User {
    uid: 0,
    gid: 0,
    groups: &[],
};
pub(crate) const ALICE: User = User {
    uid: 1001,
    gid: 1001,
    groups: &[2000],
};
pub(crate) const BOB: User = User {
    uid: 1002,
    gid: 1002,
    groups: &[2000, 2001],
};

impl User {
    /// Runs `work` with this identity and without capabilities, unless it is root.
    ///
    /// Identities belong to threads in the kernel: a thread of its own changes nothing for others.
    #[track_caller]
    pub(crate) fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        if self == ROOT {
            return work();
        }
        let done = std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    let groups: Vec<_> =
                        self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
                    let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
                    set_thread_groups(&groups).expect("setgroups");
                    set_thread_res_gid(gid, gid, gid).expect("setresgid");
                    set_thread_res_uid(uid, uid, uid).expect("setresuid");
                    work()
                })
                .join()
        });
        match done {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Whether this process has CAP_SYS_RESOURCE; on some machines root has not.
pub(crate) fn holds_sys_resource() -> bool {
    rustix::thread::capabilities(None)
        .unwrap()
        .effective
        .contains(rustix::thread::CapabilitySet::SYS_RESOURCE)
}

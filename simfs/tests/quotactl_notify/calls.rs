//! What callers are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quota::{Bytes, Gid, GracePeriod, Inodes, Limits, Scope, Subject, Uid};
use simfs::quotactl::AdminPolicy;

use super::{Bench, NODEV};

#[test]
fn every_command_is_answered() {
    let bench = Bench::new(AdminPolicy::RootOfVe);
    let lines = bench.run("commands", &[]);
    // (call, errno); data is compared by the child's lines below.
    for call in [
        "sync-null",
        "sync",
        "getinfo",
        "getfmt",
        "getquota",
        "getquota-group",
        "getquota-fd",
        "next",
        "setquota",
        "setinfo",
        "quotaoff",
        "getinfo-off",
        "quotaon",
        "xgetquota",
        "xnext",
        "xsetqlim",
        "xgetqstat",
        "xgetqstatv",
        "xquotasync",
    ] {
        lines.expect(call, 0);
    }
    lines.expect("getfmt-off", 0);
    lines.expect("quotaon-again", libc::EEXIST);
    lines.expect("next-end", libc::ENOENT);
    lines.expect("project", libc::ESRCH);
    lines.expect("type-3", libc::EINVAL);
    lines.expect("unknown", libc::EINVAL);
    lines.expect("xquotarm", libc::ENOSYS);
    lines.expect("getinfo-null", NODEV);
    assert_eq!(lines.value("getinfo-flags"), 0x1_0000);
    assert_eq!(lines.value("getquota-space"), 5000);
    assert_eq!(lines.value("getquota-hard"), 8);
    assert_eq!(lines.value("next-id"), 1000);
    assert_eq!(lines.value("xgetquota-hard"), 16);
    let user = bench.engine.account(Subject::User(Uid::new(1000))).unwrap();
    // Q_SETQUOTA set 100 and 200 KiB, Q_XSETQLIM then 300 inodes hard.
    assert_eq!(user.limits.space.hard, Some(Bytes::new(200 << 10)));
    assert_eq!(user.limits.inodes.hard, Some(Inodes::new(300)));
    assert_eq!(user.usage.space, Bytes::new(5000));
    let group = bench.engine.account(Subject::Group(Gid::new(50))).unwrap();
    assert_eq!(group.limits, Limits::UNLIMITED);
    let info = bench.engine.info();
    assert_eq!(info.grace_periods(Scope::Users).space, GracePeriod::new(60));
    assert_eq!(info.grace_periods(Scope::Groups).space, GracePeriod::WEEK);
    assert!(info.is_enforced(Scope::Users));
    bench.wait_for_listeners(0);
}

#[test]
fn bad_arguments_are_refused_as_by_the_kernel() {
    let bench = Bench::new(AdminPolicy::RootOfVe);
    std::os::unix::fs::symlink("/dev/simfs", bench.dir.path().join("link")).unwrap();
    let lines = bench.run("arguments", &[]);
    let rows = [
        ("path-null-page", libc::EFAULT),
        ("path-high", libc::EFAULT),
        ("path-unended", libc::EFAULT),
        ("path-long", libc::ENAMETOOLONG),
        ("path-missing", libc::ENOENT),
        ("path-empty", libc::ENOENT),
        ("path-char", libc::ENOTBLK),
        ("path-dir", libc::ENOTBLK),
        ("path-other-device", NODEV),
        ("path-node", 0),
        ("path-relative-node", 0),
        ("data-null", libc::EFAULT),
        ("data-edge", libc::EFAULT),
        ("set-data-null", libc::EFAULT),
        ("fd-closed", libc::EBADF),
        ("fd-foreign", libc::ENOSYS),
        ("fd-path-only", 0),
        ("fd-type-3", libc::EINVAL),
        ("i386-getquota", 0),
    ];
    for (call, errno) in rows {
        lines.expect(call, errno);
    }
    assert_eq!(lines.value("i386-untouched"), 1, "68 bytes written, not 72");
}

#[test]
fn syncfs_waits_for_the_private_area_and_hears_of_its_errors() {
    let mut bench = Bench::new(AdminPolicy::RootOfVe);
    bench.service = None;
    let syncs = Arc::new(AtomicU32::new(0));
    let seen = syncs.clone();
    bench.start_with(AdminPolicy::RootOfVe, move || {
        seen.fetch_add(1, Ordering::Relaxed);
        Err(std::io::Error::from_raw_os_error(libc::EIO))
    });
    let lines = bench.run("syncfs", &[]);
    let rows = [
        ("syncfs", libc::EIO),
        // The kernel's own answers.
        ("syncfs-foreign", 0),
        ("syncfs-closed", libc::EBADF),
        ("syncfs-i386", libc::EBADF),
    ];
    for (call, errno) in rows {
        lines.expect(call, errno);
    }
    assert_eq!(syncs.load(Ordering::Relaxed), 1, "for this mount only");
}

#[test]
fn users_ask_for_their_own_only() {
    let bench = Bench::new(AdminPolicy::RootOfVe);
    let lines = bench.run("user", &[]);
    let rows = [
        ("own", 0),
        ("other", libc::EPERM),
        ("root", libc::EPERM),
        ("own-group", 0),
        ("supplementary-group", 0),
        ("other-group", libc::EPERM),
        ("next", libc::EPERM),
        ("set", libc::EPERM),
        ("unknown", libc::EPERM),
        ("info", 0),
        ("path-missing", NODEV),
        ("path-char", NODEV),
    ];
    for (call, errno) in rows {
        lines.expect(call, errno);
    }
}

#[test]
fn namespaces_decide_who_is_root() {
    let unshare = ["unshare", "--user", "--map-root-user"];
    for policy in [AdminPolicy::RootOfVe, AdminPolicy::SysAdmin] {
        let bench = Bench::new(policy);
        // The VE's namespace is the host's: root in a nested one is nobody.
        let nested = bench.run(&format!("namespace:{}", std::process::id()), &unshare);
        nested.expect("next", libc::EPERM);
        nested.expect("info", 0);
        // The VE's namespace is the new one.
        let own = bench.run("namespace:self", &unshare);
        own.expect("next", 0);
        // Only host root has a name there.
        assert_eq!(own.value("next-id"), 0);
        own.expect("next-after-root", libc::ENOENT);
        own.expect("get-unmapped", libc::EINVAL);
        // An `exec` by crun names no process: the namespace learnt last counts.
        bench
            .run("namespace:nobody", &unshare)
            .expect("next", libc::EPERM);
    }
}

#[test]
fn root_without_capabilities_needs_the_lenient_policy() {
    let drop = [
        "setpriv",
        "--bounding-set=-sys_admin",
        "--inh-caps=-sys_admin",
    ];
    for (policy, errno) in [
        (AdminPolicy::RootOfVe, 0),
        (AdminPolicy::SysAdmin, libc::EPERM),
    ] {
        let bench = Bench::new(policy);
        bench.run("unprivileged", &drop).expect("next", errno);
        bench.run("namespace:self", &[]).expect("next", 0);
    }
}

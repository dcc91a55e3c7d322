//! Where the kernel does not send again what was read and not answered (before Linux 6.9), a successor finds it where it was
//! read. Debug builds only can make a newer kernel one of these; on an older one nothing is to be made.

use rustix::fs::OFlags;

use super::{kill_and_wait, killed_under_load, kills};
use crate::cut_off::every_operation;
use crate::harness::command::finish;
use crate::harness::files::{open, put};
use crate::harness::{KIB, Spec, Ve, crash};

/// Mounts on a kernel that sends nothing again; `order` is a fault point, see `simfs::fault`.
#[track_caller]
fn mount(spec: Spec, order: Option<&str>) -> Option<Ve> {
    let ve = spec.init()?;
    let mut mount = ve.command("simfs");
    mount.args(["mount", Ve::ID]);
    if let Some(order) = order {
        mount.env("SIMFS_FAULT", order);
    }
    finish(mount.env("SIMFS_FAULT_OLD_KERNEL", "1")).ok();
    Some(ve)
}

// S73: programs in the VE wait, and see no error.
#[test]
fn a_load_that_checks_itself_notices_no_death() {
    killed_under_load(
        mount(Spec::default().second_level(), None),
        kills().div_ceil(2),
    );
}

// S73: no operation is lost or repeated. What was answered and not noted as such is not done again either.
#[test]
fn what_was_cut_off_is_done_once() {
    for point in ["described", "made", "opened", "removed", "answered"] {
        let order = format!("{point}:3:2");
        let Some(ve) = mount(Spec::default(), Some(&order)) else {
            return;
        };
        for _ in 0..4 {
            every_operation(&ve.root());
        }
        if cfg!(debug_assertions) {
            assert_eq!(ve.status()["restarts"], 2, "{point}");
        }
        ve.assert_exact();
    }
}

// S76: nor does an upgrade need it.
#[test]
fn another_program_takes_over() {
    let Some(ve) = mount(Spec::default(), None) else {
        return;
    };
    put(ve.path("file"), KIB);
    let held = open(ve.path("file"), OFlags::RDONLY).expect("open");
    let (daemon, keeper) = crash::pids(&ve);
    ve.simfs(["upgrade", Ve::ID]).ok();
    assert_ne!(crash::pids(&ve), (daemon, keeper));
    kill_and_wait(keeper);
    rustix::fs::fstatfs(&held).expect("statfs");
    assert_eq!(rustix::fs::fstat(&held).expect("stat").st_size, 1024);
    drop(held);
    let degraded = ve.status()["degraded"].to_string();
    assert!(!degraded.contains("ends with its daemon"), "{degraded}");
    if cfg!(debug_assertions) {
        assert!(degraded.contains("no passthrough"), "{degraded}");
    }
    ve.assert_exact();
}

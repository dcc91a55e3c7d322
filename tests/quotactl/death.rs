//! The daemon dies while tools wait for it.

use std::time::Duration;

use super::{answers, debian};
use crate::harness::Ve;
use crate::harness::command::{finish, within};
use crate::harness::container::Guest;

/// Each third call that a daemon takes from the kernel is its last: no more than this often.
const DEATHS: u64 = 4;

// S73: tools that call meanwhile wait too; here with a call that was received and not noted anywhere.
#[test]
fn a_call_is_answered_though_the_daemon_died_of_receiving_it() {
    let Some(ve) = debian("crun", "rw") else {
        return;
    };
    ve.umount_and_wait();
    let mut mount = ve.command("simfs");
    mount.args(["mount", Ve::ID]);
    finish(mount.env("SIMFS_FAULT", format!("received:3:{DEATHS}"))).ok();
    let rows = [
        ("set", "setquota -u ann 100 200 10 20 /"),
        ("shown", "quota -u ann"),
        ("report", "repquota -a -n"),
        ("sync", "sync -f /"),
    ];
    let answers = answers(&Guest::new(&ve, "crun"), "death", &rows);
    assert!(
        answers.values().all(|answer| answer.code == 0),
        "{answers:#?}"
    );
    let shown = &answers["shown"].text;
    assert!(shown.contains("12     100     200"), "{shown}");
    assert!(answers["report"].text.contains("#1002 "), "{answers:#?}");
    assert_eq!(ve.status()["restarts"], DEATHS);
    assert_eq!(ve.status()["last_death"], "signal 9");
    ve.assert_exact();
}

/// For a listener to go.
const PATIENCE: Duration = Duration::from_secs(30);
/// The points of `simfs::fault` while a listener is taken from a runtime.
const REGISTERING: [&str; 4] = ["connected", "heard", "listening", "registered"];
/// How many daemons in a row die of one registration.
const TAKERS: u64 = 2;

/// How many listeners a process holds.
fn listeners(pid: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let of_filters = |target: &std::path::PathBuf| target.to_string_lossy().contains("seccomp");
    targets.filter(of_filters).count()
}

// S73: a container that starts meanwhile waits for the successor, whatever the daemon was at with its filter.
#[test]
fn a_start_is_served_though_daemons_died_of_registering_it() {
    let Some(ve) = debian("crun", "rw") else {
        return;
    };
    let rows = [("shown", "quota -u -v ann")];
    for point in REGISTERING {
        ve.umount_and_wait();
        let mut mount = ve.command("simfs");
        mount.args(["mount", Ve::ID]);
        finish(mount.env("SIMFS_FAULT", format!("{point}:1:{TAKERS}"))).ok();
        let answers = answers(&Guest::new(&ve, "crun"), point, &rows);
        assert_eq!(answers["shown"].code, 0, "{point}: {answers:#?}");
        assert_eq!(ve.status()["restarts"], TAKERS, "{point}");
        assert_eq!(ve.status()["last_death"], "signal 9", "{point}");
        within(PATIENCE, "the listeners go with their processes", || {
            let held = listeners(ve.pid());
            (held == 0).then_some(()).ok_or(format!("{point}: {held}"))
        });
        ve.assert_exact();
    }
}

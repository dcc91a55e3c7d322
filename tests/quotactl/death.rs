//! The daemon dies while tools wait for it.

use super::{answers, debian};
use crate::harness::Ve;
use crate::harness::command::finish;
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

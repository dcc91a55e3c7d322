//! What each tool says and how it ends.
//!
//! # Source
//! Exit codes and texts are those of linuxquota 4.06, 4.09 and 4.11 (`quota.c`, `repquota.c`, `setquota.c`, `edquota.c`, `quotaon.c`,
//! `quotasync.c`, `warnquota.c`) on an ext4 that keeps quota itself, and of xfsprogs 6.1 (`quota/`).

use super::{answers, debian};
use crate::harness::Ve;
use crate::harness::command::run;
use crate::harness::container::Guest;

/// Name, command, exit code, what the answer contains: words, where releases of the tools differ after `|`.
type Row = (&'static str, &'static str, i32, &'static [&'static str]);

const SCRIPTED_EDITOR: &str = "printf '#!/bin/sh\\nsed -i \"s/ $OLD / $NEW /\" $1\\n' > /tmp/editor; chmod +x /tmp/editor; \
    OLD=100 NEW=150 EDITOR=/tmp/editor edquota -u ann";
const MAIL: &str = "printf 'MAIL_CMD = \"cat >> /tmp/mail\"\\nFROM = \"root@localhost\"\\n' > /etc/warnquota.conf; \
    warnquota -s; code=$?; cat /tmp/mail; exit $code";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // repquota.c: 0 also for an empty report.
    ("by number", "repquota -a -n", 0, &["/dev/simfs", "#0 ", "#1001 ", "#1002 ", "7days"]),
    ("by name", "repquota -a", 0, &["root ", "ann       --      12"]),
    ("of the root directory", "repquota -u /", 0, &["ann       --      12"]),
    ("of groups", "repquota -g /", 0, &["group quotas on device /dev/simfs", "bob       --      12"]),
    ("as csv", "repquota -a -O csv", 0, &["BlockHardLimit", "ann,ok,ok,12,0,0,,2,0,0,"]),
    // setquota.c: 0 done, 1 something was not set.
    ("set a user", "setquota -u ann 100 200 10 20 /", 0, &[]),
    ("the user's limits", "quota -u ann", 0, &["12     100     200               2      10      20"]),
    ("set a group", "setquota -g ann 0 300 0 30 -a", 0, &[]),
    ("the group's limits", "quota -g ann", 0, &["12       0     300               2       0      30"]),
    ("set an id without a name", "setquota -u -p ann 1234 -a", 0, &[]),
    ("its limits", "quota -v -u 1234", 0, &["0     100     200               0      10      20"]),
    ("set many", "printf 'bob 11 22 33 44\\n1234 0 0 0 0\\n' | setquota -u -b -a", 0, &[]),
    ("set the periods", "setquota -u -t 3600 7200 /; setquota -g -t 60 120 -a", 0, &[]),
    ("their report", "repquota -a -u -g", 0, &["grace time: 01:00; Inode grace time: 02:00", "00:01; Inode grace time: 00:02"]),
    ("exceed", "setquota -u bob 4 1000 1 100 /", 0, &[]),
    ("set running times", "setquota -u -T bob 600 1200 -a", 0, &[]),
    // quota.c: 1 when a limit is exceeded.
    ("exceeded", "quota -u bob", 1, &["12*      4    1000   00:10       2*      1     100   00:20"]),
    ("marked", "repquota -a", 0, &["bob       ++      12       4    1000  00:10"]),
    ("warned", MAIL, 0, &["bob", "/dev/simfs", "12"]),
    // edquota.c: 0 done.
    ("edited", SCRIPTED_EDITOR, 0, &[]),
    ("what was edited", "quota -u ann", 0, &["12     150     200"]),
    ("edit a group", "EDITOR=cat edquota -g ann", 0, &["/dev/simfs                       12          0        300"]),
    ("edit the periods", "EDITOR=cat edquota -t", 0, &["1hours                 2hours"]),
    ("edit running times", "EDITOR=cat edquota -T bob", 0, &["/dev/simfs"]),
    ("copy", "edquota -u -p ann bob", 0, &[]),
    ("what was copied", "quota -u bob", 0, &["12     150     200               2      10      20"]),
    // quotaon.c: -p ends with 2 when anything is on; accounting stays on.
    ("state", "quotaon -p -a", 2, &["user quota on /run/.quota (/dev/simfs) is on", "group quota on /run/.quota (/dev/simfs) is on"]),
    ("switch off", "quotaoff -v -a", 0, &["user quotas turned off", "group quotas turned off"]),
    ("state off", "quotaon -v -p -a", 2, &["user quota on /run/.quota (/dev/simfs) is on (accounting)"]),
    ("report while off", "repquota -a", 0, &["ann       --      12     150     200"]),
    ("set while off", "setquota -u ann 151 200 10 20 /", 0, &[]),
    ("switch on", "quotaon -v -a", 0, &["user quotas turned on", "group quotas turned on"]),
    ("state on", "quotaon -v -p -a", 2, &["user quota on /run/.quota (/dev/simfs) is on (enforced)"]),
    ("sync all", "quotasync -a", 0, &[]),
    ("sync one", "quotasync /", 0, &[]),
    ("the user's own", "setpriv --reuid 1001 --regid 1001 --clear-groups quota", 0, &["12     151     200"]),
    ("the user's groups", "setpriv --reuid 1002 --regid 1002 --groups 1001 quota -g", 0, &["group ann", "300"]),
    ("somebody else's", "setpriv --reuid 1001 --regid 1001 --clear-groups quota -u bob", 1, &["Permission denied|Operation not permitted"]),
    // Limits of projects do not exist here.
    ("projects", "setquota -P 5 1 2 3 4 /", 1, &["Not all specified mountpoints are using quota"]),
    ("xfs report", "xfs_quota -f -x -c 'report -u -n' /", 0, &["#1001               12        151        200"]),
    ("xfs limit", "xfs_quota -f -x -c 'limit -u bsoft=1m bhard=2m isoft=3 ihard=4 ann' /", 0, &[]),
    ("what xfs set", "quota -u ann", 0, &["12    1024    2048               2       3       4"]),
    ("xfs state", "xfs_quota -f -x -c 'state -u' /", 0, &["Accounting: ON", "Enforcement: ON", "[0 days 01:00:00]"]),
    // vzquota on the host sets what the tools then show, see the end of the test.
    ("reset", "setquota -u bob 0 0 0 0 -a", 0, &[]),
];

fn tools_work(runtime: &'static str) {
    let Some(ve) = debian(runtime, "rw") else {
        return;
    };
    let rows: Vec<_> = ROWS.iter().map(|row| (row.0, row.1)).collect();
    let answers = answers(&Guest::new(&ve, runtime), "tools", &rows);
    for (name, command, code, says) in ROWS {
        let answer = &answers[*name];
        assert_eq!(answer.code, *code, "{name}: {command}\n{}", answer.text);
        for words in *says {
            assert!(
                words.split('|').any(|words| answer.text.contains(words)),
                "{name}: no '{words}' in\n{}",
                answer.text
            );
        }
    }
    let stat = ve.vzquota(["stat", Ve::ID, "-t"]).ok().stdout;
    let line = stat
        .lines()
        .find(|line| line.contains("ann"))
        .unwrap_or_else(|| panic!("no ann:\n{stat}"));
    assert!(line.contains("1024") && line.contains("2048"), "{line}");
    assert!(ve.is_mounted());
    ve.umount_and_wait();
    assert!(
        !ve.prefix().join("run/simfs/decoy").exists(),
        "the decoy stays"
    );
    let loops = run("losetup", ["-l", "-n", "-O", "BACK-FILE"]).stdout;
    assert!(!loops.contains(ve.prefix().to_str().unwrap()), "{loops}");
}

// S44: Debian's quota tools work unmodified inside the VE.
#[test]
fn tools_work_under_crun() {
    tools_work("crun");
}

#[test]
fn tools_work_under_runc() {
    tools_work("runc");
}

/// A VE in a user namespace names its users as it sees them, and does not see those that it has no name for.
#[test]
fn tools_work_in_a_user_namespace() {
    const BASE: u32 = 100_000;
    let Some(ve) = super::debian_owned_from("crun", "rw", BASE) else {
        return;
    };
    let guest = Guest {
        id_base: Some(BASE),
        ..Guest::new(&ve, "crun")
    };
    let answers = answers(
        &guest,
        "userns",
        &[
            ("report", "repquota -a -n"),
            ("set", "setquota -u ann 100 200 10 20 /"),
            (
                "own",
                "setpriv --reuid 1001 --regid 1001 --clear-groups quota",
            ),
            ("nobody", "setquota -u 70000 1 2 3 4 /"),
            ("off and on", "quotaoff -a && quotaon -a"),
        ],
    );
    let report = &answers["report"];
    assert!(report.text.contains("#1001     --      12"), "{report:?}");
    assert!(!report.text.contains("#101001"), "{report:?}");
    assert_eq!(answers["set"].code, 0, "{answers:?}");
    assert!(
        answers["own"].text.contains("12     100     200"),
        "{answers:?}"
    );
    // An id that the VE's namespace has no room for.
    assert_eq!(answers["nobody"].code, 1, "{answers:?}");
    assert_eq!(answers["off and on"].code, 0, "{answers:?}");
    let stat = ve.stat();
    let users = stat["second_level"]["users"]["accounts"]
        .as_array()
        .unwrap()
        .clone();
    let ann = users.iter().find(|user| user["id"] == BASE + 1001).unwrap();
    assert_eq!(ann["limits"]["space"]["hard"], 200 << 10);
}

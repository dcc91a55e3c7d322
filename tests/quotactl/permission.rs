//! Who may ask what: quotactl(2) itself, called by many callers under both policies.
//!
//! # Source
//! Linux `fs/quota/quota.c`, `check_quotactl_permission`; with the VE's user namespace in the place of the host's.

use super::{Answer, answers, debian};
use crate::harness::Ve;
use crate::harness::container::Guest;

/// Prints `ok` or the error number for: command, type, id.
pub(crate) const CALL: &str = r#"#!/usr/bin/perl
my ($command, $type, $id) = @ARGV;
my $data = "\0" x 160;
my $path = "/dev/simfs";
my $answer = syscall(179, hex($command) << 8 | $type, $path, $id + 0, $data);
print $answer < 0 ? $! + 0 : "ok", "\n";
"#;

/// Each as command, type and id: own user, other user, own group, other group, next, set limits, set periods, periods,
/// sync, projects, unknown command.
pub(crate) const CALLS: &str = "800007 0 1001\n800007 0 1002\n800007 1 1001\n800007 1 1002\n800009 0 0\n800008 0 1001\n\
    800006 0 0\n800005 0 0\n800001 0 0\n800005 2 0\n80000f 0 0";
pub(crate) const ALL: &str = "ok ok ok ok ok ok ok ok ok 3 22";
/// EPERM is 1, ESRCH 3, EINVAL 22.
pub(crate) const USER: &str = "ok 1 ok 1 1 1 1 ok ok 3 1";
const NOBODY: &str = "1 1 1 1 1 1 1 ok ok 3 1";
/// Whoever made a namespace of its own has every capability in it, and names for nobody but itself.
pub(crate) const NESTED: &str = "1 1 1 1 1 1 1 ok ok 3 1";

const ANN: &str = "setpriv --reuid 1001 --regid 1001 --clear-groups";
const NESTED_ANN: &str = "setpriv --reuid 1001 --regid 1001 --clear-groups unshare -U -r";
const OTHER: &str = "setpriv --reuid 4321 --regid 4321 --clear-groups";
const MEMBER: &str = "setpriv --reuid 4321 --regid 4321 --groups 1001";
/// Needs CAP_SETPCAP: without it the bounding set stays, and root has what it has.
const UNPRIVILEGED_ROOT: &str = "setpriv --bounding-set -all --inh-caps -all";

fn ask(
    ve: &Ve,
    name: &str,
    capabilities: &'static [&'static str],
    callers: &[(&'static str, &str, &str)],
) {
    let path = ve.path("usr/bin/call-quotactl");
    std::fs::write(&path, CALL).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(ve.path("srv/calls"), format!("{CALLS}\n")).unwrap();
    let commands: Vec<(&str, String)> = callers
        .iter()
        .map(|(who, prefix, _)| {
            (
                *who,
                format!("while read call; do {prefix} call-quotactl $call; done < /srv/calls"),
            )
        })
        .collect();
    let rows: Vec<_> = commands
        .iter()
        .map(|(who, command)| (*who, command.as_str()))
        .collect();
    let guest = Guest {
        capabilities,
        ..Guest::new(ve, "crun")
    };
    let held = format!("{UNPRIVILEGED_ROOT} grep CapEff /proc/self/status");
    let rows = [&rows[..], &[("held", &held)]].concat();
    let answers = answers(&guest, name, &rows);
    if capabilities.contains(&"CAP_SETPCAP") {
        assert_eq!(answers["held"].text, "CapEff:\t0000000000000000\n");
    }
    for (who, _, expected) in callers {
        let Answer { text, .. } = &answers[*who];
        let said: Vec<_> = text.lines().collect();
        assert_eq!(said.join(" "), *expected, "{name}: {who}");
    }
}

// S48: who administers from inside: root of the VE, or with quotaadmin=strict CAP_SYS_ADMIN in the VE's namespace.
#[test]
fn root_of_the_ve_administers() {
    let Some(ve) = debian("crun", "quotaadmin=root") else {
        return;
    };
    ask(
        &ve,
        "root",
        &["CAP_SETPCAP"],
        &[
            ("root", "", ALL),
            ("root without capabilities", UNPRIVILEGED_ROOT, ALL),
            ("user", ANN, USER),
            ("other user", OTHER, NOBODY),
            ("member of the group", MEMBER, "1 1 ok 1 1 1 1 ok ok 3 1"),
            ("root in a nested namespace", "unshare -U", NESTED),
            ("user as root of a nested namespace", NESTED_ANN, NESTED),
        ],
    );
}

#[test]
fn strictly_only_cap_sys_admin_administers() {
    let Some(ve) = debian("crun", "quotaadmin=strict") else {
        return;
    };
    ask(
        &ve,
        "without",
        &[],
        &[("root", "", NOBODY), ("user", ANN, USER)],
    );
    ask(
        &ve,
        "with",
        &["CAP_SYS_ADMIN", "CAP_SETPCAP"],
        &[
            ("root", "", ALL),
            ("root without capabilities", UNPRIVILEGED_ROOT, NOBODY),
            ("user", ANN, USER),
            ("root in a nested namespace", "unshare -U", NESTED),
        ],
    );
}

// S49: nothing is told of devices and paths to those who may not look.
#[test]
fn other_devices_are_not_ours() {
    let Some(ve) = debian("crun", "rw") else {
        return;
    };
    let call = |path: &str| {
        format!(
            "perl -e '$p=\"{path}\"; $d=\"\\0\"x72; print syscall(179, 0x80000500, $p, 0, $d) < 0 ? $!+0 : \"ok\", \"\\n\"'"
        )
    };
    // By a descriptor of the shell's.
    let by_descriptor = |of: &str| {
        format!(
            "perl -e '$d=\"\\0\"x72; print syscall(443, 4, 0x80000500, 0, $d) < 0 ? $!+0 : \"ok\", \"\\n\"' 4< {of}"
        )
    };
    let user = |command: String| format!("{ANN} {command}");
    let links = "ln -s round /srv/round; ln -s /dev/simfs /srv/link; mkdir -m 700 /srv/closed; touch /srv/closed/file";
    let rows = [
        ("links", links.to_owned()),
        ("ours", call("/dev/simfs")),
        ("the same by another way", call("/dev/../dev/./simfs")),
        ("the same by a link", call("/srv/link")),
        ("no such", call("/dev/nothing")),
        ("below a file", call("/etc/passwd/simfs")),
        ("no device", call("/etc/passwd")),
        ("in circles", call("/srv/round")),
        ("too long", call(&"/x".repeat(2048))),
        ("user, no such", user(call("/root/nothing"))),
        ("user, no device", user(call("/etc/passwd"))),
        ("user, in circles", user(call("/srv/round"))),
        ("user, there", user(call("/srv/closed/file"))),
        ("user, not there", user(call("/srv/closed/nothing"))),
        ("of the root", by_descriptor("/")),
        ("of another file system", by_descriptor("/proc")),
        ("of a device", by_descriptor("/dev/null")),
        (
            "of the mount that the tools look at",
            by_descriptor("/run/.quota"),
        ),
        (
            "of nothing",
            by_descriptor("/; true").replace("443, 4", "443, 77"),
        ),
    ];
    let rows: Vec<_> = rows
        .iter()
        .map(|(name, command)| (*name, command.as_str()))
        .collect();
    let answers = answers(&Guest::new(&ve, "crun"), "devices", &rows);
    let answers: Vec<_> = rows
        .iter()
        .map(|(name, _)| (*name, answers[*name].text.trim()))
        .collect();
    // ENOENT is 2, EBADF 9, ENOTBLK 15, ENODEV 19, ENOTDIR 20, ENAMETOOLONG 36, ENOSYS 38, ELOOP 40.
    let expected = [
        "", "ok", "ok", "ok", "2", "2", "15", "40", "36", "19", "19", "19", "19", "19", "ok", "38",
        "38", "38", "9",
    ];
    assert!(
        answers.iter().map(|(_, text)| *text).eq(expected),
        "{answers:?}"
    );
}

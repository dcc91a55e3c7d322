//! What each tool says and how it ends: the same, to the letter, as on an ext4 that keeps quota itself.
//!
//! `reference/tools.txt` holds the commands and what came of them there; `reference/record` is how they were recorded.
//! Left out of the comparison, line by line:
//! - what the system's own files occupy: Debian's to decide, and different from release to release;
//! - where the tools think to be: on ext4 at the root, in a VE at the mount that makes them look ([`DECOY`]);
//! - the inode of the quota file that xfs_quota names: there is none here.

use super::{Answer, answers, debian, debian_owned_from};
use crate::harness::Ve;
use crate::harness::command::run;
use crate::harness::container::Guest;

const REFERENCE: &str = include_str!("reference/tools.txt");
const DECOY: &str = "/run/.quota (/dev/simfs)";
/// Users and groups of the system's files, by name and number.
const SYSTEM: [&str; 10] = [
    "root", "mail", "utmp", "shadow", "staff", "#0", "#8", "#42", "#43", "#50",
];

/// A command and what came of it on ext4.
struct Row {
    name: &'static str,
    command: &'static str,
    expected: Answer,
}

fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for line in REFERENCE.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            let (command, expected) = ("", Answer::default());
            rows.push(Row {
                name,
                command,
                expected,
            });
        }
        let Some(row) = rows.last_mut() else { continue };
        if let Some(command) = line.strip_prefix("$ ") {
            row.command = command;
        } else if let Some(code) = line.strip_prefix("-- ") {
            row.expected.code = code.parse().unwrap();
        } else if !line.starts_with("== ") {
            row.expected.text += line;
            row.expected.text.push('\n');
        }
    }
    rows
}

/// The lines that are the same wherever the tools run.
fn comparable(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut of_system = false;
    for line in text.lines() {
        let line = line.trim_end().replace(DECOY, "/ (/dev/simfs)");
        let line = line.replace("[/run/.quota]", "[/]");
        let first = line.split([' ', ',']).next().unwrap_or_default();
        of_system |= SYSTEM
            .iter()
            .any(|name| line.contains(&format!("='{name}'>")));
        if !of_system && !SYSTEM.contains(&first) && !line.starts_with("  Inode: ") {
            lines.push(line);
        } else if line.contains("</Quota>") {
            of_system = false;
        }
    }
    lines
}

/// Runs all commands in one container.
#[track_caller]
fn assert_as_on_ext4(guest: &Guest<'_>) {
    let rows = rows();
    let commands: Vec<_> = rows.iter().map(|row| (row.name, row.command)).collect();
    let answers = answers(guest, "tools", &commands);
    let mut differences = String::new();
    for Row {
        name,
        command,
        expected,
    } in &rows
    {
        let found = &answers[*name];
        // Other releases of the tools have other words.
        let says_the_same = std::env::var_os("SIMFS_TEST_QUOTA_ROOT").is_some()
            || comparable(&found.text) == comparable(&expected.text);
        if found.code != expected.code || !says_the_same {
            differences += &format!(
                "== {name}\n$ {command}\non ext4:\n{}-- {}\nhere:\n{}-- {}\n",
                expected.text, expected.code, found.text, found.code
            );
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

fn tools_work(runtime: &'static str) {
    let Some(ve) = debian(runtime, "rw") else {
        return;
    };
    // Neither capability is one that runtimes give: CAP_SYS_ADMIN is not needed.
    assert_as_on_ext4(&Guest::new(&ve, runtime));
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

/// Who administers by CAP_SYS_ADMIN alone.
#[test]
fn tools_work_with_strict_administration() {
    let Some(ve) = debian("crun", "quotaadmin=strict") else {
        return;
    };
    assert_as_on_ext4(&Guest {
        capabilities: &["CAP_SYS_ADMIN"],
        ..Guest::new(&ve, "crun")
    });
}

/// A VE in a user namespace names its users as it sees them, and does not see those that it has no name for.
#[test]
fn tools_work_in_a_user_namespace() {
    const BASE: u32 = 100_000;
    let Some(ve) = debian_owned_from("crun", "rw", BASE) else {
        return;
    };
    let guest = Guest {
        id_base: Some(BASE),
        ..Guest::new(&ve, "crun")
    };
    assert_as_on_ext4(&guest);
    let rows = [
        // An id that the VE's namespace has no room for.
        ("nobody", "setquota -u 70000 1 2 3 4 /"),
        ("set", "setquota -u ann 100 200 10 20 /"),
    ];
    let answers = answers(&guest, "ids", &rows);
    assert_eq!(answers["nobody"].code, 1, "{answers:?}");
    assert_eq!(answers["set"].code, 0, "{answers:?}");
    let stat = ve.stat();
    let users = stat["second_level"]["users"]["accounts"]
        .as_array()
        .unwrap()
        .clone();
    let ann = users.iter().find(|user| user["id"] == BASE + 1001).unwrap();
    assert_eq!(ann["limits"]["space"]["hard"], 200 << 10);
}

//! `vzctl set` on a VE that runs: what the host has a controller for is in force at once, the rest is named.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Host;
use super::groups::group;
use crate::harness::command::{Outcome, eventually, finish, program};
use crate::harness::{namespace, require};

/// A mount namespace in which all commands of a test are run.
struct View {
    holder: Child,
}

impl View {
    /// One that sees both generations of cgroups as the host does, or only the first.
    fn new(is_first_only: bool) -> Self {
        let hide = if is_first_only {
            "umount -a -t cgroup2; "
        } else {
            ""
        };
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "slave", "sh", "-c"])
            .arg(format!(
                "{}{hide}echo ready; exec sleep 600",
                namespace::LET_GO
            ))
            .stdout(Stdio::piped());
        let mut holder = command.spawn().expect("a namespace");
        let mut line = String::new();
        let output = holder.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Self { holder }
    }

    #[track_caller]
    fn vzctl(&self, host: &Host, args: &[&str]) -> Outcome {
        let mut command = Command::new("timeout");
        command
            .args(["60", "nsenter", "--mount", "--target"])
            .arg(self.holder.id().to_string())
            .arg(program("vzctl"))
            .args(["--quiet", "--runtime", host.runtime])
            .args(args)
            .env("SIMFS_PREFIX", host.base.path())
            .env("LC_ALL", "C");
        finish(&mut command)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _may_have_ended = self.holder.kill();
        let _its_end = self.holder.wait();
    }
}

/// Option, value, key, controller; file and what stands in it then, in the first generation and in the second.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    [[&'static str; 2]; 2],
);

#[rustfmt::skip]
const ROWS: [Row; 9] = [
    ("--cpuunits", "2000", "CPUUNITS", "cpu", [["cpu.shares", "2048"], ["cpu.weight", "79"]]),
    ("--cpulimit", "50", "CPULIMIT", "cpu", [["cpu.cfs_quota_us", "50000"], ["cpu.max", "50000 100000"]]),
    ("--cpus", "1", "CPUS", "cpuset", [["cpuset.cpus", "0"], ["cpuset.cpus", "0"]]),
    ("--ram", "unlimited", "PHYSPAGES", "memory", [["memory.limit_in_bytes", "9223372036854771712"], ["memory.max", "max"]]),
    ("--ram", "64M", "PHYSPAGES", "memory", [["memory.limit_in_bytes", "67108864"], ["memory.max", "67108864"]]),
    ("--numproc", "77", "NUMPROC", "pids", [["ve/pids.max", "77"], ["ve/pids.max", "77"]]),
    ("--ioprio", "7", "IOPRIO", "blkio", [["blkio.bfq.weight", "640"], ["io.bfq.weight", "640"]]),
    ("--iolimit", "10", "IOLIMIT", "blkio", [["blkio.throttle.write_bps_device", "10485760"], ["io.max", "wbps=10485760"]]),
    ("--iopslimit", "100", "IOPSLIMIT", "blkio", [["blkio.throttle.read_iops_device", "100"], ["io.max", "riops=100"]]),
];

/// Whether the host's controllers are those of the second generation.
fn is_second() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// What stands in the file of a limit.
fn limit(host: &Host, controller: &str, files: [[&'static str; 2]; 2]) -> (String, &'static str) {
    let [file, expected] = files[usize::from(is_second())];
    let place = if is_second() { "." } else { controller };
    let path = group(host, "101", place).join(file);
    let text = std::fs::read_to_string(&path);
    (
        text.unwrap_or_else(|error| format!("{}: {error}", path.display())),
        expected,
    )
}

// S70: in force where there is a controller, else named; and the next is applied all the same.
fn settings(runtime: &'static str, is_first_only: bool) {
    if is_first_only && is_second() {
        return require::skip("the controllers of this host are of the second generation");
    }
    let Some(host) = Host::small(runtime) else {
        return;
    };
    let view = View::new(is_first_only);
    host.create("101", &[]).ok();
    view.vzctl(&host, &["start", "101"]).ok();
    let mut kept = Vec::new();
    for (number, (option, value, key, controller, files)) in ROWS.into_iter().enumerate() {
        let hostname = format!("named{number}");
        let line = [
            "set",
            "101",
            option,
            value,
            "--hostname",
            &hostname,
            "--save",
        ];
        let outcome = view.vzctl(&host, &line);
        if outcome.code == 0 {
            let (text, expected) = limit(&host, controller, files);
            assert!(text.contains(expected), "{option} {value}: {text}");
            kept.retain(|(other, ..): &Row| *other != option);
            kept.push((option, value, key, controller, files));
        } else {
            // Not every kernel has this file, nor every disk a device of its own.
            assert_eq!(controller, "blkio", "{outcome:?}");
            outcome.refused(1, key);
        }
        let named = view.vzctl(&host, &["exec", "101", "cat /etc/hostname; hostname"]);
        assert_eq!(
            named.ok().stdout,
            format!("{hostname}\n").repeat(2),
            "{option}"
        );
    }
    let names = "set 101 --nameserver 192.0.2.1 --searchdomain example.org --save";
    let names: Vec<&str> = names.split(' ').collect();
    view.vzctl(&host, &names).ok();
    let text = view
        .vzctl(&host, &["exec", "101", "cat /etc/resolv.conf"])
        .ok()
        .stdout;
    assert_eq!(text, "search example.org\nnameserver 192.0.2.1\n");
    for (option, value, expected) in [
        (
            "--nameserver",
            "192.0.2.2",
            "search example.org\nnameserver 192.0.2.2\n",
        ),
        (
            "--searchdomain",
            "example.net",
            "search example.net\nnameserver 192.0.2.2\n",
        ),
    ] {
        view.vzctl(&host, &["set", "101", option, value, "--save"])
            .ok();
        let text = view.vzctl(&host, &["exec", "101", "cat /etc/resolv.conf"]);
        assert_eq!(text.ok().stdout, expected, "{option}");
    }
    limits_bite(&host, &view);
    view.vzctl(&host, &["restart", "101", "--fast"]).ok();
    for (option, value, _, controller, files) in kept {
        let (text, expected) = limit(&host, controller, files);
        assert!(
            text.contains(expected),
            "{option} {value} after the next start: {text}"
        );
    }
    memory_and_swap(&host, &view);
    view.vzctl(&host, &["stop", "101", "--fast"]).ok();
    view.vzctl(&host, &["destroy", "101"]).ok();
    host.assert_nothing_left();
}

/// The limits of the rows hold: of memory, which nothing in the VE passes, and of the CPU, which it is made to wait for.
fn limits_bite(host: &Host, view: &View) {
    let large = "busybox dd if=/dev/zero of=/dev/null bs=150M count=1 2> /dev/null";
    let ended = view.vzctl(host, &["exec", "101", large]);
    assert_ne!(ended.code, 0, "{ended:?}");
    view.vzctl(
        host,
        &[
            "exec",
            "101",
            "busybox dd if=/dev/zero of=/dev/null bs=1M count=100 2> /dev/null",
        ],
    )
    .ok();
    let busy = "while :; do :; done < /dev/null > /dev/null 2>&1 &";
    view.vzctl(host, &["exec", "101", busy]).ok();
    // So little that even a busy host gives it more.
    view.vzctl(host, &["set", "101", "--cpulimit", "1"]).ok();
    eventually("the VE is made to wait for its CPU", || {
        let (text, _) = limit(host, "cpu", [["cpu.stat", ""]; 2]);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "));
        let is_throttled = line.is_some_and(|number| number != "0");
        is_throttled.then_some(()).ok_or(text)
    });
    view.vzctl(host, &["set", "101", "--cpulimit", "50"]).ok();
}

/// The first generation limits the sum of memory and swap space: each is set for itself all the same.
fn memory_and_swap(host: &Host, view: &View) {
    if is_second() {
        let files = [["", ""], ["memory.swap.max", "33554432"]];
        view.vzctl(host, &["set", "101", "--swap", "32M"]).ok();
        assert_eq!(limit(host, "memory", files).0.trim(), files[1][1]);
        return;
    }
    let sum = group(host, "101", "memory").join("memory.memsw.limit_in_bytes");
    if !sum.exists() {
        return require::skip("the kernel does not limit swap space");
    }
    for (line, mib) in [
        (&["--ram", "64M"][..], None),
        (&["--swap", "32M"], Some(96)),
        (&["--ram", "128M"], Some(160)),
        (&["--ram", "64M"], Some(96)),
        (&["--swap", "16M", "--cpus", "1"], Some(80)),
        (&["--swap", "unlimited"], None),
    ] {
        view.vzctl(host, &[&["set", "101"], line].concat()).ok();
        let bytes = std::fs::read_to_string(&sum).expect("a limit");
        let bytes: u64 = bytes.trim().parse().expect("a number");
        let limit = Some(bytes >> 20).filter(|_| bytes < 1 << 60);
        assert_eq!(limit, mib, "{line:?}");
    }
}

// S70: what only the configuration holds is not taken without it.
#[test]
fn what_would_be_lost_is_refused_while_the_ve_runs() {
    let Some(host) = Host::small("crun") else {
        return;
    };
    host.create("101", &[]).ok();
    host.vzctl(&["start", "101"]).ok();
    let file = host.path("etc/vz/conf/101.conf");
    let before = std::fs::read_to_string(&file).expect("configuration");
    for (option, value, key) in [
        ("--onboot", "yes", "ONBOOT"),
        ("--bootorder", "5", "BOOTORDER"),
        ("--name", "one", "NAME"),
        ("--description", "a note", "DESCRIPTION"),
        ("--disabled", "yes", "DISABLED"),
        ("--capability", "sys_time:on", "CAPABILITY"),
        ("--local_uid", "100000", "LOCAL_UID"),
        ("--local_gid", "100000", "LOCAL_GID"),
    ] {
        let line = ["set", "101", option, value, "--hostname", "lost"];
        let outcome = host.vzctl(&line).refused(31, "--save");
        assert!(outcome.stderr.contains(key), "{outcome:?}");
        assert!(!outcome.stderr.contains("next start"), "{outcome:?}");
    }
    assert_ne!(host.exec("101", "hostname").ok().stdout, "lost\n");
    assert_eq!(
        std::fs::read_to_string(&file).expect("configuration"),
        before
    );
    host.vzctl(&["set", "101", "--onboot", "yes", "--save"])
        .ok();
    // What the configuration says already is not lost.
    host.vzctl(&["set", "101", "--onboot", "yes"]).ok();
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

#[test]
fn limits_are_in_force_with_crun() {
    settings("crun", false);
}

#[test]
fn limits_are_in_force_with_runc() {
    settings("runc", false);
}

#[test]
fn limits_are_in_force_with_the_first_generation_alone() {
    settings("crun", true);
}

// S29: whether there is a second level is taken from the configuration at each start, and from nowhere else.
#[test]
fn a_start_follows_the_configured_number_of_ids() {
    let Some(host) = Host::small("crun") else {
        return;
    };
    host.create("101", &["--quotaugidlimit", "10"]).ok();
    let file = host.path("etc/vz/conf/101.conf");
    let edit = |from: &str, to: &str| {
        let key = |value: &str| format!("QUOTAUGIDLIMIT=\"{value}\"");
        let text = std::fs::read_to_string(&file).expect("configuration");
        assert!(text.contains(&key(from)), "{text}");
        std::fs::write(&file, text.replace(&key(from), &key(to))).expect("configuration");
    };
    let is_on = || {
        let mut stat = host.command("vzquota");
        let shown = finish(stat.args(["stat", "101", "-t", "--json"])).stdout;
        let report: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        report["second_level"]["users"]["enforced"] == true
    };
    let restart = || drop(host.vzctl(&["restart", "101", "--fast"]).ok());
    assert!(is_on());
    edit("10", "0");
    host.vzctl(&["start", "101"]).ok();
    assert!(!is_on());
    edit("0", "5");
    restart();
    assert!(is_on());
    let set = ["set", "101", "--quotaugidlimit", "0", "--save"];
    host.vzctl(&set).ok();
    assert!(is_on(), "not before the next start");
    restart();
    assert!(!is_on());
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

// S72: told at the mount, applied by order only.
#[test]
fn a_configuration_edited_by_hand_is_told_and_applied_when_asked() {
    let Some(host) = Host::small("crun") else {
        return;
    };
    host.create("101", &["--diskspace", "20M:30M"]).ok();
    let file = host.path("etc/vz/conf/101.conf");
    let text = std::fs::read_to_string(&file).expect("configuration");
    let edited = text.replace("DISKSPACE=\"20480:30720\"", "DISKSPACE=\"40M:50M\"");
    assert_ne!(edited, text);
    std::fs::write(&file, edited + "DISKSPACE=\"1:1\"\n").expect("configuration");
    let soft = || {
        let shown = host.vzlist(&["-a", "-H", "-o", "diskspace.s"]).ok().stdout;
        shown.trim().to_owned()
    };
    let mut start = host.command("vzctl");
    let said = finish(start.args(["start", "101"])).ok().stderr;
    assert!(said.contains("DISKSPACE of the configuration"), "{said}");
    assert!(said.contains("--applyconfig"), "{said}");
    assert!(said.contains("stands above already"), "{said}");
    assert_eq!(soft(), "20480", "the record decides");
    host.vzctl(&["set", "101", "--applyconfig"]).ok();
    assert_eq!(soft(), "40960");
    let mut restart = host.command("vzctl");
    let said = finish(restart.args(["restart", "101", "--fast"]))
        .ok()
        .stderr;
    assert!(!said.contains("is not the limit in force"), "{said}");
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

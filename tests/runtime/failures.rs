//! Whatever goes wrong at a step of `create` or `start`, the same command succeeds when the cause is gone; so it does
//! after `vzctl` was killed there.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::Host;
use super::groups::group;
use crate::harness::command::{eventually, finish};

/// Programs that stand before the host's in the search path.
pub(super) fn put_program(dir: &Path, name: &str, script: &str) {
    std::fs::create_dir_all(dir).expect("programs");
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a program");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("chmod");
}

/// A program of the host, below the ones that stand before it.
fn host_program(name: &str) -> String {
    let path = std::env::var("PATH").expect("PATH");
    path.split(':')
        .chain(["/usr/sbin"])
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
        .expect(name)
        .display()
        .to_string()
}

/// What is put in the way: a script on the host that vzctl runs, or a program that it starts.
enum Obstacle {
    /// An action script with this text.
    Script(&'static str, &'static str),
    /// A program with this text; `REAL` stands for the host's.
    Program(&'static str, &'static str),
    /// A tmpfs of so many KiB at a place below the prefix.
    Tiny(&'static str, u32),
}

impl Obstacle {
    fn put(&self, host: &Host) {
        match self {
            Self::Script(name, text) => put_program(&host.path("etc/vz/conf"), name, text),
            Self::Program(name, text) => {
                let text = text.replace("REAL", &host_program(name));
                put_program(&host.path("programs"), name, &text);
            }
            Self::Tiny(place, kib) => {
                let place = host.path(place);
                std::fs::create_dir_all(&place).expect("a place");
                let size = std::ffi::CString::new(format!("size={kib}k")).expect("options");
                mount(
                    "tiny",
                    &place,
                    "tmpfs",
                    MountFlags::empty(),
                    size.as_c_str(),
                )
                .expect("tmpfs");
            }
        }
    }

    fn clear(&self, host: &Host) {
        match self {
            Self::Script(name, _) => {
                std::fs::remove_file(host.path("etc/vz/conf").join(name)).expect("the script");
            }
            Self::Program(name, _) => {
                std::fs::remove_file(host.path("programs").join(name)).expect("the program");
            }
            Self::Tiny(place, _) => unmount(host.path(place), UnmountFlags::DETACH).expect("tmpfs"),
        }
    }
}

const KILLED: i32 = 137;
const KILL: &str = "kill -KILL $PPID; sleep 0.2; exit 1";

// S66: start, step by step.
#[test]
fn start_succeeds_after_a_failure_at_any_step() {
    use Obstacle::{Program, Script, Tiny};
    let Some(host) = Host::small("crun") else {
        return;
    };
    host.create("101", &[]).ok();
    let rows: [(&str, Obstacle, i32); 10] = [
        (
            "script before mounting fails",
            Script("101.premount", "exit 3"),
            79,
        ),
        (
            "killed before mounting",
            Script("101.premount", KILL),
            KILLED,
        ),
        (
            "script after mounting fails",
            Script("vps.mount", "exit 3"),
            79,
        ),
        ("killed after mounting", Script("vps.mount", KILL), KILLED),
        ("no space for the bundle", Tiny("run/vz", 4), 3),
        ("the root is taken", Tiny("vz/root/101", 64), 50),
        (
            "the runtime fails",
            Program(
                "crun",
                "[ \"$3\" != run ] || { echo broken; exit 1; }; exec REAL \"$@\"",
            ),
            3,
        ),
        (
            "killed before the runtime starts it",
            Program("crun", KILL),
            KILLED,
        ),
        (
            "the script in the VE fails",
            Script("101.start", "exit 3"),
            79,
        ),
        (
            "killed in the VE's script",
            Program(
                "crun",
                "[ \"$3\" != exec ] || { kill -KILL $PPID; sleep 0.2; exit 1; }; exec REAL \"$@\"",
            ),
            KILLED,
        ),
    ];
    let begin = Script("101.start", "true");
    for (name, obstacle, code) in rows {
        let has_script = name.contains("VE's script");
        if has_script {
            begin.put(&host);
        }
        obstacle.put(&host);
        let first = host.vzctl(&["start", "101"]);
        assert_eq!(first.code, code, "{name}: {first:?}");
        obstacle.clear(&host);
        let state = host.vzctl(&["status", "101"]).ok().stdout;
        let again = host.vzctl(&["start", "101"]);
        // It was killed when the VE ran already.
        let expected = if state.ends_with("running\n") { 32 } else { 0 };
        assert_eq!(
            (again.code, has_script),
            (expected, expected == 32),
            "{name}: {again:?}"
        );
        assert_eq!(
            host.exec("101", "echo $((6 * 7))").ok().stdout,
            "42\n",
            "{name}"
        );
        if has_script {
            begin.clear(&host);
        }
        host.vzctl(&["stop", "101", "--fast"]).ok();
        host.assert_status("101", "exist unmounted down");
    }
    // Served at another place already.
    let elsewhere = host.path("elsewhere");
    std::fs::create_dir_all(&elsewhere).expect("a place");
    let simfs = |args: &[&str]| {
        finish(host.command("simfs").args(args)).ok();
    };
    simfs(&["mount", "101", elsewhere.to_str().expect("a path")]);
    host.vzctl(&["start", "101"]).refused(50, "already mounted");
    simfs(&["umount", "101"]);
    host.vzctl(&["start", "101"]).ok();
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    std::fs::remove_dir_all(host.path("programs")).expect("programs");
    host.assert_nothing_left();
}

// S65, S66: a root that somebody takes away from a running VE ends with the VE, and nothing stands in the way then.
#[test]
fn a_root_taken_away_from_a_running_ve_ends_with_it() {
    let Some(host) = Host::small("crun") else {
        return;
    };
    host.create("101", &[]).ok();
    let mut groups = Vec::new();
    for round in ["stopped", "ended and destroyed"] {
        host.vzctl(&["start", "101"]).ok();
        groups.extend(
            ["pids", "."]
                .map(|place| group(&host, "101", place))
                .into_iter()
                .find(|group| group.exists()),
        );
        let simfs = || finish(host.command("simfs").args(["umount", "101"]));
        simfs().refused(1, "still used from elsewhere");
        host.assert_status("101", "exist unmounted running");
        host.exec("101", "echo on > /mark; cat /mark").ok();
        if round == "stopped" {
            host.vzctl(&["stop", "101", "--fast"]).ok();
            host.assert_status("101", "exist unmounted down");
            continue;
        }
        host.exec("101", "kill -TERM 1");
        eventually("the daemon ends with the VE", || {
            let said = simfs();
            let is_gone = said.stderr.contains("not mounted");
            is_gone.then_some(()).ok_or(said.stderr)
        });
    }
    host.vzctl(&["destroy", "101"]).ok();
    assert_eq!(groups.len(), 2);
    for group in groups {
        assert!(!group.exists(), "{}", group.display());
    }
    host.assert_nothing_left();
}

// S66: create, step by step.
#[test]
fn create_succeeds_after_a_failure_at_any_step() {
    use Obstacle::{Program, Tiny};
    let Some(host) = Host::small("crun") else {
        return;
    };
    let rows: [(&str, Obstacle, i32); 4] = [
        ("no space for the files", Tiny("vz/private", 256), 46),
        ("no space for the record", Tiny("var/lib/simfs", 4), 61),
        (
            "unpacking fails",
            Program("cp", "echo broken >&2; exit 1"),
            48,
        ),
        (
            "killed while unpacking",
            Program("cp", "REAL \"$@\"; kill -KILL $PPID; exit 1"),
            KILLED,
        ),
    ];
    for (name, obstacle, code) in rows {
        obstacle.put(&host);
        let first = host.create("101", &[]);
        assert_eq!(first.code, code, "{name}: {first:?}");
        obstacle.clear(&host);
        host.assert_status("101", "deleted unmounted down");
        host.create("101", &[]).ok();
        host.vzctl(&["destroy", "101"]).ok();
    }
    std::fs::remove_dir_all(host.path("programs")).expect("programs");
    host.assert_nothing_left();
}

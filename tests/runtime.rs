//! Real Debian VEs over their whole life, with each container runtime.

mod beancounters;
mod boot;
mod cgroup2;
mod devices;
mod failures;
mod groups;
mod keys;
mod many;
mod neighbours;
mod processes;
mod scripts;
mod sessions;
mod settings;
mod systemd;
mod templates;
mod user_namespace;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::command::{Outcome, eventually, finish, program, run};
use crate::harness::{require, rootfs};

/// A host of its own below a directory, with one template; what runs in it ends with it.
struct Host {
    base: tempfile::TempDir,
    runtime: &'static str,
}

const TEMPLATE: &str = "debian";

impl Host {
    /// `None` after a skip. The template is a directory, as `vzpkg` keeps them for cloning.
    fn new(runtime: &'static str) -> Option<Self> {
        Self::with(runtime, rootfs::unpack_into)
    }

    /// The same with a template that is nothing but a shell and the usual programs.
    fn small(runtime: &'static str) -> Option<Self> {
        Self::with(runtime, shell_alone)
    }

    /// The same, on another file system.
    fn below(place: &Path, runtime: &'static str) -> Option<Self> {
        Self::at(place, runtime, shell_alone)
    }

    /// The same with another template.
    fn with(runtime: &'static str, unpack: impl Fn(&Path) -> bool) -> Option<Self> {
        let place = std::env::var_os("SIMFS_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
        Self::at(place.as_ref(), runtime, unpack)
    }

    fn at(place: &Path, runtime: &'static str, unpack: impl Fn(&Path) -> bool) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            require::skip("needs root");
            return None;
        }
        if !require::programs(&[runtime, "unshare", "nsenter"]) {
            return None;
        }
        let base = tempfile::Builder::new()
            .prefix("simfs-e2e.")
            .tempdir_in(place)
            .expect("directory");
        let template = base.path().join("vz/template/cache").join(TEMPLATE);
        std::fs::create_dir_all(&template).expect("template");
        // The root of a VE with a user namespace is nobody on the way to its directory.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(base.path(), open).expect("chmod");
        unpack(&template).then_some(Self { base, runtime })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", "300"])
            .arg(program(name))
            .env("SIMFS_PREFIX", self.base.path())
            .env("LC_ALL", "C");
        // Where a test puts what is to stand before the host's programs.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env(
            "PATH",
            format!("{}:{path}", self.path("programs").display()),
        );
        command
    }

    #[track_caller]
    fn vzctl(&self, args: &[&str]) -> Outcome {
        let mut command = self.command("vzctl");
        finish(
            command
                .args(["--quiet", "--runtime", self.runtime])
                .args(args),
        )
    }

    #[track_caller]
    fn vzlist(&self, args: &[&str]) -> Outcome {
        finish(self.command("vzlist").args(args))
    }

    #[track_caller]
    fn create(&self, ve: &str, options: &[&str]) -> Outcome {
        self.vzctl(&[&["create", ve, "--ostemplate", TEMPLATE], options].concat())
    }

    #[track_caller]
    fn exec(&self, ve: &str, command: &str) -> Outcome {
        self.vzctl(&["exec", ve, command])
    }

    #[track_caller]
    fn assert_status(&self, ve: &str, status: &str) {
        let line = self.vzctl(&["status", ve]).ok().stdout;
        assert_eq!(line.trim_end(), format!("CTID {ve} {status}"));
    }

    /// What is left in cgroups, mounts and directories after all VEs are destroyed.
    #[track_caller]
    fn assert_nothing_left(&self) {
        let table = std::fs::read_to_string("/proc/self/mounts").expect("mount table");
        let mounted = std::fs::read_dir(self.path("run/simfs"))
            .into_iter()
            .flatten();
        let numbers = mounted.flatten().map(|entry| entry.file_name());
        let left: Vec<_> = numbers
            .filter(|name| name.to_string_lossy().parse::<u32>().is_ok())
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let root = self.path("vz/root").display().to_string();
        assert!(!table.contains(&root), "{table}");
        eventually("processes of the host end", || {
            let left = processes_of(self.base.path());
            left.first().map_or(Ok(()), |line| Err(line.clone()))
        });
        for dir in [
            "vz/private",
            "vz/lock",
            "etc/vz/conf",
            "run/vz",
            "var/lib/simfs",
        ] {
            let entries = std::fs::read_dir(self.path(dir));
            let left: Vec<_> = entries.into_iter().flatten().flatten().collect();
            assert!(left.is_empty(), "{dir}: {left:?}");
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for dir in ["run/vz", "run/simfs"] {
            for entry in std::fs::read_dir(self.path(dir))
                .into_iter()
                .flatten()
                .flatten()
            {
                let ve = entry.file_name();
                let mut stop = self.command("vzctl");
                let stop = stop.args(["--quiet", "stop", "--fast"]).arg(&ve);
                let _may_be_down = stop.output();
                let mut umount = self.command("simfs");
                let _may_be_unmounted = umount.args(["umount", "-l"]).arg(&ve).output();
            }
        }
        let decoy = self.path("run/simfs/decoy/mnt");
        if is_mount(&decoy) {
            let _ = rustix::mount::unmount(&decoy, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// A static shell and its programs; `false` after a skip.
fn shell_alone(tree: &Path) -> bool {
    if !require::programs(&["busybox"]) {
        return false;
    }
    for dir in ["bin", "etc", "proc", "dev", "sys", "run", "tmp", "root"] {
        std::fs::create_dir_all(tree.join(dir)).expect("directory");
    }
    let found = ["/bin/busybox", "/usr/bin/busybox"].into_iter();
    let busybox = found.map(Path::new).find(|path| path.exists());
    std::fs::copy(busybox.expect("busybox"), tree.join("bin/busybox")).expect("busybox");
    for name in [
        "sh", "sleep", "cat", "kill", "stty", "ps", "tty", "head", "hostname",
    ] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(name)).expect(name);
    }
    true
}

/// Command lines that name a directory, of all processes.
fn processes_of(base: &Path) -> Vec<String> {
    let base = base.display().to_string();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(&base)).collect()
}

fn is_mount(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table
        .lines()
        .any(|line| line.split(' ').nth(1).map(Path::new) == Some(path))
}

/// create, start, exec, set, stop, destroy.
fn life(runtime: &'static str) {
    let Some(host) = Host::new(runtime) else {
        return;
    };
    host.assert_status("101", "deleted unmounted down");
    let limits = ["--diskspace", "300M:320M", "--diskinodes", "200000:220000"];
    host.create("101", &[&limits[..], &["--hostname", "web"]].concat())
        .ok();
    host.assert_status("101", "exist unmounted down");
    host.create("101", &[]).refused(44, "exists already");

    host.vzctl(&["start", "101"]).ok();
    host.assert_status("101", "exist mounted running");
    host.vzctl(&["start", "101"]).refused(32, "running already");
    let seen = host
        .exec("101", "hostname; echo $$; cat /etc/hostname")
        .ok()
        .stdout;
    assert!(
        seen.starts_with("web\n") && seen.ends_with("web\n"),
        "{seen}"
    );
    host.exec("101", "exit 7").expect(7);
    let own = host
        .exec("101", "cat /proc/1/comm; cat /proc/mounts")
        .ok()
        .stdout;
    assert!(own.contains("/dev/simfs / fuse.simfs"), "{own}");
    host.exec("101", "dd if=/dev/zero of=/big bs=1M count=150 2>&1")
        .expect(1);
    host.exec("101", "rm /big").ok();

    host.vzctl(&[
        "set",
        "101",
        "--diskspace",
        "2G:2.2G",
        "--hostname",
        "web2",
        "--save",
    ])
    .ok();
    assert_eq!(host.exec("101", "hostname").ok().stdout, "web2\n");
    let blocks = host
        .exec("101", "df -Pk / | tail -n1 | awk '{print $2}'")
        .ok()
        .stdout;
    assert_eq!(blocks.trim(), "2097152");
    let columns = "ctid,status,diskspace.s,diskspace.h,diskinodes.h,hostname";
    let list = host.vzlist(&["-H", "-o", columns]).ok().stdout;
    let words: Vec<&str> = list.split_whitespace().collect();
    assert_eq!(
        words,
        ["101", "running", "2097152", "2306867", "220000", "web2"]
    );

    host.vzctl(&["destroy", "101"]).refused(32, "running");
    host.vzctl(&["stop", "101"]).ok();
    host.assert_status("101", "exist unmounted down");
    host.exec("101", "true").refused(31, "not running");
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_status("101", "deleted unmounted down");
    host.assert_nothing_left();
}

#[test]
fn a_ve_lives_with_crun() {
    life("crun");
}

#[test]
fn a_ve_lives_with_runc() {
    life("runc");
}

#[test]
fn two_ves_do_not_see_each_other() {
    let Some(host) = Host::new("crun") else {
        return;
    };
    for ve in ["101", "102"] {
        host.create(ve, &[]).ok();
        host.vzctl(&["start", ve]).ok();
    }
    host.exec("101", "touch /only-101; echo 101 > /run/mark")
        .ok();
    host.exec("102", "ls /only-101 /run/mark").expect(2);
    let pids = host.exec("102", "ls -d /proc/[0-9]* | wc -l").ok().stdout;
    assert!(pids.trim().parse::<u32>().expect("a number") < 8, "{pids}");
    // Neither the host's devices nor its kernel's switches are in reach.
    host.exec("101", "mknod /tmp/disk b 254 0 && head -c1 /tmp/disk")
        .expect(1);
    host.exec("101", "echo x > /proc/sys/kernel/core_pattern")
        .expect(1);
    // A session in one VE does not hold the other.
    let mut session = host.command("vzctl");
    let mut session = session
        .args(["exec", "101", "touch /session; sleep 30"])
        .spawn()
        .expect("a session");
    eventually("the session", || {
        let file = host.path("vz/root/101/session");
        file.metadata().map_err(|error| error.to_string())
    });
    host.vzctl(&["stop", "102", "--fast"]).ok();
    host.vzctl(&["stop", "101", "--fast"]).ok();
    session.wait().expect("the session ends with its VE");
    for ve in ["101", "102"] {
        host.vzctl(&["destroy", ve]).ok();
    }
    host.assert_nothing_left();
}

#[test]
fn a_step_that_fails_leaves_nothing_that_blocks_the_next() {
    let Some(host) = Host::new("crun") else {
        return;
    };
    host.vzctl(&["create", "101", "--ostemplate", "none"])
        .refused(91, "'none'");
    host.create("101", &["--diskspace", "1M"])
        .refused(46, "--diskspace");
    host.create("101", &["--diskspace", "2G:1G"])
        .refused(21, "--diskspace");
    host.vzctl(&["start", "101"])
        .refused(43, "vzctl create 101");
    host.assert_nothing_left();
    // Files of a create that was killed.
    std::fs::create_dir_all(host.path("vz/private/101.tmp/x")).expect("left-overs");
    host.create("101", &[]).ok();

    // On a busy host it may live long enough to count as started.
    let begun = host.vzctl(&["start", "101", "--", "/bin/false"]);
    if begun.code == 0 {
        eventually("it ends", || {
            let line = host.vzctl(&["status", "101"]).ok().stdout;
            line.ends_with("down\n").then_some(()).ok_or(line)
        });
        host.vzctl(&["umount", "101"]).ok();
    } else {
        begun.refused(3, "ended at once");
    }
    host.assert_status("101", "exist unmounted down");
    host.vzctl(&["start", "101", "--", "/no/such/program"])
        .expect(3);
    host.assert_status("101", "exist unmounted down");
    let script = host.path("etc/vz/conf/101.mount");
    std::fs::write(&script, "#!/bin/sh\nexit 1\n").expect("action script");
    run("chmod", ["+x".as_ref(), script.as_os_str()]).ok();
    host.vzctl(&["start", "101"]).refused(79, "101.mount");
    host.assert_status("101", "exist unmounted down");
    std::fs::remove_file(&script).expect("action script");

    host.vzctl(&["start", "101"]).ok();
    // The VE ends by itself; the next start clears away what it left.
    host.exec("101", "kill -TERM 1");
    eventually("it ends", || {
        let line = host.vzctl(&["status", "101"]).ok().stdout;
        let has_ended = line == "CTID 101 exist mounted down\n";
        has_ended.then_some(()).ok_or(line)
    });
    host.vzctl(&["start", "101"]).ok();
    host.assert_status("101", "exist mounted running");
    host.vzctl(&["stop", "101"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

//! Unmodified quota tools in containers of crun and runc: the fragments, the decoy and the service together.
//!
//! The container's root is a plain directory, so what needs the mount's own root inode (`repquota /`) is not here.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests state what they expect"
)]

#[path = "support/second_level.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod second_level;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use quota::{Bytes, Inodes, Limit, Limits, Usage, VeId};
use serde_json::{Value, json};
use simfs::oci::{DeviceNode, OciInput};
use simfs::quotactl::{AdminPolicy, QuotactlConfig, QuotactlService};
use simfs::{decoy, oci};

use second_level::Fake;

const DEVICE: (u32, u32) = (0, 4321);

struct Host {
    dir: tempfile::TempDir,
    runtime: &'static str,
    level: Arc<Fake>,
    _service: QuotactlService,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = decoy::release(self.dir.path(), VeId::new(101));
    }
}

/// Whether the programs are there; without, the test does nothing, or fails where it must not be left out.
fn available(programs: &[&str]) -> bool {
    let runs = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    let Some(missing) = programs.iter().find(|program| !runs(program)) else {
        return true;
    };
    println!("SKIP: {missing} is not installed");
    assert!(
        std::env::var("SIMFS_STRICT").as_deref() != Ok("1"),
        "{missing} is not installed"
    );
    false
}

impl Host {
    fn new(runtime: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let usage = Usage::new(Bytes::new(5 << 10), Inodes::new(2));
        let limits = Limits {
            space: Limit::new(Some(Bytes::new(4 << 10)), Some(Bytes::new(8 << 10))),
            inodes: Limit::UNLIMITED,
        };
        let level = Fake::default()
            .with_user(0, usage, Limits::UNLIMITED)
            .with_user(7777, usage, limits)
            .with_group(50, usage, limits);
        let level = Arc::new(level);
        let socket_path = dir.path().join("101/quotactl.sock");
        let config = QuotactlConfig {
            socket_path,
            device: DEVICE,
            policy: AdminPolicy::RootOfVe,
            own_ids: false,
            kept: None,
        };
        let service = QuotactlService::start(config, level.clone(), drop, || Ok(())).unwrap();
        Self {
            dir,
            runtime,
            level,
            _service: service,
        }
    }

    /// A bundle whose root shows the host's programs read-only.
    fn bundle(&self, name: &str, script: &str, own_user_namespace: bool) -> PathBuf {
        let bundle = self.dir.path().join(name);
        let root = bundle.join("rootfs");
        std::fs::create_dir_all(&root).unwrap();
        for link in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{link}"), root.join(link)).unwrap();
        }
        let mut config = config(script);
        let run_dir = self.dir.path().join("101");
        let node = if own_user_namespace {
            let linux = &mut config["linux"];
            linux["namespaces"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "type": "user" }));
            for map in ["uidMappings", "gidMappings"] {
                linux[map] = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
            }
            DeviceNode::Bind(oci::make_host_node(&run_dir, DEVICE).unwrap())
        } else {
            DeviceNode::Make
        };
        let input = OciInput {
            ve: VeId::new(101),
            decoy: decoy::ensure(self.dir.path(), VeId::new(101)).unwrap(),
            socket: run_dir.join("quotactl.sock"),
            device: DEVICE,
            node,
            seccomp_flags: self.runtime == "crun",
        };
        oci::merge(&mut config, &oci::fragments(&input)).unwrap();
        std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        bundle
    }

    fn command(&self) -> Command {
        let mut command = if self.runtime == "crun" && Path::new("/sys/fs/cgroup/unified").exists()
        {
            // crun refuses hosts with both kinds of cgroups: it gets a view with one, and uses none.
            let script = "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", script, "sh", "crun"]);
            command
        } else {
            Command::new(self.runtime)
        };
        command.arg("--root").arg(self.dir.path().join("state"));
        if self.runtime == "crun" {
            command.arg("--cgroup-manager=disabled");
        }
        command
    }

    fn name(&self, name: &str) -> String {
        format!("simfs-test-{}-{name}-{}", self.runtime, std::process::id())
    }

    fn run(&self, name: &str, script: &str, own_user_namespace: bool) -> String {
        let bundle = self.bundle(name, script, own_user_namespace);
        let mut command = self.command();
        command
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(self.name(name));
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        text(&output)
    }
}

fn text(output: &Output) -> String {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8(all).unwrap();
    println!("{text}");
    text
}

fn config(script: &str) -> Value {
    let bind = |path: &str| {
        let options = ["rbind", "ro"];
        json!({ "destination": path, "type": "bind", "source": path, "options": options })
    };
    // What container runtimes give by default: no CAP_SYS_ADMIN.
    let capabilities = ["CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/usr/sbin:/usr/bin", "LC_ALL=C"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] },
            bind("/usr"),
            bind("/etc")
        ],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }] }
    })
}

const SCRIPT: &str = "
    repquota -n -a && echo REPQUOTA=$?
    setquota -u 7777 10 20 30 40 /dev/simfs; echo SETQUOTA=$?
    setquota -u -t 60 70 -a; echo SETTIME=$?
    quota -u 7777; echo QUOTA=$?
    quotaoff -u /dev/simfs; echo QUOTAOFF=$?
    quotaon -p -v -u /dev/simfs; echo STATE=$?
    quotaon -u /dev/simfs; echo QUOTAON=$?
    quotasync -a; echo SYNC=$?
    setpriv --reuid 7777 --regid 50 --groups 50 quota -g 50; echo OWN=$?
    setpriv --reuid 7777 --regid 7777 --clear-groups repquota -a
";

fn tools_work(runtime: &'static str, own_user_namespace: bool) {
    if !available(&[runtime, "repquota", "mkfs.ext4"]) {
        return;
    }
    let host = Host::new(runtime);
    let output = host.run("tools", SCRIPT, own_user_namespace);
    let report = |id: &str| output.lines().filter(|line| line.starts_with(id)).count();
    // Once by root; nothing by the user.
    assert_eq!(report("#7777"), 1, "{output}");
    for line in [
        "REPQUOTA=0",
        "SETQUOTA=0",
        "SETTIME=0",
        "QUOTA=0",
        "QUOTAOFF=0",
        "QUOTAON=0",
        "SYNC=0",
    ] {
        assert!(
            output.lines().any(|found| found == line),
            "{line}: {output}"
        );
    }
    assert!(
        output.contains("user quota on /run/.quota (/dev/simfs) is on (accounting)"),
        "{output}"
    );
    let state = host.level.state();
    let user = state.users[&7777].limits;
    assert_eq!(
        user.space,
        Limit::new(Some(Bytes::new(10 << 10)), Some(Bytes::new(20 << 10)))
    );
    assert_eq!(
        user.inodes,
        Limit::new(Some(Inodes::new(30)), Some(Inodes::new(40)))
    );
    assert_eq!(
        (state.grace[0].space.get(), state.grace[0].inodes.get()),
        (60, 70)
    );
    assert_eq!(state.enforced, [true, true]);
}

#[test]
fn quota_tools_in_crun() {
    tools_work("crun", false);
}

#[test]
fn quota_tools_in_runc() {
    tools_work("runc", false);
}

#[test]
fn quota_tools_in_a_user_namespace() {
    tools_work("crun", true);
}

/// An `exec` brings a listener of its own; with crun it names no process.
#[test]
fn a_process_started_later_is_served_too() {
    for runtime in ["crun", "runc"] {
        if !available(&[runtime, "repquota", "mkfs.ext4"]) {
            return;
        }
        let host = Host::new(runtime);
        let bundle = host.bundle("later", "sleep 60", false);
        let name = host.name("later");
        let _guard = Running(&host, &name);
        let started = host
            .command()
            .args(["run", "--detach", "--bundle"])
            .arg(&bundle)
            .arg(&name)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(started.success());
        let output = host
            .command()
            .arg("exec")
            .arg(&name)
            .args(["repquota", "-n", "-a"])
            .output();
        let output = text(&output.unwrap());
        assert!(output.contains("#7777"), "{runtime}: {output}");
    }
}

/// Kills and removes a container, whatever happens.
struct Running<'a>(&'a Host, &'a str);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Self(host, name) = self;
        let _ = host.command().args(["delete", "--force", name]).output();
    }
}

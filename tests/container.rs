//! A real container on a mount.

use std::process::Command;

use serde_json::json;

use crate::harness::command::{Outcome, finish};
use crate::harness::{KIB, Spec, Ve, rootfs};

/// Runs a command with cgroups as crun wants them: it refuses hosts where versions 1 and 2 are mounted side by side.
const ONE_HIERARCHY: &str = r#"
    if [ -d /sys/fs/cgroup/unified ]; then mount -t cgroup2 cgroup2 /sys/fs/cgroup; fi
    exec "$@"
"#;

/// A bundle whose container runs one shell script and ends.
fn run_in_container(ve: &Ve, name: &str, script: &str) -> Outcome {
    let bundle = ve.beside(&format!("bundle-{name}"));
    std::fs::create_dir(&bundle).expect("bundle");
    let capabilities = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_SETUID",
        "CAP_SETGID",
    ];
    let namespaces = ["mount", "pid", "ipc", "uts"].map(|kind| json!({ "type": kind }));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "noNewPrivileges": true
        },
        "root": { "path": ve.root(), "readonly": false },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"] }
        ],
        "linux": { "namespaces": namespaces }
    });
    std::fs::write(bundle.join("config.json"), config.to_string()).expect("config.json");
    let id = format!("simfs-e2e-{}-{name}", std::process::id());
    let state = ve.beside(&format!("crun-{name}"));
    let mut crun = Command::new("unshare");
    crun.args([
        "--mount",
        "--propagation",
        "slave",
        "sh",
        "-c",
        ONE_HIERARCHY,
        "sh",
    ]);
    crun.arg("crun").arg("--root").arg(&state);
    finish(
        crun.args(["--cgroup-manager=disabled", "run", "--bundle"])
            .arg(&bundle)
            .arg(id),
    )
}

#[test]
fn a_container_sees_and_meets_its_limits() {
    let Some(ve) = Spec::default()
        .space(1 << 20, 1_153_434)
        .inodes(100_000, 110_000)
        .init()
    else {
        return;
    };
    if !rootfs::unpack_into(ve.private()) {
        return;
    }
    // The area was filled after init counted it.
    ve.simfs(["check", Ve::ID, "--repair"]).expect(1);
    ve.mount().ok();
    let df = run_in_container(&ve, "df", "df -Pk / | tail -n1; df -Pi / | tail -n1").ok();
    let rows: Vec<Vec<&str>> = df
        .stdout
        .lines()
        .map(|row| row.split_whitespace().collect())
        .collect();
    let used = ve.used();
    assert_eq!(
        rows[0][1..3],
        [(1 << 20).to_string(), (used.space / KIB).to_string()],
        "{df:?}"
    );
    assert_eq!(
        rows[1][1..3],
        ["100000".to_owned(), used.inodes.to_string()],
        "{df:?}"
    );

    ve.setlimit(&[
        "-b",
        &(used.space / KIB + 2048).to_string(),
        "-B",
        &(used.space / KIB + 2048).to_string(),
    ]);
    let fill = run_in_container(
        &ve,
        "fill",
        "dd if=/dev/zero of=/root/fill bs=64k count=64 2>&1",
    );
    assert_ne!(fill.code, 0);
    assert!(fill.stdout.contains("Disk quota exceeded"), "{fill:?}");
    ve.setlimit(&["-b", "2G", "-B", "2G"]);
    let more = run_in_container(
        &ve,
        "more",
        "dd if=/dev/zero of=/root/fill bs=64k count=64 && apt-get --version",
    );
    more.ok();
    ve.assert_exact();
}

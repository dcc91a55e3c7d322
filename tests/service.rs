//! What a service manager sees of a mount, and the units that are shipped.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::command::{PATIENCE, eventually, finish, program};
use crate::harness::require;
use crate::harness::ve::{Spec, Ve};

/// `simfs mount --foreground` as a service: ended if the test does not see it to its end.
struct Service(Child);

impl Service {
    fn start(ve: &Ve, socket: &str) -> Self {
        let mut command = ve.command("simfs");
        command.args(["mount", "--foreground", Ve::ID]);
        let child = command.env("NOTIFY_SOCKET", socket).stderr(Stdio::null());
        Self(child.spawn().expect("simfs"))
    }

    fn assert_ends_well(&mut self) {
        eventually("end of the service", || match self.0.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _may_have_ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn heard(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 512];
    manager.set_read_timeout(Some(PATIENCE)).expect("time-out");
    let length = manager.recv(&mut bytes).expect("a message");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

// S57: Under a service manager `simfs mount --foreground` tells it READY=1 only when the mount answers.
#[test]
fn the_service_manager_hears_when_the_mount_answers_and_when_it_ends() {
    let Some(ve) = Spec::default().init() else {
        return;
    };
    let path = ve.beside("notify");
    let name = format!("simfs-e2e-{}", std::process::id());
    let abstract_address = SocketAddr::from_abstract_name(&name).expect("address");
    let managers = [
        (path.display().to_string(), UnixDatagram::bind(&path)),
        (
            format!("@{name}"),
            UnixDatagram::bind_addr(&abstract_address),
        ),
    ];
    for (socket, manager) in managers {
        let manager = manager.expect("socket");
        let mut service = Service::start(&ve, &socket);
        let ready = heard(&manager);
        assert!(ready.starts_with("READY=1\n"), "{socket}: {ready}");
        assert!(ve.is_mounted());
        std::fs::write(ve.path("file"), "answered").expect("a write as soon as it is ready");
        ve.umount_and_wait();
        assert_eq!(heard(&manager), "STOPPING=1\n");
        service.assert_ends_well();
    }
    // Nobody listens any more: the mount works all the same.
    std::fs::remove_file(&path).expect("socket");
    let mut service = Service::start(&ve, &path.display().to_string());
    eventually("the mount", || {
        let state = ve.status()["state"].to_string();
        (state == "\"mounted\"").then_some(()).ok_or(state)
    });
    ve.umount_and_wait();
    service.assert_ends_well();
}

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd")
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !require::programs(&["systemd-analyze"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    let bin = program("simfs");
    let bin = bin.parent().expect("directory of the programs");
    // A program of the package's own that is no build product.
    let boot = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/vz-boot");
    let mut files = Vec::new();
    for (unit, installed) in [
        ("vz.service", "vz.service"),
        ("simfs@.service", "simfs@101.service"),
    ] {
        let text = std::fs::read_to_string(units().join(unit)).expect(unit);
        let text = text
            .replace("/usr/local/sbin/vz-boot", &boot.display().to_string())
            .replace("/usr/local/sbin", &bin.display().to_string());
        assert!(!text.contains("/usr/local"), "{unit}: {text}");
        let file = dir.path().join(installed);
        std::fs::write(&file, text).expect(unit);
        files.push(file);
    }
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&files);
    let outcome = finish(verify.env("SYSTEMD_LOG_LEVEL", "notice"));
    let said = outcome.stderr.clone() + &outcome.stdout;
    assert!(outcome.code == 0 && said.trim().is_empty(), "{said}");
}

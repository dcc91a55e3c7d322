//! Unmounts that something stands against: who it is, is said in seconds, and nothing is lost meanwhile.

use std::process::{Child, Command};

use crate::harness::command::eventually;
use crate::harness::{Spec, Ve, crash};

/// A process that is ended with the test.
struct Bystander(Child);

impl Bystander {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("a process"))
    }

    fn id(&self) -> String {
        self.0.id().to_string()
    }

    fn end(&mut self) {
        let _may_have_ended = self.0.kill();
        self.0.wait().expect("its end");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.end();
    }
}

// S65: who holds it is named.
#[test]
fn who_uses_the_root_is_named() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    let mut user = Bystander::start(Command::new("sleep").arg("60").current_dir(ve.root()));
    let said = ve.umount().refused(1, "(sleep)").stderr;
    assert!(
        said.contains(&user.id()) && said.contains("--lazy"),
        "{said}"
    );
    assert!(ve.is_mounted());
    user.end();
    ve.umount().ok();
}

// S65: a mount namespace that still shows it does not make anybody wait; what is written there is counted.
#[test]
fn a_stray_mount_namespace_is_named_and_counted_until_it_ends() {
    let Some(mut ve) = Spec::default().mount() else {
        return;
    };
    ve.leave_unchecked();
    let (daemon, keeper) = crash::pids(&ve);
    // It holds this mount only: other tests run beside this one.
    let script = "while read -r _ place kind _; do
        [ \"$kind\" != fuse.simfs ] || [ \"$place\" = \"$0\" ] || umount -l \"$place\"
        done < /proc/self/mounts; exec sleep 60";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
    let mut stray = Bystander::start(command.arg(ve.root()));
    eventually("its own namespace", || {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", stray.id()));
        match name.as_deref().map(str::trim) {
            Ok("sleep") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let said = ve.umount().refused(1, "mount namespace of its own").stderr;
    assert!(
        said.contains(&stray.id()) && said.contains("(sleep)"),
        "{said}"
    );
    assert!(!ve.is_mounted(), "the host is rid of it");
    // It cannot be had twice, and asking again is answered in the same way.
    ve.mount().expect(1);
    ve.umount().refused(1, "(sleep)");
    let file = ve.root().join("late");
    let mut write = Command::new("nsenter");
    write
        .args(["--target", &stray.id(), "--mount", "dd", "if=/dev/zero"])
        .arg(format!("of={}", file.display()))
        .args(["bs=64k", "count=16", "conv=fsync", "status=none"]);
    assert!(write.status().expect("nsenter").success());
    stray.end();
    eventually("both end with the last user", || {
        match [daemon, keeper]
            .into_iter()
            .find(|pid| crash::is_alive(*pid))
        {
            Some(pid) => Err(format!("{pid} is alive")),
            None => Ok(()),
        }
    });
    let shown = ve.vzquota(["-b", "show", Ve::ID]).ok().stdout;
    let used = shown.split_whitespace().next().expect("usage");
    assert!(used.parse::<u64>().expect("KiB") >= 1024, "{shown}");
    ve.mount().ok();
    ve.umount().ok();
}

// S65: whatever the place, and nothing of it stays.
#[test]
fn a_mount_whose_processes_are_dead_is_found_where_it_is() {
    let Some(mut ve) = Spec::default().init() else {
        return;
    };
    ve.leave_unchecked();
    let place = ve.beside("elsewhere here");
    std::fs::create_dir(&place).expect("mount point");
    let at = place.to_str().expect("a path");
    ve.simfs(["mount", Ve::ID, at]).ok();
    ve.simfs(["oci", Ve::ID, "--userns"]).ok();
    let decoy = ve.prefix().join("run/simfs/decoy");
    assert!(decoy.exists());
    let kill = || {
        let (daemon, keeper) = crash::pids(&ve);
        crash::kill(keeper);
        crash::kill(daemon);
        assert!(place.metadata().is_err(), "dead, and in the tree");
    };
    kill();
    // The next mount needs nobody to take it away.
    eventually("it is mounted again", || {
        let outcome = ve.simfs(["mount", Ve::ID, at]);
        match outcome.code {
            0 => Ok(()),
            _ => Err(outcome.stderr),
        }
    });
    kill();
    ve.umount().ok();
    assert_eq!(
        std::fs::read_dir(&place)
            .expect("an empty directory")
            .count(),
        0
    );
    assert!(!decoy.exists());
    ve.umount().refused(1, "not mounted");
    ve.mount().ok();
    ve.umount().ok();
}

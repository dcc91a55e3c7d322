//! What starts the VEs with the host, and stops them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::Host;
use crate::harness::command::{Outcome, finish, program};

pub(super) fn boot(host: &Host, what: &str) -> Outcome {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/vz-boot");
    let bin = program("vzctl");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", bin.parent().expect("directory").display());
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", "150"])
        .arg(script)
        .arg(what)
        .env("PATH", path)
        .env("SIMFS_PREFIX", host.path(""));
    finish(&mut command)
}

/// The VEs in the order in which they were mounted or unmounted.
fn order(host: &Host) -> Vec<String> {
    let text = std::fs::read_to_string(host.path("order")).unwrap_or_default();
    std::fs::remove_file(host.path("order")).expect("the action scripts have run");
    text.lines().map(str::to_owned).collect()
}

// S58: `vz-boot start` starts every VE with ONBOOT="yes", those of a larger BOOTORDER earlier.
#[test]
fn ves_are_started_by_their_order_at_boot_and_stopped_the_other_way_round() {
    let Some(host) = Host::new("crun") else {
        return;
    };
    let conf = host.path("etc/vz/conf");
    std::fs::create_dir_all(&conf).expect("configuration");
    std::fs::write(
        host.path("etc/vz/vz.conf"),
        "RUNTIME=\"crun\"\nVE_PARALLEL=\"2\"\nSTOP_TIMEOUT=5\n",
    )
    .expect("vz.conf");
    let boots = [
        ("101", "1", "yes"),
        ("102", "10", "yes"),
        ("103", "100", "no"),
    ];
    for (ve, bootorder, onboot) in boots {
        host.create(ve, &["--bootorder", bootorder, "--onboot", onboot])
            .ok();
    }
    // Another one is configured, and cannot start.
    std::fs::write(conf.join("104.conf"), "ONBOOT=\"yes\"\n").expect("configuration");
    for phase in ["mount", "umount"] {
        let script = conf.join(format!("vps.{phase}"));
        let text = format!(
            "#!/bin/sh\necho $VEID >> {}\n",
            host.path("order").display()
        );
        std::fs::write(&script, text).expect("action script");
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("mode");
    }

    // S72: so does one whose limits are not those in force, and that is told at boot, too.
    let file = conf.join("101.conf");
    let text = std::fs::read_to_string(&file).expect("configuration");
    std::fs::write(&file, format!("DISKINODES=\"500:600\"\n{text}")).expect("configuration");

    let started = boot(&host, "start");
    assert_eq!(started.code, 1, "one VE could not start: {started:?}");
    assert_eq!(started.stdout, "");
    assert!(started.stderr.contains("vzctl: VE 104"), "{started:?}");
    let told = "VE 101: warning: DISKINODES of the configuration is not the limit in force";
    assert!(started.stderr.contains(told), "{started:?}");
    assert_eq!(order(&host), ["102", "101"]);
    for (ve, _, onboot) in boots {
        let status = if onboot == "yes" {
            "mounted running"
        } else {
            "unmounted down"
        };
        host.assert_status(ve, &format!("exist {status}"));
    }
    host.vzctl(&["mount", "103"]).ok();
    order(&host);

    let stopped = boot(&host, "stop").ok();
    assert_eq!(stopped.stderr, "");
    assert_eq!(
        order(&host),
        ["101", "102", "103"],
        "by order, then what is only mounted"
    );
    for (ve, _, _) in boots {
        host.assert_status(ve, "exist unmounted down");
    }
    boot(&host, "stop").ok();
    boot(&host, "dance").expect(20);
    for (ve, _, _) in boots {
        host.vzctl(&["destroy", ve]).ok();
    }
    std::fs::remove_dir_all(&conf).expect("configuration");
    std::fs::create_dir(&conf).expect("configuration");
    host.assert_nothing_left();
}

//! VEs whose first program is systemd.

use std::time::Duration;

use super::Host;
use crate::harness::command::within;
use crate::harness::rootfs;

/// How long a whole system may take to start where others keep the CPUs busy.
const BOOT: Duration = Duration::from_secs(150);

/// A service that tells when it is ended in order.
const WITNESS: &str = "cat > /etc/systemd/system/witness.service <<'END'\n\
    [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sh -c 'sync; echo ended > /ended'\n\
    [Install]\nWantedBy=multi-user.target\nEND\n\
    systemctl daemon-reload && systemctl enable --now --quiet witness && systemctl is-active witness";

fn boots(runtime: &'static str) {
    let Some(host) = Host::with(runtime, rootfs::unpack_with_systemd_into) else {
        return;
    };
    host.create("101", &["--hostname", "booted", "--diskspace", "600M:600M"])
        .ok();
    host.vzctl(&["start", "101"]).ok();
    // Also "degraded" is an answer, but then some unit has failed that a VE should not have, or should be able to run.
    within(BOOT, "systemd is up", || {
        let state = host.exec("101", "systemctl is-system-running").stdout;
        let failed = host
            .exec("101", "systemctl --failed --no-legend --plain")
            .stdout;
        (state == "running\n")
            .then_some(())
            .ok_or(format!("{state}{failed}"))
    });
    assert_eq!(
        host.exec("101", "cat /proc/1/comm").ok().stdout,
        "systemd\n"
    );
    assert_eq!(
        host.exec("101", "systemd-detect-virt --container")
            .ok()
            .stdout,
        "container-other\n"
    );
    assert_eq!(
        host.exec("101", "hostnamectl hostname").ok().stdout,
        "booted\n"
    );
    // Services have groups of their own below the VE's.
    let unit = "systemd-run --quiet --wait --pipe cat /proc/self/cgroup";
    let groups = host.exec("101", unit).ok().stdout;
    assert!(groups.contains("/system.slice/run-"), "{groups}");
    host.exec(
        "101",
        "systemd-run --quiet --wait --pipe dd if=/dev/zero of=/big bs=1M count=700 2>&1",
    )
    .expect(1);
    host.exec("101", "rm /big").ok();
    assert_eq!(host.exec("101", WITNESS).ok().stdout, "active\n");

    let private = host.path("vz/private/101");
    host.vzctl(&["stop", "101"]).ok();
    host.assert_status("101", "exist unmounted down");
    let ended = std::fs::read_to_string(private.join("ended"));
    assert_eq!(ended.expect("the service was ended in order"), "ended\n");
    // Each VE is somebody else, and stays it.
    let id = std::fs::read_to_string(private.join("etc/machine-id")).expect("machine-id");
    assert_eq!(id.trim().len(), 32, "{id}");

    host.vzctl(&["start", "101"]).ok();
    within(BOOT, "the enabled service", || {
        let state = host.exec("101", "systemctl is-active witness").stdout;
        (state == "active\n").then_some(()).ok_or(state)
    });
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

// S69: A VE whose first program is systemd boots until `systemctl is-system-running` says `running`.
#[test]
fn boots_with_crun() {
    boots("crun");
}

#[test]
fn boots_with_runc() {
    boots("runc");
}

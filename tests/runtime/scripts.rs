//! Action scripts, scripts of the host in a VE, and a VE that does not end when asked.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Host;

fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("directory");
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("a script");
    make_executable(path);
}

pub(super) fn make_executable(path: &Path) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("chmod");
}

// S83: the order is OpenVZ's.
#[test]
fn action_scripts_run_in_openvz_order() {
    let Some(host) = Host::small("crun") else {
        return;
    };
    host.create("101", &[]).ok();
    let (order, seen) = (host.path("order"), host.path("vz/root/101/inside"));
    for whose in ["vps", "101"] {
        for phase in ["premount", "mount", "umount", "postumount"] {
            // Its name, the VE, what the configuration file is called, and what has run inside by then.
            let text = format!(
                "echo {whose}.{phase} $VEID ${{VE_CONFFILE##*/}} $(cat {} 2> /dev/null) >> {}",
                seen.display(),
                order.display()
            );
            let name = format!("{whose}.{phase}");
            put(&host.path("etc/vz/conf").join(name), &text);
        }
    }
    for phase in ["start", "stop"] {
        let name = format!("101.{phase}");
        let text = format!("echo {phase} >> /inside");
        put(&host.path("etc/vz/conf").join(name), &text);
    }
    let took_place = || {
        let text = std::fs::read_to_string(&order).unwrap_or_default();
        std::fs::write(&order, "").expect("order");
        text
    };
    let lines = |rows: &[(&str, &str)]| -> String {
        let line = |(name, inside): &(&str, &str)| format!("{name} 101 101.conf {inside}");
        let all = rows
            .iter()
            .map(|row| line(row).trim_end().to_owned() + "\n");
        all.collect()
    };
    host.vzctl(&["start", "101"]).ok();
    let begin = ["vps.premount", "101.premount", "vps.mount", "101.mount"];
    assert_eq!(took_place(), lines(&begin.map(|name| (name, ""))));
    assert_eq!(host.exec("101", "cat /inside").ok().stdout, "start\n");
    host.vzctl(&["stop", "101"]).ok();
    let expected = lines(&[
        ("101.umount", "start stop"),
        ("vps.umount", "start stop"),
        ("101.postumount", ""),
        ("vps.postumount", ""),
    ]);
    assert_eq!(took_place(), expected);
    // Without a start, those of the mount alone.
    host.vzctl(&["mount", "101"]).ok();
    host.vzctl(&["umount", "101"]).ok();
    assert!(!took_place().contains("start stop start"));
    // One that fails before the unmount leaves the VE mounted, and the command can be repeated.
    put(&host.path("etc/vz/conf/101.umount"), "exit 4");
    host.vzctl(&["mount", "101"]).ok();
    host.vzctl(&["umount", "101"]).refused(79, "101.umount");
    host.assert_status("101", "exist mounted down");
    std::fs::remove_file(host.path("etc/vz/conf/101.umount")).expect("the script");
    host.vzctl(&["umount", "101"]).ok();
    for entry in std::fs::read_dir(host.path("etc/vz/conf"))
        .expect("scripts")
        .flatten()
    {
        if entry.file_name() != "101.conf" {
            std::fs::remove_file(entry.path()).expect("a script");
        }
    }
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

// S70: a script of the host runs inside; a VE that did not run runs for that long only.
#[test]
fn scripts_of_the_host_run_in_a_ve() {
    let Some(host) = Host::small("crun") else {
        return;
    };
    host.create("101", &["--hostname", "inside"]).ok();
    let script = host.path("script");
    put(&script, "hostname; echo $$ > /ran; exit 3");
    let run = || {
        let script = script.display().to_string();
        let ended = host.vzctl(&["runscript", "101", &script]).expect(3);
        assert_eq!(ended.stdout, "inside\n");
    };
    run();
    host.assert_status("101", "exist unmounted down");
    assert!(host.path("vz/private/101/ran").exists());
    host.vzctl(&["start", "101"]).ok();
    run();
    host.assert_status("101", "exist mounted running");
    // The other command of OpenVZ for commands is the same here.
    let ended = host.vzctl(&["exec2", "101", "hostname; exit 5"]).expect(5);
    assert_eq!(ended.stdout, "inside\n");
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["exec2", "101", "true"])
        .refused(31, "not running");
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

// S83: a VE that does not end when asked is ended.
#[test]
fn a_ve_that_does_not_end_is_ended_by_force() {
    let Some(host) = Host::small("crun") else {
        return;
    };
    host.create("101", &[]).ok();
    let file = host.path("etc/vz/conf/101.conf");
    let text = std::fs::read_to_string(&file).expect("configuration");
    std::fs::write(&file, text + "STOP_TIMEOUT=\"1\"\n").expect("configuration");
    let deaf = "trap 'echo asked >> /asked' TERM; while :; do sleep 0.1; done";
    host.vzctl(&["start", "101", "--", "/bin/sh", "-c", deaf])
        .ok();
    host.vzctl(&["stop", "101"]).ok();
    host.assert_status("101", "exist unmounted down");
    let asked = std::fs::read_to_string(host.path("vz/private/101/asked"));
    assert_eq!(asked.expect("it was asked first"), "asked\n");
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

//! VEs in user namespaces of their own: ids are the VE's own everywhere but in the host's process table.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::Value;

use super::Host;
use crate::harness::command::finish;
use crate::harness::{crash, require, rootfs};
use crate::quotactl::permission;

/// Idmapped FUSE mounts came with Linux 6.12.
fn kernel_maps_ids() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("release");
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next(), numbers.next());
    let is_new = version >= (Some(6), Some(12));
    if !is_new {
        require::skip("ids of FUSE mounts can be mapped from Linux 6.12 on");
    }
    is_new
}

// S59: ids on the disk, in the VE and in reports are the VE's own.
fn ids_are_the_ves_own(runtime: &'static str) {
    if !kernel_maps_ids() {
        return;
    }
    let Some(host) = Host::with(runtime, rootfs::unpack_with_quota_tools_into) else {
        return;
    };
    host.create(
        "101",
        &[
            "--local_uid",
            "200000",
            "--local_gid",
            "300000",
            "--quotaugidlimit",
            "100",
        ],
    )
    .ok();
    host.vzctl(&["start", "101"]).ok();
    let seen = host.exec(
        "101",
        "cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g / /etc/shadow",
    );
    let seen = seen.ok().stdout;
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(
        words,
        [
            "0", "200000", "65536", "0", "300000", "65536", "0:0", "0:42"
        ]
    );
    // Everything that makes, moves or changes a file.
    host.exec(
        "101",
        "set -e; cd /home; mkdir d; echo x > d/f; ln d/f d/g; mv d/g d/h; ln -s f d/s; mkfifo d/p
         chown ann:ann d/f; chmod 2755 d/f; mv d e; setfattr -n user.a -v b e/f 2>/dev/null || true
         chown ann /home; setpriv --reuid ann --regid ann --init-groups sh -c 'dd if=/dev/zero of=/home/big bs=1M count=5 status=none; mkdir /home/own'
         setpriv --reuid ann --regid ann --init-groups sh -c 'mv /home/own /home/moved; touch /home/moved/x; chmod 2755 /home/moved; rm -r /home/moved'",
    )
    .ok();
    let stat = |name: &str| {
        let data = host
            .path("vz/private/101/home")
            .join(name)
            .symlink_metadata()
            .expect(name);
        (data.uid(), data.gid(), data.mode() & 0o7777)
    };
    assert_eq!(stat("e/f"), (1001, 1001, 0o2755));
    assert_eq!(stat("big"), (1001, 1001, 0o644));
    assert_eq!(stat("e/s").0, 0);
    // An id that the VE does not have cannot be given.
    host.exec("101", "chown 70000 /home/e/f").expect(1);
    // The bit of a group that is not the user's goes; that of one's own, also a supplementary one, stays.
    host.exec(
        "101",
        "touch /home/b; chown bob:ann /home/b; setpriv --reuid bob --regid bob --init-groups sh -c 'chmod 2755 /home/b; echo y > /home/b'",
    )
    .ok();
    assert_eq!(stat("b").1, 1001);

    // The second level, set inside and outside, by the VE's ids.
    host.exec("101", "setquota -u ann 8000 10000 0 0 /").ok();
    let report = host.exec("101", "repquota -a").ok().stdout;
    assert!(
        report
            .lines()
            .any(|line| line.starts_with("ann ") && line.contains("8000")),
        "{report}"
    );
    let own = host
        .exec("101", "setpriv --reuid ann --regid ann --init-groups quota")
        .ok()
        .stdout;
    assert!(own.contains("10000"), "{own}");
    let mut stat = host.command("vzquota");
    let listed = crate::harness::command::finish(stat.args(["stat", "101", "-t"]))
        .ok()
        .stdout;
    let is_ann = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.starts_with(&["1001", "user", "1k-blocks"]) && words.contains(&"10000")
    };
    assert!(listed.lines().any(is_ann), "{listed}");
    host.exec(
        "101",
        "setpriv --reuid ann --regid ann --init-groups sh -c 'dd if=/dev/zero of=/home/more bs=1M count=9 2>&1' | grep -q 'quota exceeded'",
    )
    .ok();
    host.exec("101", "head -c 1 /run/user_beancounters").ok();

    // Without the namespace the same files belong to the same users.
    host.vzctl(&["stop", "101"]).ok();
    host.vzctl(&["set", "101", "--local_uid", "0", "--save"])
        .ok();
    host.vzctl(&["start", "101"]).ok();
    let owner = host
        .exec("101", "stat -c %U /home/big; cat /proc/self/uid_map")
        .ok()
        .stdout;
    let words: Vec<&str> = owner.split_whitespace().collect();
    assert_eq!(words, ["ann", "0", "0", "4294967295"]);
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

#[test]
fn a_ve_has_ids_of_its_own_with_crun() {
    ids_are_the_ves_own("crun");
}

#[test]
fn a_ve_has_ids_of_its_own_with_runc() {
    ids_are_the_ves_own("runc");
}

// S48: a user sees his own account, also from a user namespace of his own; here the VE has ids of its own as well.
#[test]
fn callers_in_nested_namespaces_are_who_they_are_in_the_ve() {
    if !kernel_maps_ids() {
        return;
    }
    let Some(host) = Host::with("crun", |tree| {
        let is_there = rootfs::unpack_with_quota_tools_into(tree);
        if is_there {
            let program = tree.join("usr/bin/call-quotactl");
            std::fs::write(&program, permission::CALL).expect("program");
            std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).expect("mode");
            std::fs::write(tree.join("srv/calls"), format!("{}\n", permission::CALLS))
                .expect("calls");
        }
        is_there
    }) else {
        return;
    };
    let ids = ["--local_uid", "200000", "--local_gid", "300000"];
    host.create("101", &[&ids[..], &["--quotaugidlimit", "100"]].concat())
        .ok();
    host.vzctl(&["start", "101"]).ok();
    let ann = "setpriv --reuid 1001 --regid 1001 --clear-groups";
    let rows = [
        ("root", String::new(), permission::ALL),
        ("user", ann.into(), permission::USER),
        (
            "root in a nested namespace",
            "unshare -U".into(),
            permission::NESTED,
        ),
        (
            "root of a nested namespace",
            "unshare -U -r".into(),
            permission::NESTED,
        ),
        (
            "user as root of a nested one",
            format!("{ann} unshare -U -r"),
            permission::NESTED,
        ),
        (
            "two levels down",
            format!("{ann} unshare -U -r unshare -U -r"),
            permission::NESTED,
        ),
    ];
    for (who, prefix, expected) in rows {
        let script = format!("while read call; do {prefix} call-quotactl $call; done < /srv/calls");
        let said = host.exec("101", &script).ok().stdout;
        let said: Vec<_> = said.lines().collect();
        assert_eq!(said.join(" "), expected, "{who}");
    }
    // Its own account, under the name that it gave itself there; a member's group; nobody else's.
    let own = [
        ("800007 0 0", "ok"),
        ("800007 1 0", "ok"),
        ("800007 0 1", "1"),
        ("800008 0 0", "1"),
    ];
    for (call, expected) in own {
        let said = host.exec("101", &format!("{ann} unshare -U -r call-quotactl {call}"));
        assert_eq!(said.ok().stdout.trim(), expected, "{call}");
    }
    // No runtime has told a successor about the VE's namespace, and nobody else may have called.
    let mut status = host.command("simfs");
    let status = finish(status.args(["status", "101", "--json"])).ok();
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    let daemon = status[0]["pid"].as_u64().expect("pid");
    crash::kill(daemon.try_into().expect("pid"));
    let said = host.exec(
        "101",
        &format!("{ann} unshare -U -r call-quotactl 800007 0 0"),
    );
    assert_eq!(said.ok().stdout.trim(), "ok");
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

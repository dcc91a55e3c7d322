//! `vzctl`, `vzlist` and `vzpkg` as far as they need no mount: exit codes, what is written, what is left.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::host::{Ended, Host, words};
use crate::template::blob;

/// A host with a template of two files.
fn host() -> Host {
    let host = Host::new();
    let tree = host.path("tree");
    std::fs::create_dir_all(tree.join("bin")).unwrap();
    std::fs::write(tree.join("bin/sh"), vec![1; 50_000]).unwrap();
    std::fs::create_dir_all(host.path("vz/template/cache")).unwrap();
    tar(&host.path("vz/template/cache/tiny.tar.gz"), &tree, "-cz");
    host
}

fn tar(file: &Path, tree: &Path, mode: &str) {
    let mut tar = Command::new("tar");
    tar.arg(mode)
        .arg("-f")
        .arg(file)
        .arg("-C")
        .arg(tree)
        .arg(".");
    assert!(tar.status().unwrap().success());
}

fn vzctl(host: &Host, line: &str) -> Ended {
    host.run(env!("CARGO_BIN_EXE_vzctl"), &words(line))
}

fn vzlist(host: &Host, line: &str) -> Ended {
    host.run(env!("CARGO_BIN_EXE_vzlist"), &words(line))
}

#[track_caller]
fn ok(ended: &Ended) {
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
}

const CREATE: &str = "create 101 --ostemplate tiny --diskspace 10M:11M --diskinodes 100:110";

#[test]
fn bad_input_ends_with_the_code_of_the_table_and_changes_nothing() {
    let host = host();
    let rows = [
        ("", 20, "--help"),
        ("dance 101", 20, "dance"),
        ("create 101 --ostemplate", 20, "--ostemplate"),
        ("create 101", 29, "--ostemplate"),
        ("create 101 --ostemplate none", 91, "'none'"),
        ("create 101 --ostemplate ../x", 21, "'../x'"),
        ("create 0 --ostemplate tiny", 21, "'0'"),
        ("create -5 --ostemplate tiny", 21, "'-5'"),
        (
            "create 101 --ostemplate tiny --diskspace 10GB",
            21,
            "--diskspace: '10GB'",
        ),
        (
            "create 101 --ostemplate tiny --diskspace 2G:1G",
            21,
            "'2G:1G'",
        ),
        (
            "create 101 --ostemplate tiny --diskspace 8",
            46,
            "--diskspace",
        ),
        (
            "create 101 --ostemplate tiny --diskinodes 2",
            46,
            "--diskinodes",
        ),
        ("create 101 --ostemplate tiny --config none", 14, "'none'"),
        ("create 101 --ostemplate tiny --private x", 21, "'x'"),
        ("start 101", 43, "vzctl create 101"),
        ("restart 101", 43, "vzctl create 101"),
        ("mount 101", 43, "vzctl create 101"),
        ("runscript 101 /etc/passwd", 43, "vzctl create 101"),
        ("stop 101", 31, "no such VE"),
        ("exec 101 true", 31, "no such VE"),
        ("enter 101", 31, "no such VE"),
        ("umount 101", 43, "vzlist -a"),
        ("destroy 101", 43, "vzlist -a"),
        ("ubc 101", 43, "vzlist -a"),
        ("quotainit 101", 43, "vzlist -a"),
        ("set 101", 20, "--help"),
        (
            "create 101 --ostemplate tiny --ipadd 192.0.2.1",
            20,
            "--ipadd: not supported",
        ),
        ("set 101 --netif_add eth0 --save", 20, "ip link set"),
        ("set 101 --privvmpages 10 --save", 20, "not supported: "),
        ("snapshot 101", 20, "snapshot: not supported: "),
        ("suspend 101", 20, "vzctl stop"),
        ("console 101", 20, "vzctl enter"),
        ("set 101 --cpus 1 --save", 43, "vzlist -a"),
        ("set 101 --ram 1.5 --save", 21, "give bytes"),
        ("set 101 --iolimit 1.5 --save", 21, "give MB/s"),
        ("set 101 --diskinodes 1.5 --save", 21, "'1.5'"),
        ("status web", 21, "'web'"),
        ("--runtime podman start 101", 20, "podman"),
    ];
    for (line, code, what) in rows {
        let ended = vzctl(&host, line);
        assert_eq!(ended.code, code, "vzctl {line}: {ended:?}");
        assert_eq!(ended.err.lines().count(), 1, "vzctl {line}: {ended:?}");
        assert!(ended.err.contains(what), "vzctl {line}: {ended:?}");
    }
    for dir in ["vz/private", "etc/vz/conf", "var/lib/simfs", "vz/lock"] {
        let entries = std::fs::read_dir(host.path(dir)).into_iter().flatten();
        assert_eq!(entries.count(), 0, "{dir}");
    }
}

#[test]
fn columns_of_openvz_that_are_absent_say_why() {
    let host = host();
    for (line, code, what) in [
        ("-o ctid,uptime", 21, "'uptime': not supported: "),
        ("-s laverage", 21, "'laverage': not supported: "),
        ("-o nonsense", 21, "vzlist -L"),
    ] {
        let ended = vzlist(&host, line);
        assert_eq!(
            (ended.code, ended.err.lines().count()),
            (code, 1),
            "{ended:?}"
        );
        assert!(ended.err.contains(what), "vzlist {line}: {ended:?}");
    }
}

#[test]
fn a_ve_is_made_listed_changed_and_removed() {
    let host = host();
    ok(&vzctl(
        &host,
        &format!("-q {CREATE} --hostname web --name one"),
    ));
    assert_eq!(
        vzctl(&host, "status one").out,
        "CTID 101 exist unmounted down\n"
    );
    assert_eq!(vzctl(&host, CREATE).code, 44);
    let data = host.path("vz/private/101/bin/sh").metadata().unwrap();
    assert_eq!(data.len(), 50_000);
    // Counted once, at the end.
    let used = vzlist(
        &host,
        "-a -H -o diskspace,diskinodes,diskspace.h,hostname,status",
    )
    .out;
    let (kib, inodes) = crate::host::du(&host.path("vz/private/101"));
    let expected = format!("{kib} {inodes} 11264 web stopped");
    assert_eq!(words(&used).join(" "), expected);
    assert_eq!(vzlist(&host, "-H").out, "", "it does not run");
    // OpenVZ's answer to a number that nobody has; the others are listed.
    let listed = vzlist(&host, "-H -o ctid 101 999");
    assert_eq!((listed.code, listed.out.trim()), (1, "101"), "{listed:?}");
    assert_eq!(listed.err, "vzlist: VE 999: Container(s) not found\n");
    assert_eq!(vzlist(&host, "999").out, "");
    assert_eq!(vzlist(&host, "-j 999").out, "[]\n");
    // It does not run, and does not for nothing.
    for script in ["none", "/"] {
        let ended = vzctl(&host, &format!("runscript 101 {script}"));
        assert_eq!((ended.code, ended.out.as_str()), (79, ""), "{ended:?}");
        assert!(ended.err.contains(script), "{ended:?}");
    }
    for line in ["stop 101", "exec 101 true"] {
        let ended = vzctl(&host, line);
        assert_eq!(ended.code, 31, "{ended:?}");
        assert!(!ended.err.contains("no such VE"), "{ended:?}");
    }

    // Disk limits are in the record at once; the configuration follows with --save.
    ok(&vzctl(&host, "-q set 101 --diskspace 20M:22M --save"));
    ok(&vzctl(&host, "-q set 101 --diskinodes 200"));
    let list: Value = serde_json::from_str(&vzlist(&host, "-j 101").out).unwrap();
    assert_eq!(list[0]["diskspace"]["hardlimit"], 22_528);
    assert_eq!(list[0]["diskinodes"]["softlimit"], 200);
    let text = std::fs::read_to_string(host.path("etc/vz/conf/101.conf")).unwrap();
    assert!(text.contains("DISKSPACE=\"20480:22528\"\n"), "{text}");
    assert!(text.contains("DISKINODES=\"100:110\"\n"), "{text}");
    ok(&vzctl(&host, "-q set 101 --applyconfig"));
    let list: Value = serde_json::from_str(&vzlist(&host, "-j 101").out).unwrap();
    assert_eq!(list[0]["diskinodes"]["softlimit"], 100);

    assert_eq!(
        vzctl(&host, "set 101 --cpus 1").code,
        31,
        "lost without --save"
    );
    ok(&vzctl(&host, "-q create 102 --ostemplate tiny"));
    assert_eq!(vzctl(&host, "set 102 --name one --save").code, 131);
    ok(&vzctl(&host, "-q destroy one"));
    ok(&vzctl(&host, "-q destroy 102"));
    assert_eq!(
        vzctl(&host, "status 101").out,
        "CTID 101 deleted unmounted down\n"
    );
    for dir in [
        "vz/private",
        "etc/vz/conf",
        "etc/vz/names",
        "var/lib/simfs",
        "vz/lock",
    ] {
        let left: Vec<_> = std::fs::read_dir(host.path(dir))
            .unwrap()
            .flatten()
            .collect();
        assert!(left.is_empty(), "{dir}: {left:?}");
    }
}

/// Keeps a VE's configuration file from being written.
fn bar_configuration(host: &Host) -> std::path::PathBuf {
    let beside = host.path("etc/vz/conf/.101.conf.new");
    std::fs::create_dir_all(&beside).unwrap();
    beside
}

/// Keeps a name from being linked: it leads to no VE.
fn bar_name(host: &Host) -> std::path::PathBuf {
    let names = host.path("etc/vz/names");
    std::fs::create_dir_all(&names).unwrap();
    std::os::unix::fs::symlink("nowhere", names.join("taken")).unwrap();
    names.join("taken")
}

// S66: a step that fails late leaves no more than one that fails early.
#[test]
fn a_create_that_cannot_keep_the_configuration_or_the_name_leaves_nothing() {
    type Bar = fn(&Host) -> std::path::PathBuf;
    for (bar, code) in [(bar_configuration as Bar, 14), (bar_name, 3)] {
        let host = host();
        let bar = bar(&host);
        let ended = vzctl(&host, &format!("-q {CREATE} --name taken"));
        assert_eq!(ended.code, code, "{ended:?}");
        for dir in ["vz/private", "var/lib/simfs", "etc/vz/conf", "etc/vz/names"] {
            let entries = std::fs::read_dir(host.path(dir));
            let left: Vec<_> = entries
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| *path != bar)
                .collect();
            assert!(left.is_empty(), "{dir}: {left:?}");
        }
        let listed = vzlist(&host, "-a -H");
        assert_eq!((listed.code, listed.out.as_str()), (0, ""), "{listed:?}");
    }
}

// S70: what cannot be kept is not set.
#[test]
fn a_set_that_cannot_keep_the_configuration_or_the_name_changes_nothing() {
    type Bar = fn(&Host) -> std::path::PathBuf;
    for (bar, code) in [(bar_configuration as Bar, 14), (bar_name, 3)] {
        let host = host();
        ok(&vzctl(&host, &format!("-q {CREATE} --name one")));
        let file = host.path("etc/vz/conf/101.conf");
        let before = std::fs::read_to_string(&file).unwrap();
        bar(&host);
        let line = "-q set 101 --diskspace 20M:22M --name taken --save";
        let ended = vzctl(&host, line);
        assert_eq!(ended.code, code, "{ended:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
        assert_eq!(vzctl(&host, "status one").code, 0, "the name stays");
        let list: Value = serde_json::from_str(&vzlist(&host, "-j -a").out).unwrap();
        assert_eq!(list[0]["diskspace"]["hardlimit"], 11_264, "{list}");
    }
}

// S70: a part that would be lost keeps the whole from being set.
#[test]
fn a_set_that_would_lose_a_part_changes_nothing() {
    let host = host();
    ok(&vzctl(&host, &format!("-q {CREATE}")));
    let ended = vzctl(&host, "set 101 --diskspace 20M:22M --onboot yes");
    assert_eq!(ended.code, 31, "{ended:?}");
    assert!(ended.err.contains("ONBOOT"), "{ended:?}");
    let list: Value = serde_json::from_str(&vzlist(&host, "-j -a").out).unwrap();
    assert_eq!(list[0]["diskspace"]["hardlimit"], 11_264, "{list}");
}

#[test]
fn a_file_edited_by_hand_and_wrong_names_its_line() {
    let host = host();
    ok(&vzctl(&host, &format!("-q {CREATE}")));
    let file = host.path("etc/vz/conf/101.conf");
    std::fs::write(&file, "# mine\nDISKSPACE=\"much\"\n").unwrap();
    for line in ["start 101", "set 101 --cpus 1 --save"] {
        let ended = vzctl(&host, line);
        assert_eq!(ended.code, 14, "{ended:?}");
        assert!(
            ended.err.contains("101.conf: line 2: DISKSPACE: 'much'"),
            "{ended:?}"
        );
    }
    let listed = vzlist(&host, "-a");
    assert_eq!(
        listed.code, 0,
        "one wrong file does not end the list: {listed:?}"
    );
    assert!(listed.err.contains("line 2"), "{listed:?}");
}

// S59: ids that two VEs have are told.
#[test]
fn ids_that_two_ves_have_are_told() {
    let host = host();
    for (ve, first, shared) in [
        (101, 100_000, ""),
        (102, 165_536, ""),
        (103, 165_535, "VE 101, 102"),
    ] {
        let line = format!("create {ve} --ostemplate tiny --local_uid {first}");
        let ended = vzctl(&host, &line);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_eq!(ended.err.is_empty(), shared.is_empty(), "{ended:?}");
        assert!(ended.err.contains(shared), "{ended:?}");
    }
    let apart = vzctl(&host, "set 103 --local_uid 300000 --save");
    assert_eq!((apart.code, apart.err.as_str()), (0, ""));
    let groups = vzctl(&host, "set 103 --local_gid 100000 --save");
    assert_eq!(groups.code, 0, "{groups:?}");
    assert!(groups.err.contains("of VE 101:"), "{groups:?}");
}

#[test]
fn two_commands_on_one_ve_exclude_each_other() {
    let host = host();
    std::fs::create_dir_all(host.path("vz/lock")).unwrap();
    let file = std::fs::File::create(host.path("vz/lock/101.lck")).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let ended = vzctl(&host, CREATE);
    assert_eq!(ended.code, 9, "{ended:?}");
    assert_eq!(vzctl(&host, "status 101").code, 0, "looking needs no lock");
    drop(file);
    // The file of a command that was killed is in nobody's way.
    ok(&vzctl(&host, &format!("-q {CREATE}")));
}

#[test]
fn a_create_that_was_killed_can_be_repeated() {
    let host = host();
    // Killed while unpacking; then, by another attempt, just before the files got their name.
    std::fs::create_dir_all(host.path("vz/private/101.tmp/half")).unwrap();
    ok(&vzctl(&host, &format!("-q {CREATE}")));
    std::fs::rename(host.path("vz/private/101"), host.path("vz/private/101.tmp")).unwrap();
    assert_eq!(
        vzctl(&host, "status 101").out,
        "CTID 101 deleted unmounted down\n"
    );
    ok(&vzctl(&host, &format!("-q {CREATE} --hostname second")));
    assert!(!host.path("vz/private/101.tmp").exists());
    assert_eq!(words(&vzlist(&host, "-a -H -o hostname").out), ["second"]);
    ok(&vzctl(&host, "-q destroy 101"));
}

#[test]
fn an_image_of_layers_becomes_a_template() {
    let host = host();
    let (below, above, layout) = (host.path("below"), host.path("above"), host.path("layout"));
    std::fs::create_dir_all(below.join("bin")).unwrap();
    std::fs::create_dir_all(below.join("data")).unwrap();
    std::fs::create_dir_all(above.join("data")).unwrap();
    for file in [
        below.join("bin/sh"),
        below.join("data/old"),
        below.join("kept"),
        above.join("data/new"),
    ] {
        std::fs::write(file, "x").unwrap();
    }
    std::fs::write(above.join("data/.wh.old"), "").unwrap();
    // A link of one layer must not lead the files of the next out of the tree.
    let outside = host.path("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, below.join("trap")).unwrap();
    std::fs::create_dir_all(above.join("trap")).unwrap();
    std::fs::write(above.join("trap/file"), "x").unwrap();
    let mut layers = Vec::new();
    for (name, tree) in [("a1", &below), ("a2", &above)] {
        let file = host.path(name);
        tar(&file, tree, "-cz");
        layers.push(blob(&layout, &std::fs::read(file).unwrap()));
    }
    let manifest = json!({ "schemaVersion": 2, "layers": layers }).to_string();
    let manifest = blob(&layout, manifest.as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string();
    std::fs::write(layout.join("index.json"), index).unwrap();

    let vzpkg = |line: &str| host.run(env!("CARGO_BIN_EXE_vzpkg"), &words(line));
    ok(&vzpkg(&format!(
        "import image {} --form tree",
        layout.display()
    )));
    assert_eq!(vzpkg("list").out, "image\ntiny\n");
    let tree = host.path("vz/template/cache/image");
    assert!(tree.join("bin/sh").is_file() && tree.join("data/new").is_file());
    assert!(
        !tree.join("data/old").exists(),
        "taken away by the upper layer"
    );
    assert!(
        tree.join("trap/file").is_file() && tree.join("trap").symlink_metadata().unwrap().is_dir()
    );
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    ok(&vzctl(&host, "-q create 101 --ostemplate image"));
    assert!(host.path("vz/private/101/kept").is_file());
    assert_eq!(vzpkg("import ../x /dev/null").code, 21);
    assert_eq!(vzpkg("import bad /dev/null").code, 21);
    ok(&vzpkg("remove image"));
    assert_eq!(vzpkg("remove image").code, 91);
    assert_eq!(vzpkg("list").out, "tiny\n");
}

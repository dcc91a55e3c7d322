//! What makes no sense ends with the code of the table, one line that names the value, and nothing changed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::host::{Host, words};

#[test]
fn vzquota_names_what_is_wrong_and_changes_nothing() {
    let table = [
        // Command line, exit code, what the message names.
        ("", 2, "no command"),
        ("frobnicate 101", 2, "frobnicate"),
        ("stat", 2, "VEID"),
        ("stat abc", 2, "'abc'"),
        ("stat 0", 2, "'0'"),
        ("stat -5", 2, "'-5' is not a VE number: give 1 to"),
        ("stat 99999999999", 2, "'99999999999'"),
        ("stat 102", 11, "vzquota init 102"),
        ("show 102", 11, "vzquota init 102"),
        ("on 102", 11, "vzquota init 102"),
        ("off 102", 11, "vzquota init 102"),
        ("drop 102", 11, "vzquota init 102"),
        ("setlimit 102 -b 1", 11, "vzquota init 102"),
        ("setlimit2 102 -u 0 1 1 1 1", 11, "vzquota init 102"),
        ("stat 101 --frob", 2, "--frob' found: see vzquota --help"),
        ("stat 101 102", 2, "102"),
        ("setlimit 101", 2, "-b"),
        ("setlimit 101 -b", 2, "-b"),
        ("setlimit 101 -b 10X", 2, "-b: '10X'"),
        ("setlimit 101 -b 10GB", 2, "-b: '10GB'"),
        ("setlimit 101 -B -1", 2, "-B: '-1'"),
        ("setlimit 101 -B -10G", 2, "-B: '-10G'"),
        (
            "setlimit 101 -B 99999999999999999999",
            2,
            "-B: '99999999999999999999'",
        ),
        ("setlimit 101 -I 1.2.3", 2, "-I: '1.2.3'"),
        ("setlimit 101 -i 1.5", 2, "-i: '1.5'"),
        ("setlimit 101 -b 1.5", 2, "-b: '1.5'"),
        ("setlimit 101 -e soon", 2, "-e: 'soon'"),
        (
            "setlimit 101 -n 99999999999999999999",
            2,
            "-n: '99999999999999999999'",
        ),
        ("setlimit 101 -s 2", 2, "-s: '2'"),
        ("setlimit 101 -u -1", 2, "-u: '-1'"),
        ("setlimit 101 -b 300M", 2, "hard limit"),
        ("setlimit 101 -b 2G -B 1G", 2, "hard limit 1048576 KiB"),
        ("setlimit 101 -i 5 -I 4", 2, "hard limit 4 inodes"),
        ("on 101 -I 1", 2, "hard limit"),
        ("setlimit2 101 0 1 1 1 1", 2, "-u"),
        ("setlimit2 101 -u -g 0 1 1 1 1", 2, "-g"),
        ("setlimit2 101 -u 0 1 1 1", 2, "4 values given, 5 needed"),
        ("setlimit2 101 -u 0 1 1 1 1 1", 2, "6 values"),
        ("setlimit2 101 -u nobodyknows 1 1 1 1", 2, "'nobodyknows'"),
        ("setlimit2 101 -u -1 1 1 1 1", 2, "'-1'"),
        ("setlimit2 101 -u 4294967296 1 1 1 1", 2, "'4294967296'"),
        ("setlimit2 101 -u 4294967295 1 1 1 1", 2, "'4294967295'"),
        ("setlimit2 101 -g 4294967295 1 1 1 1", 2, "'4294967295'"),
        ("setlimit2 101 -u 0 x 1 1 1", 2, "BSOFT: 'x'"),
        ("setlimit2 101 -g -t 1", 2, "1 value given, 2 needed"),
        ("setlimit2 101 -g -t 1 x", 2, "IGRACE: 'x'"),
        (
            "init 101",
            2,
            "-p PATH, -b BSOFT, -B BHARD, -i ISOFT, -I IHARD, -e BGRACE, -n IGRACE",
        ),
        ("init 101 -p /x -b 1 -B 1 -i 1 -I 1 -e 1", 2, "-n IGRACE"),
        (
            "init 101 -p /x -b 2 -B 1 -i 1 -I 1 -e 1 -n 1",
            2,
            "hard limit",
        ),
        (
            "init 101 -p /etc/passwd -b 1 -B 1 -i 1 -I 1 -e 1 -n 1",
            13,
            "/etc/passwd",
        ),
        (
            "init 101 -p /etc/passwd/x -b 1 -B 1 -i 1 -I 1 -e 1 -n 1",
            13,
            "/etc/passwd/x",
        ),
    ];
    let host = Host::new();
    host.init();
    let before = host.vzquota_ok("--json stat 101 -t");
    for (line, code, named) in table {
        let ended = host.vzquota(&words(line));
        assert_eq!(ended.code, code, "vzquota {line}: {ended:?}");
        assert!(ended.err.contains(named), "vzquota {line}: {ended:?}");
        assert!(
            ended.err.starts_with("vzquota: "),
            "vzquota {line}: {ended:?}"
        );
        assert_eq!(ended.err.lines().count(), 1, "vzquota {line}: {ended:?}");
        assert_eq!(ended.out, "", "vzquota {line}");
    }
    assert_eq!(host.vzquota_ok("--json stat 101 -t"), before);
    assert!(!host.path("var/lib/simfs/102").exists());
}

#[test]
fn simfs_names_what_is_wrong() {
    let table = [
        ("", 2, "no command"),
        ("mount", 2, "VEID"),
        ("mount x", 2, "'x'"),
        ("mount 102", 1, "vzquota init 102"),
        ("mount 102 --no-quota", 1, "vz/private/102"),
        ("mount 101 /etc/passwd", 1, "/etc/passwd"),
        ("mount 101 /no/such/place", 1, "/no/such/place"),
        ("mount 101 --private /", 1, "vzquota setlimit 101 -p /"),
        ("mount 101 -o rw,frobnicate", 2, "'frobnicate'"),
        ("mount 101 -o passthrough=maybe", 2, "passthrough=maybe"),
        ("umount 102", 1, "no such VE"),
        ("umount 101", 1, "not mounted"),
        ("status 102", 1, "no such VE"),
        ("oci 101", 1, "'simfs mount 101' first"),
        ("oci 102", 1, "no such VE"),
        ("upgrade 102", 1, "no such VE"),
        ("status x", 2, "'x'"),
        ("check 102", 8, "vzquota init 102"),
        ("check 101 102", 2, "102"),
        ("upgrade", 2, "--all"),
        ("upgrade 101", 1, "not mounted"),
    ];
    let host = Host::new();
    host.init();
    for (line, code, named) in table {
        let ended = host.simfs(&words(line));
        assert_eq!(ended.code, code, "simfs {line}: {ended:?}");
        assert!(ended.err.contains(named), "simfs {line}: {ended:?}");
        assert!(ended.err.starts_with("simfs: "), "simfs {line}: {ended:?}");
        assert_eq!(ended.err.lines().count(), 1, "simfs {line}: {ended:?}");
    }
}

#[test]
fn called_as_a_mount_helper_it_ends_with_the_codes_of_mount_8() {
    let host = Host::new();
    let helper = host.path("mount.simfs");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_simfs"), &helper).unwrap();
    for (line, code, named) in [
        ("101", 1, "MOUNTPOINT"),
        ("101 /mnt -Z", 1, "-Z"),
        ("x /mnt", 1, "'x'"),
        ("101 /mnt -o frobnicate", 1, "'frobnicate'"),
        (
            "101 /mnt -o defaults,_netdev,nofail,user,x-a=b",
            32,
            "vzquota init 101",
        ),
        ("--version", 0, ""),
    ] {
        let ended = host.run(&helper, &words(line));
        assert_eq!(ended.code, code, "{line}: {ended:?}");
        assert!(ended.err.contains(named), "{line}: {ended:?}");
        // An option of 'simfs mount' that mount(8) has not.
        assert!(!ended.err.contains("--no-quota"), "{line}: {ended:?}");
    }
    assert!(host.simfs(&["mount", "101"]).err.contains("--no-quota"));
}

#[test]
fn arguments_that_are_not_utf8_are_refused() {
    let host = Host::new();
    let strange = OsStr::from_bytes(b"\xff\xfe");
    for (ended, code) in [
        (host.vzquota(&[OsStr::new("stat"), strange]), 2),
        (host.simfs(&[OsStr::new("check"), strange]), 2),
        (
            host.vzquota(
                &words("init 101 -b 1 -B 1 -i 1 -I 1 -e 1 -n 1 -p")
                    .into_iter()
                    .map(OsStr::new)
                    .chain([strange])
                    .collect::<Vec<_>>(),
            ),
            13,
        ),
    ] {
        assert_eq!(ended.code, code, "{ended:?}");
        assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let host = Host::new();
    for line in [
        "--help",
        "-h",
        "--version",
        "-V",
        "init --help",
        "setlimit2 -h",
    ] {
        let ended = host.vzquota(&words(line));
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "vzquota {line}");
        assert!(!ended.out.is_empty());
    }
    assert!(
        host.vzquota(&["--help"])
            .out
            .contains("11 the VE has no quota")
    );
    assert!(host.simfs(&["--help"]).out.contains("those of mount(8)"));
}

#[test]
fn a_vz_conf_that_makes_no_sense_is_named_with_its_line() {
    let host = Host::new();
    std::fs::create_dir_all(host.path("etc/vz")).unwrap();
    std::fs::write(host.path("etc/vz/vz.conf"), "OK=1\nnot an assignment\n").unwrap();
    let ended = host.vzquota(&["stat", "101"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("vz.conf: line 2"), "{ended:?}");
}

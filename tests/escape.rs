//! Ways out of a private area that were once open, and the usual ones. The guest here is root with all capabilities
//! in a chroot of the mount, which is more than a container gives it.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::command::{Outcome, finish, run};
use crate::harness::files::{mkdir, put};
use crate::harness::{KIB, Spec, Ve, require};

/// Opens made-up handles below the mount: of the kind that ext4 and most others use (FILEID_INO32_GEN) and of the kinds that
/// FUSE uses, for all small inode numbers. Prints what could be opened.
const OPEN_HANDLES: &str = r#"
    my $machine = (POSIX::uname())[4];
    my $number = $machine eq "x86_64" ? 304 : 265;
    opendir(my $dir, $ARGV[0]) or die "$!";
    open(my $mount, "<", $ARGV[0]) or die "$!";
    my ($own) = (stat $mount)[1];
    for my $type (1, 2, 0x81, 0x82) {
        for my $ino (1 .. 3000, 4294967295) {
            for my $generation (0, 1) {
                my $handle = $type < 3
                    ? pack("IiIIII", 8, $type, $ino, $generation, 0, 0)
                    : pack("IiIIIIII", $type == 0x81 ? 12 : 24, $type, 0, $ino, $generation, 0, 0, 0);
                my $fd = syscall($number, fileno($mount), $handle, 0);
                next if $fd < 0;
                open(my $found, "<&=", $fd);
                my ($device, $inode) = stat $found;
                print "$type $inode\n" if $device != (stat $mount)[0];
            }
        }
    }
"#;

// S39: CVE-2014-3519: handles of the file system below do not open anything.
#[test]
fn made_up_file_handles_reach_nothing_outside() {
    if !require::programs(&["perl"]) {
        return;
    }
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    put(ve.path("file"), KIB);
    std::fs::write(ve.beside("secret"), "outside").unwrap();
    let root = ve.root();
    let outcome = run(
        "perl",
        [
            "-MPOSIX".as_ref(),
            "-e".as_ref(),
            OPEN_HANDLES.as_ref(),
            root.as_os_str(),
        ],
    )
    .ok();
    assert_eq!(outcome.stdout, "", "type and inode of what was opened");
    let secret = crate::harness::files::stat(ve.beside("secret"))
        .unwrap()
        .st_ino;
    assert!(!outcome.stdout.contains(&secret.to_string()));
}

/// A shell command in a chroot of the mount, with the host's shell and tools copied into it.
fn in_chroot(ve: &Ve, script: &str) -> Outcome {
    finish(
        Command::new("chroot")
            .arg(ve.root())
            .args(["/busybox", "sh", "-c", script]),
    )
}

fn with_busybox() -> Option<Ve> {
    let ve = Spec::default().mount()?;
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find(|path| std::path::Path::new(path).exists())
    else {
        require::skip("no busybox");
        return None;
    };
    std::fs::copy(busybox, ve.path("busybox")).unwrap();
    Some(ve)
}

// S39: CVE-2015-2925: `..` of a directory that is moved away while it is walked ends at the root.
#[test]
fn moved_directories_do_not_lead_out() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    mkdir(ve.path("a")).unwrap();
    mkdir(ve.path("a/b")).unwrap();
    mkdir(ve.path("a/b/c")).unwrap();
    std::fs::write(ve.beside("marker"), "outside").unwrap();
    let end = Instant::now() + Duration::from_secs(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while Instant::now() < end {
                let _racing = std::fs::rename(ve.path("a/b/c"), ve.path("c"));
                let _racing = std::fs::rename(ve.path("c"), ve.path("a/b/c"));
            }
        });
        // Behind the mount, as the original attack did it through a bind mount.
        let mut found = false;
        while Instant::now() < end {
            for start in ["a/b/c", "c"] {
                for up in 1..8 {
                    let path = ve.path(start).join("../".repeat(up)).join("marker");
                    let inside = up <= 4
                        && path.exists()
                        && std::fs::canonicalize(&path)
                            .is_ok_and(|real| real.starts_with(ve.root()));
                    found |= inside;
                }
            }
        }
        assert!(!found, "a file of the host appeared below the mount");
    });
}

// S39: symbolic links are resolved by the caller, in the caller's root.
#[test]
fn symbolic_links_are_resolved_in_the_guest() {
    let Some(ve) = with_busybox() else { return };
    std::fs::write(ve.beside("secret"), "outside").unwrap();
    let secret = ve.beside("secret");
    std::os::unix::fs::symlink(&secret, ve.path("absolute")).unwrap();
    std::os::unix::fs::symlink(
        "../".repeat(30) + secret.to_str().unwrap(),
        ve.path("relative"),
    )
    .unwrap();
    for name in ["absolute", "relative"] {
        let outcome = in_chroot(&ve, &format!("/busybox cat /{name}"));
        assert_ne!(outcome.code, 0, "{outcome:?}");
        let write = in_chroot(&ve, &format!("echo changed > /{name}"));
        assert_ne!(write.code, 0, "{write:?}");
    }
    assert_eq!(std::fs::read_to_string(secret).unwrap(), "outside");
}

/// A link in the private area that points to the host is content, not a way for the daemon.
#[test]
fn the_daemon_follows_no_link() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    std::fs::create_dir(ve.beside("host")).unwrap();
    std::fs::write(ve.beside("host/secret"), "outside").unwrap();
    mkdir(ve.path("dir")).unwrap();
    put(ve.path("dir/secret"), 10);
    std::fs::rename(ve.private().join("dir"), ve.private().join("was")).unwrap();
    std::os::unix::fs::symlink(ve.beside("host"), ve.private().join("dir")).unwrap();
    // Names are cached: what was looked up before the change may be served, the host's file may not.
    let seen = std::fs::read(ve.path("dir/secret")).map(|data| data.len());
    assert_ne!(seen.ok(), Some("outside".len()));
    let mut ve = ve;
    ve.leave_unchecked();
}

// S39: links to files of the host cannot be made.
#[test]
fn links_across_the_border_are_refused() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    std::fs::write(ve.beside("host"), "outside").unwrap();
    let flags = rustix::fs::AtFlags::empty();
    let cwd = rustix::fs::CWD;
    let link = rustix::fs::linkat(cwd, ve.beside("host"), cwd, ve.path("link"), flags);
    let rename = crate::harness::files::rename(
        ve.beside("host"),
        ve.path("moved"),
        rustix::fs::RenameFlags::empty(),
    );
    assert_eq!(
        (link, rename),
        (Err(rustix::io::Errno::XDEV), Err(rustix::io::Errno::XDEV))
    );
}

// S39: CVE-2015-6927: what the guest writes decides nothing about how the host reads its area.
#[test]
fn files_of_the_guest_configure_nothing() {
    let Some(ve) = Spec::default().space(1024, 1024).mount() else {
        return;
    };
    mkdir(ve.path("root.hdd")).unwrap();
    for name in [
        "root.hdd/DiskDescriptor.xml",
        "identity",
        "limits.copy",
        "settings.copy",
        ".vzfifo",
        "aquota.user",
    ] {
        std::fs::write(ve.path(name), "ve=1 limits=none").unwrap();
    }
    ve.remount();
    assert_eq!(ve.stat()["limits"]["space"]["hard"], 1024 * KIB);
    assert_eq!(
        std::fs::read(ve.path("identity")).unwrap(),
        b"ve=1 limits=none"
    );
}

// S39: a mount that the host makes inside the private area is not entered.
#[test]
fn mounts_inside_the_private_area_are_not_entered() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    mkdir(ve.path("inside")).unwrap();
    let inside = ve.private().join("inside");
    run(
        "mount",
        [
            "-t".as_ref(),
            "tmpfs".as_ref(),
            "tmpfs".as_ref(),
            inside.as_os_str(),
        ],
    )
    .ok();
    std::fs::write(inside.join("secret"), "outside").unwrap();
    let seen = std::fs::read(ve.path("inside/secret"));
    run("umount", [&inside]).ok();
    assert!(seen.is_err());
}

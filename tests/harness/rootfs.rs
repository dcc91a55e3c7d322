//! A Debian root directory for containers, made once by debootstrap and kept for later runs.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::command::run;
use super::require;

/// Where it is kept between runs.
const CACHE: &str = "/var/cache/simfs-test";

/// Copies a minimal Debian into an empty private area; `false` after a skip.
#[must_use]
pub(crate) fn unpack_into(private: &Path) -> bool {
    unpack(private, "bookworm", "")
}

/// The same with the quota tools, and with two users, `ann` (1001) and `bob` (1002, also in `ann`'s group).
///
/// `SIMFS_TEST_QUOTA_ROOT` names a root directory with other releases of the tools to take in its place.
#[must_use]
pub(crate) fn unpack_with_quota_tools_into(private: &Path) -> bool {
    if let Some(root) = std::env::var_os("SIMFS_TEST_QUOTA_ROOT") {
        copy(Path::new(&root), private);
    } else if !unpack(private, "minbase-quota", "quota,xfsprogs") {
        return false;
    }
    let append = |name: &str, text: &str| {
        let file = OpenOptions::new().append(true).open(private.join(name));
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    };
    append(
        "etc/passwd",
        "ann:x:1001:1001::/home:/bin/sh\nbob:x:1002:1002::/home:/bin/sh\n",
    );
    append("etc/group", "ann:x:1001:bob\nbob:x:1002:\n");
    true
}

/// The same with systemd as its first program, and an identity still to be made.
#[must_use]
pub(crate) fn unpack_with_systemd_into(private: &Path) -> bool {
    let is_there = unpack(private, "minbase-systemd", "systemd-sysv,dbus");
    if is_there {
        std::fs::write(private.join("etc/machine-id"), "").expect("machine-id");
    }
    is_there
}

fn unpack(private: &Path, name: &str, packages: &str) -> bool {
    if !require::programs(&["debootstrap", "crun"]) {
        return false;
    }
    let Some(cached) = cached(name, packages) else {
        return false;
    };
    copy(&cached, private);
    true
}

fn copy(root: &Path, private: &Path) {
    let from = root.join(".");
    run(
        "cp",
        [
            "-a".as_ref(),
            "--reflink=auto".as_ref(),
            from.as_os_str(),
            private.as_os_str(),
        ],
    )
    .ok();
}

fn cached(name: &str, packages: &str) -> Option<PathBuf> {
    let done = Path::new(CACHE).join(name);
    if done.exists() {
        return Some(done);
    }
    std::fs::create_dir_all(CACHE).expect("cache directory");
    // One makes it; others, in this process or another, wait for it and find it.
    let lock = File::create(Path::new(CACHE).join("lock")).expect("lock file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock");
    if done.exists() {
        return Some(done);
    }
    let making = tempfile::Builder::new()
        .prefix("making.")
        .tempdir_in(CACHE)
        .expect("directory");
    let target = making.path().join("root");
    let include = format!("--include={packages}");
    let mut args: Vec<&OsStr> = vec!["--variant=minbase".as_ref()];
    if !packages.is_empty() {
        args.push(include.as_ref());
    }
    args.extend(["bookworm".as_ref(), target.as_os_str()]);
    let made = run("debootstrap", args);
    if made.code != 0 {
        let last = made.stdout.lines().last().unwrap_or("no output").to_owned();
        require::skip(&format!("debootstrap failed: {last}"));
        return None;
    }
    std::fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("chmod");
    std::fs::rename(&target, &done).expect("keep the root directory");
    Some(done)
}

//! A Debian root directory for containers, made once by debootstrap and kept for later runs.

use std::path::{Path, PathBuf};

use super::command::run;
use super::require;

/// Where it is kept between runs.
const CACHE: &str = "/var/cache/simfs-test";

/// Copies a minimal Debian into an empty private area; `false` after a skip.
#[must_use]
pub(crate) fn unpack_into(private: &Path) -> bool {
    if !require::programs(&["debootstrap", "crun"]) {
        return false;
    }
    let Some(cached) = cached() else { return false };
    let from = cached.join(".");
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
    true
}

fn cached() -> Option<PathBuf> {
    let done = Path::new(CACHE).join("bookworm");
    if done.exists() {
        return Some(done);
    }
    std::fs::create_dir_all(CACHE).expect("cache directory");
    let making = tempfile::Builder::new()
        .prefix("making.")
        .tempdir_in(CACHE)
        .expect("directory");
    let target = making.path().join("root");
    let made = run(
        "debootstrap",
        [
            "--variant=minbase".as_ref(),
            "bookworm".as_ref(),
            target.as_os_str(),
        ],
    );
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

//! The VE's own administrator: Debian's quota tools, unmodified, in containers of crun and runc.

mod callers;
mod capability;
mod continuity;
mod death;
mod limits;
mod neighbours;
pub(crate) mod permission;
mod quota_files;
mod tools;

use std::collections::BTreeMap;

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};

use crate::harness::container::Guest;
use crate::harness::files::put;
use crate::harness::{Spec, Ve, require, rootfs};

/// A mounted Debian with the tools, second level on; `None` after a skip.
fn debian(runtime: &str, options: &str) -> Option<Ve> {
    debian_owned_from(runtime, options, 0)
}

/// The same with all ids moved up, for a user namespace.
fn debian_owned_from(runtime: &str, options: &str, base: u32) -> Option<Ve> {
    if !require::programs(&[runtime, "mkfs.ext4"]) {
        return None;
    }
    let spec = Spec::default().second_level().options(options);
    let ve = spec.bare()?;
    if !rootfs::unpack_with_quota_tools_into(ve.private()) {
        return None;
    }
    if base != 0 {
        move_ids(ve.private(), base);
    }
    ve.init().ok();
    ve.mount().ok();
    for (name, id) in [("ann", 1001), ("bob", 1002)] {
        let path = ve.path(format!("srv/{name}"));
        std::fs::create_dir(&path).unwrap();
        put(path.join("first"), 8192);
        for path in [path.join("first"), path] {
            let (uid, gid) = (Uid::from_raw(base + id), Gid::from_raw(base + id));
            chownat(CWD, path, Some(uid), Some(gid), AtFlags::empty()).unwrap();
        }
    }
    Some(ve)
}

fn move_ids(top: &std::path::Path, base: u32) {
    use std::os::unix::fs::MetadataExt;
    let mut pending = vec![top.to_owned()];
    while let Some(path) = pending.pop() {
        let data = std::fs::symlink_metadata(&path).unwrap();
        if data.uid() >= base {
            continue;
        }
        let ids = (base + data.uid(), base + data.gid());
        let (uid, gid) = (Uid::from_raw(ids.0), Gid::from_raw(ids.1));
        chownat(CWD, &path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
        if data.is_dir() {
            pending.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
}

/// What one command of a script did.
#[derive(Debug, Default)]
struct Answer {
    code: i32,
    text: String,
}

/// Runs commands one after the other in one container; the answers by name.
#[track_caller]
fn answers(guest: &Guest<'_>, name: &str, rows: &[(&str, &str)]) -> BTreeMap<String, Answer> {
    let script: String = rows
        .iter()
        .map(|(row, command)| format!("echo \"== {row}\"; ( {command} ) 2>&1; echo \"-- $?\"\n"))
        .collect();
    let outcome = guest.run(name, &script).ok();
    let mut answers = BTreeMap::new();
    let mut current = (String::new(), Answer::default());
    for line in outcome.stdout.lines() {
        if let Some(row) = line.strip_prefix("== ") {
            current = (row.to_owned(), Answer::default());
        } else if let Some(code) = line.strip_prefix("-- ") {
            current.1.code = code.parse().unwrap();
            let (row, answer) = std::mem::take(&mut current);
            answers.insert(row, answer);
        } else {
            current.1.text.push_str(line);
            current.1.text.push('\n');
        }
    }
    assert_eq!(answers.len(), rows.len(), "{outcome:?}");
    answers
}

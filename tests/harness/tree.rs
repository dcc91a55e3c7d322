//! A directory tree as text, for comparing two of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Every entry below a directory with all that must be equal on two file systems: not times, inode numbers, or the
/// sizes of directories.
pub(crate) fn dump(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).expect("readdir") {
            let path = entry.expect("entry").path();
            if fs::symlink_metadata(&path).expect("stat").is_dir() {
                pending.push(path.clone());
            }
            let name = path
                .strip_prefix(root)
                .expect("below the root")
                .display()
                .to_string();
            all.insert(name, describe(&path));
        }
    }
    all
}

/// One entry.
pub(crate) fn describe(path: &Path) -> String {
    let Ok(data) = fs::symlink_metadata(path) else {
        return "absent".into();
    };
    let kind = data.file_type();
    let content = if kind.is_symlink() {
        format!("-> {:?}", fs::read_link(path).expect("readlink"))
    } else if kind.is_file() {
        format!("{} bytes, sum {}", data.len(), sum(path))
    } else if kind.is_block_device() || kind.is_char_device() {
        format!("device {:x}", data.rdev())
    } else {
        String::new()
    };
    format!(
        "{:o} {}:{} links {} {content} {}",
        data.mode(),
        data.uid(),
        data.gid(),
        data.nlink(),
        xattrs(path)
    )
}

/// FNV-1a over the content, or why it cannot be read.
fn sum(path: &Path) -> String {
    match fs::read(path) {
        Err(error) => error.kind().to_string(),
        Ok(bytes) => {
            let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
            format!("{sum:016x}")
        }
    }
}

/// Names and values of extended attributes, sorted.
pub(crate) fn xattrs(path: &Path) -> String {
    let mut names = vec![0_u8; 65_536];
    let Ok(len) = rustix::fs::llistxattr(path, &mut names[..]) else {
        return String::new();
    };
    let mut found = BTreeMap::new();
    for name in names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = std::str::from_utf8(name).expect("ASCII").to_owned();
        let mut value = vec![0_u8; 65_536];
        let len = rustix::fs::lgetxattr(path, name.as_str(), &mut value[..]).unwrap_or(0);
        value.truncate(len);
        found.insert(name, value);
    }
    found
        .iter()
        .map(|(name, value)| format!("{name}={value:?} "))
        .collect()
}

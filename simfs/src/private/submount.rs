//! Mounts below a directory, as `/proc/thread-self/mountinfo` lists them.
//!
//! # Source
//! proc_pid_mountinfo(5): the fifth field is the mount point; space, tab, newline and backslash stand there as `\` and
//! three octal digits.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::PrivateError;

/// Refuses a private area inside which something is mounted.
///
/// # Errors
/// [`PrivateError::Submount`] with the first mount point; [`PrivateError::Missing`] and [`PrivateError::Io`].
pub fn refuse_submounts(path: &Path) -> Result<(), PrivateError> {
    let failed = |action| {
        move |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => PrivateError::Missing { path: path.into() },
            _ => PrivateError::Io {
                path: path.into(),
                action,
                source,
            },
        }
    };
    let real = path.canonicalize().map_err(failed("find its place"))?;
    let list = std::fs::read("/proc/thread-self/mountinfo").map_err(failed("list mounts"))?;
    match first_below(&list, &real) {
        Some(submount) => Err(PrivateError::Submount {
            path: path.into(),
            submount,
        }),
        None => Ok(()),
    }
}

/// The first mount point strictly below a directory.
fn first_below(mountinfo: &[u8], directory: &Path) -> Option<PathBuf> {
    mountinfo
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(unescape)
        .find(|point| point != directory && point.starts_with(directory))
}

fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        match behind
            .split_first_chunk::<3>()
            .filter(|_| byte == b'\\')
            .and_then(|(digits, after)| {
                let digits = std::str::from_utf8(digits).ok()?;
                Some((u8::from_str_radix(digits, 8).ok()?, after))
            }) {
            Some((escaped, after)) => {
                plain.push(escaped);
                rest = after;
            }
            None => {
                plain.push(byte);
                rest = behind;
            }
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn only_what_is_strictly_below_counts() {
        let list = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
            2 1 8:1 / /vz/private/101 rw - ext4 /dev/a rw\n\
            3 1 0:4 / /vz/private/1011 rw - tmpfs none rw\n\
            4 1 0:4 / /vz/private/102/a\\040b\\134 rw,x shared:1 - tmpfs none rw\n";
        let below = |path| first_below(list, Path::new(path));
        assert_eq!(
            below("/vz/private/101"),
            None,
            "itself a mount point, and a name that begins alike"
        );
        assert_eq!(
            below("/vz/private/102"),
            Some(PathBuf::from("/vz/private/102/a b\\"))
        );
        assert_eq!(below("/vz"), Some(PathBuf::from("/vz/private/101")));
    }

    #[test]
    fn what_is_no_escape_stays() {
        for (field, plain) in [
            ("a\\", "a\\"),
            ("\\04", "\\04"),
            ("\\999", "\\999"),
            ("\\011x", "\tx"),
        ] {
            assert_eq!(
                unescape(field.as_bytes()).as_os_str().as_bytes(),
                plain.as_bytes()
            );
        }
    }

    #[test]
    fn the_root_has_mounts_below_and_an_empty_directory_none() {
        assert!(matches!(
            refuse_submounts(Path::new("/")),
            Err(PrivateError::Submount { .. })
        ));
        let area = tempfile::tempdir().unwrap();
        refuse_submounts(area.path()).unwrap();
        let missing = refuse_submounts(&area.path().join("none"));
        assert!(matches!(missing, Err(PrivateError::Missing { .. })));
    }
}

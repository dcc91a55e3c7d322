//! Names of the VE's users and groups, from its own `/etc/passwd` and `/etc/group`.
//!
//! The files belong to the guest, who may be hostile. Invariants:
//! 1. Nothing outside the private area is opened, whatever symbolic links lie there.
//! 2. Only regular files are read, never waited for, and at most `FILE_MAX` bytes of each.
//! 3. A name that could not be typed on a terminal, or could trick one, is not used.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use quota::QuotaType;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// Most bytes read of a file; lines beyond are not seen.
const FILE_MAX: u64 = 4 * 1024 * 1024;
/// Longest name that is shown.
const NAME_MAX: usize = 64;

/// Ids and names of one VE.
#[derive(Clone, Debug, Default)]
pub struct Names {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Names {
    /// The names in a private area; none where the files are absent or unusable.
    pub fn read(private: &Path) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(root) = rustix::fs::open(private, flags, Mode::empty()) else {
            return Self::default();
        };
        let table = |path| {
            read_inside(&root, path)
                .map(|text| parse(&text))
                .unwrap_or_default()
        };
        Self {
            users: table("etc/passwd"),
            groups: table("etc/group"),
        }
    }

    /// The name of an id.
    pub fn name(&self, kind: QuotaType, id: u32) -> Option<&str> {
        self.table(kind).get(&id).map(String::as_str)
    }

    /// The id of a name; the smallest if several bear it.
    pub fn id(&self, kind: QuotaType, name: &str) -> Option<u32> {
        self.table(kind)
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(id, _)| *id)
    }

    fn table(&self, kind: QuotaType) -> &BTreeMap<u32, String> {
        match kind {
            QuotaType::User => &self.users,
            QuotaType::Group => &self.groups,
        }
    }
}

/// The text of a regular file below `root`, which is `/` to every symbolic link on the way.
fn read_inside(root: impl AsFd, path: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    // Opening a device can have effects of its own, so the file is looked at before.
    let seen = rustix::fs::openat2(
        root.as_fd(),
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )?;
    refuse_special(&seen)?;
    let file = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?;
    refuse_special(&file)?;
    let mut bytes = Vec::new();
    File::from(file).take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn refuse_special(file: impl AsFd) -> io::Result<()> {
    match FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(io::Error::other("not a regular file")),
    }
}

/// `name:password:id:...` lines; the first name of an id counts, as for getpwuid(3).
fn parse(text: &str) -> BTreeMap<u32, String> {
    let mut table = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(_), Some(id)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if let Ok(id) = id.parse()
            && is_harmless(name)
        {
            table.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    table
}

fn is_harmless(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && !name.bytes().all(|byte| byte.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-$@".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn area(passwd: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        dir
    }

    #[test]
    fn names_are_found_both_ways() {
        let dir = area("root:x:0:0::/root:/bin/sh\ntoor:x:0:0\nann:x:1000:1000\n");
        let names = Names::read(dir.path());
        assert_eq!(names.name(QuotaType::User, 0), Some("root"));
        assert_eq!(names.id(QuotaType::User, "ann"), Some(1000));
        assert_eq!(names.name(QuotaType::Group, 0), None);
    }

    #[test]
    fn hostile_names_are_not_shown() {
        let dir = area("\x1b[2Jx:x:1:1\na b:x:2:2\n:x:3:3\n77:x:4:4\nbad\nok:x:nan:0\n");
        let names = Names::read(dir.path());
        for id in 0..5 {
            assert_eq!(names.name(QuotaType::User, id), None);
        }
    }

    #[test]
    fn links_stay_inside_the_private_area() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("passwd"), "secret:x:9:9\n").unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        symlink(outside.path().join("passwd"), dir.path().join("etc/passwd")).unwrap();
        symlink("/../etc/real", dir.path().join("etc/group")).unwrap();
        std::fs::write(dir.path().join("etc/real"), "inside:x:9:\n").unwrap();
        let names = Names::read(dir.path());
        assert_eq!(names.name(QuotaType::User, 9), None);
        assert_eq!(names.name(QuotaType::Group, 9), Some("inside"));
    }

    #[test]
    fn pipes_are_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let pipe = dir.path().join("etc/passwd");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert_eq!(Names::read(dir.path()).name(QuotaType::User, 0), None);
    }
}

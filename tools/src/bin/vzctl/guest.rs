//! What belongs to the VE's administrator: its first program, and the few files that are written for it.
//!
//! The tree is hostile: every path is resolved with the VE's root as `/`, and files are made anew and renamed into
//! place, so neither links nor devices in it are followed or opened.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::ve_config::VeConfig;

use crate::{Context, Fallible};

/// A first program for trees that have none: it collects orphans, and ends its VE when it is told to.
const WAITER: &str =
    "trap 'kill -TERM -1; sleep 1; exit 0' TERM; while :; do sleep 1000000 & wait $!; done";

/// How much is read of a file of the VE.
const LONGEST: u64 = 64 << 10;

/// A device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: FileType,
    pub(crate) number: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// How a VE is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// A signal to the first program.
    Signal(&'static str),
    /// `halt` in the VE.
    Command,
}

impl Halt {
    /// A word for a file.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Signal(signal) => signal,
            Self::Command => "halt",
        }
    }

    /// What a word means; anything else is `halt`.
    pub(crate) fn of(word: &str) -> Self {
        match word {
            "TERM" => Self::Signal("TERM"),
            "37" => Self::Signal("37"),
            _ => Self::Command,
        }
    }
}

/// The tree of a VE.
pub(crate) struct Tree {
    root: OwnedFd,
}

impl Tree {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        Ok(Self { root })
    }

    /// The device nodes of a VE that runs, as its first process sees them.
    pub(crate) fn devices_of(pid: u32) -> io::Result<Self> {
        let all = Self::open(Path::new(&format!("/proc/{pid}/root")))?;
        // It is a mount of its own, and perhaps behind a link.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat2(&all.root, "dev", flags, Mode::empty(), resolve)?;
        Ok(Self { root })
    }

    /// Makes a device node and the directories above it. One that is there already stays.
    pub(crate) fn make_node(&self, path: &str, node: &Node) -> io::Result<()> {
        let mut dir = self.look(".", OFlags::PATH | OFlags::DIRECTORY)?;
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut place = String::from(".");
        for part in above.split('/').filter(|part| !part.is_empty()) {
            match rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            place = format!("{place}/{part}");
            dir = self.look(&place, OFlags::PATH | OFlags::DIRECTORY)?;
        }
        if is_node(&dir, name, node) {
            return Ok(());
        }
        // Changed afterwards, the mode could become that of what the VE has put in its place.
        let former = rustix::process::umask(Mode::empty());
        let mode = Mode::from_raw_mode(node.mode);
        let made = rustix::fs::mknodat(&dir, name, node.kind, mode, node.number);
        rustix::process::umask(former);
        made?;
        let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(
            &dir,
            name,
            Some(uid),
            Some(gid),
            flags,
        )?)
    }

    /// Removes a device node, if it is still that of the device.
    pub(crate) fn remove_node(&self, path: &str, node: &Node) {
        let (above, name) = path.rsplit_once('/').unwrap_or((".", path));
        let dir = self.look(above, OFlags::PATH | OFlags::DIRECTORY);
        if let Ok(dir) = dir
            && is_node(&dir, name, node)
        {
            let _is_useless_anyway = rustix::fs::unlinkat(&dir, name, AtFlags::empty());
        }
    }

    /// The VE's first program and how it is asked to end.
    ///
    /// # Errors
    /// `BrokenVe`: there is neither an init nor a shell.
    pub(crate) fn first_program(&self) -> Fallible<(Vec<String>, Halt)> {
        if let Some(target) = self.target("sbin/init") {
            // systemd ends on this real-time signal (systemd(1), "SIGRTMIN+3").
            let halt = if target.contains("systemd") {
                Halt::Signal("37")
            } else {
                Halt::Command
            };
            return Ok((vec!["/sbin/init".into()], halt));
        }
        if self.target("bin/sh").is_some() {
            let program = ["/bin/sh", "-c", WAITER].map(str::to_owned);
            return Ok((program.to_vec(), Halt::Signal("TERM")));
        }
        Err(Failure::new(
            VzctlExit::BrokenVe,
            "neither /sbin/init nor /bin/sh in the VE: it was not made from a whole template",
        ))
    }

    /// The shell that commands are given to.
    pub(crate) fn shell(&self) -> &'static str {
        if self.target("bin/bash").is_some() {
            "/bin/bash"
        } else {
            "/bin/sh"
        }
    }

    /// Where a path leads to, as the kernel sees it.
    fn target(&self, path: &str) -> Option<String> {
        let file = self.look(path, OFlags::PATH).ok()?;
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        Some(std::fs::read_link(link).ok()?.display().to_string())
    }

    fn look(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(
            &self.root,
            path,
            flags,
            Mode::empty(),
            resolve,
        )?)
    }

    /// What stands in a file of text that belongs to the VE: of a large one the beginning.
    fn read(&self, path: &str) -> io::Result<String> {
        let file = File::from(self.look(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Replaces a file below /etc.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let dir = self.look("etc", OFlags::PATH | OFlags::DIRECTORY)?;
        let beside = format!(".{name}.vzctl");
        match rustix::fs::unlinkat(&dir, &beside, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o644);
        let file = rustix::fs::openat(&dir, &beside, flags | OFlags::CLOEXEC, mode)?;
        let written = File::from(file).write_all(text.as_bytes()).and_then(|()| {
            Ok(rustix::fs::renameat(
                dir.as_fd(),
                &beside,
                dir.as_fd(),
                name,
            )?)
        });
        if written.is_err() {
            let _is_gone = rustix::fs::unlinkat(&dir, &beside, AtFlags::empty());
        }
        written
    }
}

/// Whether a name is that of this device.
fn is_node(dir: &OwnedFd, name: &str, node: &Node) -> bool {
    let data = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    data.is_ok_and(|data| {
        FileType::from_raw_mode(data.st_mode) == node.kind && data.st_rdev == node.number
    })
}

/// The lines of resolv.conf(5) with other search domains or servers; what is not given stays.
fn resolver(former: &str, domains: Option<&str>, servers: Option<&str>) -> String {
    let is_of = |line: &str, words: &[&str]| {
        let first = line.split_whitespace().next();
        first.is_some_and(|first| words.contains(&first))
    };
    let kept = |words: &[&str]| -> Vec<String> {
        let lines = former.lines().filter(|line| is_of(line, words));
        lines.map(str::to_owned).collect()
    };
    let mut lines = match domains {
        Some(domains) => vec![format!("search {domains}")],
        None => kept(&["search", "domain"]),
    };
    match servers {
        Some(servers) => lines.extend(
            servers
                .split_whitespace()
                .map(|server| format!("nameserver {server}")),
        ),
        None => lines.extend(kept(&["nameserver"])),
    }
    lines.extend(kept(&["options", "sortlist"]));
    lines.join("\n") + "\n"
}

/// Writes what is wanted of names into the mounted VE; what cannot be written is told.
pub(crate) fn write_files(
    context: &Context,
    config: &VeConfig,
    tree: &Tree,
    is_wanted: impl Fn(&str) -> bool,
) {
    let mut files = Vec::new();
    if let Some(name) = config.get("HOSTNAME").filter(|_| is_wanted("HOSTNAME")) {
        files.push(("hostname", format!("{name}\n")));
    }
    let wanted = |key: &str| config.get(key).filter(|_| is_wanted(key));
    let (servers, domains) = (wanted("NAMESERVER"), wanted("SEARCHDOMAIN"));
    if servers.is_some() || domains.is_some() {
        let former = tree.read("etc/resolv.conf").unwrap_or_default();
        let text = resolver(&former, domains.as_deref(), servers.as_deref());
        files.push(("resolv.conf", text));
    }
    for (name, text) in files {
        if let Err(error) = tree.write(name, &text) {
            context.warn(&format!("/etc/{name} of the VE: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn files_stay_inside_the_tree() {
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        std::fs::write(&victim, "safe").unwrap();
        let dir = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("etc")).unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        assert!(tree.write("victim", "x").is_err());
        std::fs::remove_file(dir.path().join("etc")).unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        symlink(&victim, dir.path().join("etc/hostname")).unwrap();
        tree.write("hostname", "web\n").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "safe");
        let file = dir.path().join("etc/hostname");
        assert!(file.symlink_metadata().unwrap().is_file());
        assert_eq!(std::fs::read_to_string(file).unwrap(), "web\n");
    }

    #[test]
    fn what_is_not_given_of_a_resolver_stays() {
        let former = "# a note\nsearch a.example\nnameserver 192.0.2.1\noptions rotate\n";
        let rows = [
            (
                Some("b.example"),
                None,
                "search b.example\nnameserver 192.0.2.1\noptions rotate\n",
            ),
            (
                None,
                Some("192.0.2.2 192.0.2.3"),
                "search a.example\nnameserver 192.0.2.2\nnameserver 192.0.2.3\noptions rotate\n",
            ),
        ];
        for (domains, servers, expected) in rows {
            assert_eq!(resolver(former, domains, servers), expected);
        }
        assert_eq!(
            resolver("", Some("a"), Some("::1")),
            "search a\nnameserver ::1\n"
        );
    }

    #[test]
    fn the_first_program_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        assert_eq!(tree.first_program().unwrap_err().exit, VzctlExit::BrokenVe);
        for path in ["bin", "sbin", "lib/systemd"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::fs::write(dir.path().join("bin/sh"), "").unwrap();
        assert_eq!(tree.first_program().unwrap().1, Halt::Signal("TERM"));
        let init = dir.path().join("sbin/init");
        std::fs::write(dir.path().join("lib/systemd/systemd"), "").unwrap();
        symlink("/lib/systemd/systemd", &init).unwrap();
        assert_eq!(tree.first_program().unwrap().1, Halt::Signal("37"));
        std::fs::remove_file(&init).unwrap();
        std::fs::write(&init, "").unwrap();
        let (program, halt) = tree.first_program().unwrap();
        assert_eq!(
            (program, halt),
            (vec!["/sbin/init".to_owned()], Halt::Command)
        );
    }
}

//! The first process of a container, as it was when it started.
//!
//! While it lives the container runs, and the runtime need not be asked: a list of all VEs starts no program for each.
//! A number alone says little, since the kernel gives it again; with the time of its start it means one process.
//!
//! # Source
//! proc_pid_stat(5): fields 3 (state) and 22 (starttime).

use std::fs;
use std::io;
use std::path::Path;

/// One process of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstProcess {
    pid: u32,
    /// In ticks since the host's boot.
    start: u64,
}

impl FirstProcess {
    /// The process of a number; `None` if it has ended, also where nobody has asked for its end yet.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name stands in parentheses and may hold any letter.
        let (_, fields) = text.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let is_dead = matches!(fields.next()?, "Z" | "X" | "x");
        let start = fields.nth(18)?.parse().ok()?;
        (!is_dead).then_some(Self { pid, start })
    }

    /// The process that was noted in a file, while it lives.
    pub(super) fn noted(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        let noted = Self {
            pid: pid.parse().ok()?,
            start: start.parse().ok()?,
        };
        Self::of(noted.pid).filter(|process| *process == noted)
    }

    /// Notes it.
    ///
    /// # Errors
    /// Those of writing a file.
    pub(super) fn note(&self, file: &Path) -> io::Result<()> {
        fs::write(file, format!("{} {}\n", self.pid, self.start))
    }

    /// Its number.
    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_until_it_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("first");
        // A name that looks like the end of the field.
        let program = dir.path().join("a) Z 1");
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(program)
            .arg("600")
            .spawn()
            .unwrap();
        let process = FirstProcess::of(child.id()).unwrap();
        process.note(&file).unwrap();
        assert_eq!(FirstProcess::noted(&file), Some(process));
        let earlier = FirstProcess {
            start: process.start - 1,
            ..process
        };
        earlier.note(&file).unwrap();
        assert_eq!(
            FirstProcess::noted(&file),
            None,
            "another one of that number"
        );
        process.note(&file).unwrap();
        child.kill().unwrap();
        let is_zombie = || {
            let text = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            text.rsplit_once(") ").unwrap().1.starts_with('Z')
        };
        while !is_zombie() {
            std::thread::yield_now();
        }
        assert_eq!(FirstProcess::noted(&file), None);
        child.wait().unwrap();
        assert_eq!(FirstProcess::noted(&file), None);
    }
}

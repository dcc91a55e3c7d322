//! VEs of a run's own, mounted by the programs under one prefix; what their processes take.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::interrupt::Interrupt;
use crate::programs::{command, output};
use crate::terminal::progress;

/// A command of simfs takes no longer than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// The number of the first VE.
const FIRST: u32 = 10_001;
/// `vzquota init`: limits that are set and out of reach.
const LIMITS: [&str; 15] = [
    "-b", "100G", "-B", "100G", "-i", "10000000", "-I", "10000000", "-e", "7D", "-n", "7D", "-s",
    "1", "-p",
];

/// The VEs of this run; all are unmounted at the end by [`Host::unmount_all`].
pub(crate) struct Host<'a> {
    prefix: &'a Path,
    bin_dir: &'a Path,
    ves: Vec<Ve>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Ve {
    pub(crate) id: u32,
    pub(crate) private: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) mount_ms: f64,
    pub(crate) daemon: u32,
    pub(crate) keeper: u32,
}

impl<'a> Host<'a> {
    pub(crate) fn new(prefix: &'a Path, bin_dir: &'a Path) -> Self {
        Self {
            prefix,
            bin_dir,
            ves: Vec::new(),
        }
    }

    pub(crate) fn ves(&self) -> &[Ve] {
        &self.ves
    }

    /// Mounts until so many are.
    pub(crate) fn mount_up_to(&mut self, count: u32, interrupt: &Interrupt) -> Result<()> {
        while u32::try_from(self.ves.len())? < count {
            interrupt.check()?;
            let id = FIRST + u32::try_from(self.ves.len())?;
            let ve = self.mount(id).with_context(|| format!("VE {id}"))?;
            self.ves.push(ve);
        }
        Ok(())
    }

    fn mount(&self, id: u32) -> Result<Ve> {
        let name = id.to_string();
        let private = self.prefix.join("vz/private").join(&name);
        let root = self.prefix.join("vz/root").join(&name);
        fs::create_dir_all(&private)?;
        fs::create_dir_all(&root)?;
        let path = private.to_string_lossy();
        let words = [&["init", &name], &LIMITS[..], &[&*path]].concat();
        self.run("vzquota", &words)?;
        let start = Instant::now();
        self.run("simfs", &["mount", &name])?;
        let mount_ms = start.elapsed().as_secs_f64() * 1e3;
        let status = self.run("simfs", &["status", &name, "--json"])?;
        Ok(Ve {
            id,
            private: private.clone(),
            root,
            mount_ms,
            daemon: number(&status, "pid")?,
            keeper: number(&status, "keeper_pid")?,
        })
    }

    /// Unmounts all; what fails is said, and does not keep the others.
    pub(crate) fn unmount_all(&mut self) {
        for ve in std::mem::take(&mut self.ves) {
            if let Err(error) = self.run("simfs", &["umount", &ve.id.to_string()]) {
                progress(&format!("VE {}: {error:#}", ve.id));
            }
        }
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let mut program = command(self.bin_dir.join(program), ["--prefix"]);
        output(program.arg(self.prefix).args(words), PATIENCE)
    }
}

impl Ve {
    /// Memory of the daemon alone.
    pub(crate) fn private_kib(&self) -> Result<u64> {
        memory(self.daemon, "Private_Dirty:")
    }

    /// Threads of the daemon.
    pub(crate) fn threads(&self) -> Result<usize> {
        Ok(tasks(self.daemon)?.len())
    }

    /// How often the threads of both processes have slept so far.
    pub(crate) fn switches(&self) -> Result<u64> {
        let mut sum = 0;
        for task in [tasks(self.daemon)?, tasks(self.keeper)?].concat() {
            // A thread may end meanwhile.
            let text = fs::read_to_string(task.join("status")).unwrap_or_default();
            sum += field(&text, "voluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(sum)
    }
}

/// Proportional set size of a process, in KiB.
pub(crate) fn pss_kib(pid: u32) -> Result<f64> {
    Ok(f64::from(u32::try_from(memory(pid, "Pss:")?)?))
}

fn memory(pid: u32, key: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    field(&text, key).with_context(|| format!("no {key}"))
}

fn tasks(pid: u32) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?)
}

/// The number behind a word at the start of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The first number behind a key of JSON.
pub(crate) fn number(json: &str, key: &str) -> Result<u32> {
    let quoted = format!("\"{key}\":");
    let behind = json
        .split_once(&quoted)
        .with_context(|| format!("status tells no {key}"))?
        .1
        .trim_start();
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found() {
        let json = "[{\"veid\":1,\"pid\": 42,\"keeper_pid\":41}]";
        assert_eq!(number(json, "pid").unwrap(), 42);
        assert_eq!(number(json, "keeper_pid").unwrap(), 41);
        assert!(number(json, "none").is_err());
        assert_eq!(field("a: 1\nPss:   12 kB\n", "Pss:"), Some(12));
    }
}

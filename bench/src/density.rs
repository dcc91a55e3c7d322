//! `density`: many VEs mounted on one host. What each costs when it does light work, and when it does nothing.
//!
//! Memory is the proportional set size (PSS) of daemon and keeper: pages that processes share count once in all.
//! Wake-ups are voluntary context switches of all their threads.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::args::DensityArgs;
use crate::interrupt::Interrupt;
use crate::programs::{command, output};
use crate::report::{self, progress};
use crate::statistics::Spread;

/// A command of simfs takes no longer than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long idle VEs are watched.
const WATCH: Duration = Duration::from_secs(20);
/// Before that: what the work left behind has settled.
const SETTLE: Duration = Duration::from_secs(50);
/// The number of the first VE.
const FIRST: u32 = 10_001;

/// Mounts, works, watches, prints the table, unmounts.
pub(crate) fn density(args: &DensityArgs) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("mounting needs root: run as root");
    }
    let interrupt = Interrupt::catch()?;
    let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new()
        .prefix("simfs-density")
        .tempdir_in(&base)?;
    let mut host = Host::new(dir.path(), &args.bin_dir);
    let table = measure(&mut host, &args.ves, &interrupt);
    host.unmount_all();
    let table = table?;
    if let Some(out) = &args.out {
        fs::create_dir_all(out)?;
        fs::write(out.join("density.md"), &table)?;
    }
    report::say(&table)
}

fn measure(host: &mut Host<'_>, counts: &[u32], interrupt: &Interrupt) -> Result<String> {
    let mut table = String::from(
        "| VEs | state | mount ms, median (highest) | PSS MiB in all | PSS KiB a VE | of keepers KiB | threads a VE | wake-ups/s a VE |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for &count in counts {
        progress(&format!("mounting up to {count} VEs"));
        host.mount_up_to(count, interrupt)?;
        let took = host.work(interrupt)?;
        progress(&format!(
            "light work in all of them: {:.1} s",
            took.as_secs_f64()
        ));
        table.push_str(&host.line("after light work", Duration::from_secs(2))?);
        progress("idle");
        interrupted_sleep(SETTLE, interrupt)?;
        table.push_str(&host.line("idle", WATCH)?);
    }
    Ok(table)
}

fn interrupted_sleep(time: Duration, interrupt: &Interrupt) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        interrupt.check()?;
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The VEs of this run.
struct Host<'a> {
    prefix: &'a Path,
    bin_dir: &'a Path,
    ves: Vec<Ve>,
}

struct Ve {
    id: u32,
    root: PathBuf,
    mount_ms: f64,
    daemon: u32,
    keeper: u32,
}

impl<'a> Host<'a> {
    fn new(prefix: &'a Path, bin_dir: &'a Path) -> Self {
        Self {
            prefix,
            bin_dir,
            ves: Vec::new(),
        }
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let mut program = command(self.bin_dir.join(program), ["--prefix"]);
        output(program.arg(self.prefix).args(words), PATIENCE)
    }

    fn mount_up_to(&mut self, count: u32, interrupt: &Interrupt) -> Result<()> {
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
        let limits = ["-b", "1G", "-B", "1G", "-i", "100000", "-I", "100000"];
        let graces = ["-e", "7D", "-n", "7D", "-s", "1", "-p"];
        let path = private.to_string_lossy();
        let words: Vec<&str> = ["init", &name]
            .into_iter()
            .chain(limits)
            .chain(graces)
            .chain([&*path])
            .collect();
        self.run("vzquota", &words)?;
        let start = Instant::now();
        self.run("simfs", &["mount", &name])?;
        let mount_ms = start.elapsed().as_secs_f64() * 1e3;
        let status = self.run("simfs", &["status", &name, "--json"])?;
        Ok(Ve {
            id,
            root,
            mount_ms,
            daemon: number(&status, "pid")?,
            keeper: number(&status, "keeper_pid")?,
        })
    }

    /// A few files in each VE, one after the other: all must answer.
    fn work(&self, interrupt: &Interrupt) -> Result<Duration> {
        let start = Instant::now();
        for ve in &self.ves {
            interrupt.check()?;
            light_work(&ve.root).with_context(|| format!("VE {} does not answer", ve.id))?;
        }
        Ok(start.elapsed())
    }

    fn line(&self, state: &str, watch: Duration) -> Result<String> {
        let before = self.switches()?;
        thread::sleep(watch);
        let switches = self.switches()?.saturating_sub(before);
        let ves = f64::from(u32::try_from(self.ves.len())?);
        let (mut daemons, mut keepers, mut threads) = (0.0, 0.0, 0.0);
        for ve in &self.ves {
            daemons += pss_kib(ve.daemon)?;
            keepers += pss_kib(ve.keeper)?;
            threads += f64::from(u32::try_from(tasks(ve.daemon)?.len())?);
        }
        let mounts: Vec<f64> = self.ves.iter().map(|ve| ve.mount_ms).collect();
        let mount = Spread::of(&mounts).context("no VE is mounted")?;
        let mut line = String::new();
        writeln!(
            line,
            "| {} | {state} | {:.0} ({:.0}) | {:.0} | {:.0} | {:.0} | {:.1} | {:.2} |",
            self.ves.len(),
            mount.median,
            mount.high,
            (daemons + keepers) / 1024.0,
            (daemons + keepers) / ves,
            keepers / ves,
            threads / ves,
            f64::from(u32::try_from(switches)?) / watch.as_secs_f64() / ves,
        )?;
        Ok(line)
    }

    fn switches(&self) -> Result<u64> {
        let mut sum = 0;
        for pid in self.ves.iter().flat_map(|ve| [ve.daemon, ve.keeper]) {
            for task in tasks(pid)? {
                // A thread may end meanwhile.
                let text = fs::read_to_string(task.join("status")).unwrap_or_default();
                sum += field(&text, "voluntary_ctxt_switches:").unwrap_or(0);
            }
        }
        Ok(sum)
    }

    fn unmount_all(&mut self) {
        for ve in std::mem::take(&mut self.ves) {
            if let Err(error) = self.run("simfs", &["umount", &ve.id.to_string()]) {
                progress(&format!("VE {}: {error:#}", ve.id));
            }
        }
    }
}

fn light_work(root: &Path) -> Result<()> {
    for number in 0..20 {
        let path = root.join(format!("f{number}"));
        fs::write(&path, [7; 5000])?;
        if fs::read(&path)?.len() != 5000 {
            bail!("a file is not what was written");
        }
    }
    for number in 0..10 {
        fs::remove_file(root.join(format!("f{number}")))?;
    }
    Ok(())
}

fn tasks(pid: u32) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?)
}

fn pss_kib(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = field(&text, "Pss:").context("no Pss")?;
    Ok(f64::from(u32::try_from(kib)?))
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

/// The first number behind a key of flat JSON.
fn number(json: &str, key: &str) -> Result<u32> {
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

//! `density`: many VEs mounted on one host. What each costs when it does light work, and when it does nothing.
//!
//! Memory is the proportional set size (PSS) of daemon and keeper: pages that processes share count once in all.
//! Wake-ups are voluntary context switches of all their threads.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::args::DensityArgs;
use crate::host::{Host, pss_kib};
use crate::interrupt::Interrupt;
use crate::statistics::Spread;
use crate::terminal::{progress, say};

/// How long idle VEs are watched.
const WATCH: Duration = Duration::from_secs(20);
/// Before that: what the work left behind has settled.
const SETTLE: Duration = Duration::from_secs(50);

/// Mounts, works, watches, prints the table, unmounts.
pub(crate) fn density(args: &DensityArgs) -> Result<()> {
    let interrupt = Interrupt::catch()?;
    let dir = args.site.scratch("density")?;
    let mut host = Host::new(dir.path(), &args.site.bin_dir);
    let table = measure(&mut host, &args.ves, &interrupt);
    host.unmount_all();
    let table = table?;
    args.site.record(&[("density.md", &table)])?;
    say(&table)
}

fn measure(host: &mut Host<'_>, counts: &[u32], interrupt: &Interrupt) -> Result<String> {
    let mut table = String::from(
        "| VEs | state | mount ms, median (highest) | PSS MiB in all | PSS KiB a VE | of keepers KiB | threads a VE | wake-ups/s a VE |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for &count in counts {
        progress(&format!("mounting up to {count} VEs"));
        host.mount_up_to(count, interrupt)?;
        let took = work(host, interrupt)?;
        progress(&format!(
            "light work in all of them: {:.1} s",
            took.as_secs_f64()
        ));
        table.push_str(&line(host, "after light work", Duration::from_secs(2))?);
        progress("idle");
        interrupted_sleep(SETTLE, interrupt)?;
        table.push_str(&line(host, "idle", WATCH)?);
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

/// A few files in each VE, one VE after the other: all must answer.
fn work(host: &Host<'_>, interrupt: &Interrupt) -> Result<Duration> {
    let start = Instant::now();
    for ve in host.ves() {
        interrupt.check()?;
        light_work(&ve.root).with_context(|| format!("VE {} does not answer", ve.id))?;
    }
    Ok(start.elapsed())
}

fn line(host: &Host<'_>, state: &str, watch: Duration) -> Result<String> {
    let before = switches(host)?;
    thread::sleep(watch);
    let switches = switches(host)?.saturating_sub(before);
    let ves = f64::from(u32::try_from(host.ves().len())?);
    let (mut daemons, mut keepers, mut threads) = (0.0, 0.0, 0.0);
    for ve in host.ves() {
        daemons += pss_kib(ve.daemon)?;
        keepers += pss_kib(ve.keeper)?;
        threads += f64::from(u32::try_from(ve.threads()?)?);
    }
    let mounts: Vec<f64> = host.ves().iter().map(|ve| ve.mount_ms).collect();
    let mount = Spread::of(&mounts).context("no VE is mounted")?;
    let mut line = String::new();
    writeln!(
        line,
        "| {} | {state} | {:.0} ({:.0}) | {:.0} | {:.0} | {:.0} | {:.1} | {:.2} |",
        host.ves().len(),
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

fn switches(host: &Host<'_>) -> Result<u64> {
    host.ves().iter().map(|ve| ve.switches()).sum()
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

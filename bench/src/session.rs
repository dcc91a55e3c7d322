//! `run` and `compare`: finds what is needed, runs the rounds, hands the figures to the report.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::args::RunArgs;
use crate::backing::Backing;
use crate::interrupt::Interrupt;
use crate::measure::Scale;
use crate::peer::{Peer, Tools};
use crate::programs::{self, Program, command, output};
use crate::report::{self, Setup};
use crate::rounds::Plan;
use crate::site::scratch;
use crate::terminal::progress;
use crate::workload::{self, Workload};

/// A build of the programs takes no longer than this.
const BUILD: Duration = Duration::from_secs(1800);
/// Trees that every Debian has; the first is enough for a quick run.
const TREES: [&str; 3] = ["/usr/share/perl", "/usr/lib/python3", "/usr/include/linux"];

/// Runs, prints the table, records only where asked to.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    session(args, args.out.clone())
}

/// Runs, records, prints the table.
pub(crate) fn compare(args: &RunArgs) -> Result<()> {
    let out = match &args.out {
        Some(out) => out.clone(),
        None => report::default_out()?,
    };
    session(args, Some(out))
}

fn session(args: &RunArgs, out: Option<PathBuf>) -> Result<()> {
    let interrupt = Interrupt::catch()?;
    let dir = scratch(args.dir.as_deref(), "bench")?;
    let mut plan = plan(args)?;
    leave_out(&mut plan, args)?;
    let archive = dir.path().join("tree.tar");
    pack(&archive, args.scale())?;
    let backing = Backing::below(dir.path(), args.as_it_is)?;
    let mut setup = Setup::look(&plan, backing.about(), &archive)?;
    let outcome = plan.run(backing.dir(), &archive, &interrupt)?;
    setup.finish();
    if let Some(out) = out {
        report::write(&out, &setup, &plan, &outcome)?;
        progress(&format!("recorded in {}", out.display()));
    }
    report::print(&plan, &outcome)
}

fn plan(args: &RunArgs) -> Result<Plan> {
    let mut peers = Vec::new();
    for name in &args.peers {
        peers.push(
            Peer::named(name)
                .with_context(|| format!("no peer '{name}': see 'simfs-bench list'"))?,
        );
    }
    if peers.is_empty() {
        peers = Peer::ALL.to_vec();
    }
    if args.passthrough_hp.is_none() {
        peers.retain(|peer| *peer != Peer::PassthroughHp);
    }
    peers.retain(|peer| !matches!(peer, Peer::Native | Peer::NativeAgain));
    peers.splice(0..0, [Peer::Native, Peer::NativeAgain]);
    let wanted = |workload: &dyn Workload| {
        args.only.is_empty()
            || args
                .only
                .iter()
                .any(|word| workload.name().contains(word.as_str()))
    };
    let workloads: Vec<_> = workload::all()
        .into_iter()
        .filter(|workload| wanted(&**workload))
        .collect();
    if workloads.is_empty() {
        bail!("no workload is called so: see 'simfs-bench list'");
    }
    Ok(Plan {
        tools: Tools {
            bin_dir: bin_dir(args, &peers)?,
            passthrough_hp: args.passthrough_hp.clone(),
        },
        peers,
        workloads,
        rounds: args.rounds,
        scale: args.scale(),
    })
}

/// Where simfs and vzquota are; builds them unless told.
fn bin_dir(args: &RunArgs, peers: &[Peer]) -> Result<PathBuf> {
    if let Some(dir) = &args.bin_dir {
        return Ok(std::path::absolute(dir)?);
    }
    let here = std::env::current_exe()?;
    let dir = here.parent().context("this program is nowhere")?.to_owned();
    if peers.contains(&Peer::Simfs)
        && let Some(cargo) = std::env::var_os("CARGO")
    {
        progress("building simfs");
        let mut build = command(cargo, ["build", "--release", "-p", "simfs-tools"]);
        output(&mut build, BUILD)?;
    }
    Ok(dir)
}

/// Installs what is missing, or leaves out what needs it.
fn leave_out(plan: &mut Plan, args: &RunArgs) -> Result<()> {
    let of_peers = plan.peers.iter().filter_map(|peer| peer.program());
    let of_workloads = plan
        .workloads
        .iter()
        .flat_map(|workload| workload.programs().iter().copied());
    let missing: Vec<Program> = of_peers
        .chain(of_workloads)
        .filter(|program| !program.is_installed())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !args.no_install {
        progress(&format!(
            "installing {:?}",
            missing
                .iter()
                .map(|program| program.package)
                .collect::<Vec<_>>()
        ));
        programs::install(&missing)?;
    }
    let is_absent = |program: &Program| !program.is_installed();
    plan.peers
        .retain(|peer| !peer.program().as_ref().is_some_and(is_absent));
    plan.workloads
        .retain(|workload| !workload.programs().iter().any(is_absent));
    Ok(())
}

/// Packs a real tree.
fn pack(archive: &Path, scale: Scale) -> Result<()> {
    let mut trees = TREES
        .iter()
        .map(|tree| Path::new(*tree))
        .filter(|tree| tree.is_dir());
    let mut tar = command("tar", ["-C", "/", "-cf"]);
    tar.arg(archive);
    let first = trees
        .next()
        .context("this machine has none of the trees to unpack")?;
    let others = trees.filter(|_| scale == Scale::Full);
    for tree in std::iter::once(first).chain(others) {
        tar.arg(tree.strip_prefix("/")?);
    }
    output(&mut tar, Duration::from_secs(60)).map(drop)
}

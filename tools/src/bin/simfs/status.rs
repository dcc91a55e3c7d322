//! `simfs status`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use quota::{Account, Bytes, Inodes, Limit, Resource, Scope, Subject, Timestamp, VeId};
use serde::Serialize;
use simfs::control::{
    ClientError, Progress, Reply, Request, Upgrade, UpgradeOutcome, VeState, VeStatus,
};
use simfs_tools::ending;
use simfs_tools::exit::SimfsExit;
use simfs_tools::paths::Paths;
use simfs_tools::report::{AccountJson, counted, json, print};
use simfs_tools::value::parse_ve;
use simfs_tools::ve_handle::{VeError, open_stored};

use crate::args::StatusArgs;
use crate::{Outcome, failed, must_be_known, usage};

/// The state of a VE whose daemon ended without unmounting.
const DEAD: &str = "dead";

/// What is known of one VE.
#[derive(Debug, Serialize)]
struct Line {
    veid: u32,
    /// `mounted`, `recovering`, `checking`, `stopping`; `unmounted`; `dead`: its daemon ended without unmounting;
    /// `unknown`: its daemon or its store cannot be asked.
    state: &'static str,
    mountpoint: Option<PathBuf>,
    private: Option<PathBuf>,
    pid: Option<u32>,
    keeper_pid: Option<u32>,
    since: Option<Timestamp>,
    threads: Option<u64>,
    memory: Option<Bytes>,
    quota: bool,
    /// Whether the limits of the VE as a whole are enforced (`vzquota on`, `off`).
    enforced: bool,
    #[serde(flatten)]
    account: AccountJson,
    progress: Option<Progress>,
    nodes: u64,
    handles: u64,
    degraded: Vec<String>,
    program: Option<PathBuf>,
    /// Daemons that ended without being asked, each followed by another.
    restarts: u64,
    last_death: Option<String>,
    upgrade: Option<Upgrade>,
    #[serde(skip)]
    figures: Account,
}

pub(crate) fn run(paths: &Paths, args: &StatusArgs) -> Outcome {
    let ves = match &args.veid {
        Some(veid) => {
            let ve = parse_ve(veid).map_err(usage)?;
            must_be_known(paths, ve).map_err(|failure| failure.about(format_args!("VE {ve}")))?;
            BTreeSet::from([ve])
        }
        None => known(paths),
    };
    let lines: Vec<Line> = ves.into_iter().map(|ve| line(paths, ve)).collect();
    let text = if args.json {
        json(&lines).map_err(failed)?
    } else {
        table(&lines)
    };
    print(&text).map_err(failed)?;
    Ok(SimfsExit::Ok)
}

/// Every VE with a store or a run directory.
pub(crate) fn known(paths: &Paths) -> BTreeSet<VeId> {
    [paths.states(), paths.runs()]
        .iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .filter_map(|entry| parse_ve(entry.ok()?.file_name().to_str()?).ok())
        .collect()
}

fn line(paths: &Paths, ve: VeId) -> Line {
    let answer = ending::ask(&paths.run_dir(ve), |mut client| {
        let status = ending::status_of(&mut client)?;
        Ok((status, client.request(&Request::Info)?))
    });
    match answer {
        Ok((status, Reply::Info(info))) => {
            let enforced = status.quota && info.is_enforced(Scope::Ve);
            running(status, enforced)
        }
        Err(ClientError::NotRunning) => stored(paths, ve),
        Ok(_) => unknown(
            paths,
            ve,
            "the daemon's answer is that of another version".into(),
        ),
        Err(error) => unknown(paths, ve, error.to_string()),
    }
}

fn running(status: VeStatus, enforced: bool) -> Line {
    let (threads, memory) = process_figures(status.pid);
    Line {
        veid: status.ve.get(),
        state: match status.state {
            VeState::Mounted => "mounted",
            VeState::Recovering => "recovering",
            VeState::Checking => "checking",
            VeState::Stopping => "stopping",
        },
        mountpoint: Some(status.mountpoint),
        private: Some(status.private),
        pid: Some(status.pid),
        keeper_pid: status.keeper_pid,
        since: Some(status.since),
        threads,
        memory,
        quota: status.quota,
        enforced,
        account: (&status.account).into(),
        progress: status.progress,
        nodes: status.nodes,
        handles: status.handles,
        degraded: status.degraded,
        program: status.program,
        restarts: status.restarts,
        last_death: status.last_death,
        upgrade: status.upgrade,
        figures: status.account,
    }
}

/// A VE whose daemon does not run.
fn stored(paths: &Paths, ve: VeId) -> Line {
    let socket = paths.run_dir(ve).join(simfs::control::SOCKET_NAME);
    let state = if socket.symlink_metadata().is_ok() {
        DEAD
    } else {
        "unmounted"
    };
    match open_stored(paths, ve) {
        Ok(engine) => {
            let figures = engine
                .account(Subject::Ve)
                .unwrap_or_else(|_| Account::unused(Subject::Ve));
            let info = engine.info();
            Line {
                enforced: info.is_enforced(Scope::Ve),
                private: Some(info.private),
                quota: true,
                ..idle(paths, ve, state, figures)
            }
        }
        Err(VeError::NoRecord { .. }) => idle(paths, ve, state, Account::unused(Subject::Ve)),
        Err(error) => unknown(paths, ve, error.to_string()),
    }
}

fn unknown(paths: &Paths, ve: VeId, why: String) -> Line {
    Line {
        degraded: vec![why],
        ..idle(paths, ve, "unknown", Account::unused(Subject::Ve))
    }
}

fn idle(paths: &Paths, ve: VeId, state: &'static str, figures: Account) -> Line {
    Line {
        veid: ve.get(),
        state,
        mountpoint: paths.root(ve).ok(),
        private: paths.private(ve).ok(),
        pid: None,
        keeper_pid: None,
        since: None,
        threads: None,
        memory: None,
        quota: false,
        enforced: false,
        account: (&figures).into(),
        progress: None,
        nodes: 0,
        handles: 0,
        degraded: Vec::new(),
        program: None,
        restarts: 0,
        last_death: None,
        upgrade: None,
        figures,
    }
}

/// Threads and resident memory of a process (proc_pid_status(5)).
fn process_figures(pid: u32) -> (Option<u64>, Option<Bytes>) {
    let Ok(text) = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))
    else {
        return (None, None);
    };
    let number = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key))?;
        value.split_whitespace().next()?.parse::<u64>().ok()
    };
    (
        number("Threads:"),
        number("VmRSS:").map(|kib| Bytes::new(kib.saturating_mul(1024))),
    )
}

fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:>10} {:<10} {:>8} {:>12} {:>12} {:>12} {:>10} {:>10} {:>10} {}\n",
        "VEID",
        "STATE",
        "PID",
        "1K-BLOCKS",
        "SOFT",
        "HARD",
        "INODES",
        "ISOFT",
        "IHARD",
        "MOUNTPOINT"
    );
    for line in lines {
        let figures = &line.figures;
        let limit = |value: Option<u64>| match value {
            Some(value) => value.to_string(),
            None if line.quota => "unlimited".into(),
            None => "-".into(),
        };
        let space: Limit<u64> = figures.limits.get(Resource::Space);
        let inodes: Limit<u64> = figures.limits.get(Resource::Inodes);
        let kib = |bytes: u64| bytes.div_ceil(1024);
        text += &format!(
            "{:>10} {:<10} {:>8} {:>12} {:>12} {:>12} {:>10} {:>10} {:>10} {}\n",
            line.veid,
            line.state,
            line.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
            kib(figures.usage.space.get()),
            limit(space.soft.map(kib)),
            limit(space.hard.map(kib)),
            figures.usage.inodes,
            limit(inodes.soft),
            limit(inodes.hard),
            line.mountpoint
                .as_deref()
                .unwrap_or(Path::new("-"))
                .display(),
        );
        if let Some(progress) = line.progress {
            text += &progress_note(line.state, progress);
        }
        for note in notes(line).iter().chain(&line.degraded) {
            text += &format!("{:>10} {note}\n", "");
        }
    }
    text
}

/// What the table has no column for: switches, and what became of earlier daemons.
fn notes(line: &Line) -> Vec<String> {
    let mut notes = Vec::new();
    if line.state == DEAD {
        notes.push(format!(
            "its daemon ended without unmounting: 'simfs umount {}' takes away what is left, then it can be mounted",
            line.veid
        ));
    }
    if line.quota && !line.enforced {
        notes.push(format!(
            "the limits are not enforced: 'vzquota on {}'",
            line.veid
        ));
    }
    if line.restarts > 0 {
        let cause = line.last_death.as_deref().unwrap_or("unknown");
        notes.push(format!(
            "the daemon was restarted {}, last after {cause}",
            counted(line.restarts, "time")
        ));
    }
    match line.upgrade.as_ref().map(|upgrade| &upgrade.outcome) {
        Some(UpgradeOutcome::Reverted(reason)) => {
            notes.push(format!("the last upgrade was taken back: {reason}"));
        }
        Some(UpgradeOutcome::Starting) => notes.push("an upgrade is under way".into()),
        Some(UpgradeOutcome::Running) | None => {}
    }
    notes
}

fn progress_note(state: &str, progress: Progress) -> String {
    let total: Inodes = progress.total_estimate;
    format!(
        "{:>10} {state}: {} of about {total} inodes\n",
        "", progress.done
    )
}

//! What the figures depend on. No paths of the machine, so that a recorded run can be published.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::measure::Scale;
use crate::peer::Peer;
use crate::programs::{command, output};
use crate::rounds::{Plan, load};

/// The circumstances of a run.
#[derive(Debug)]
pub(crate) struct Setup {
    lines: Vec<(&'static str, String)>,
    peers: Vec<(Peer, String)>,
}

impl Setup {
    /// Looks around before the run.
    pub(crate) fn look(plan: &Plan, backing: &str, archive: &Path) -> Result<Self> {
        let rounds = format!("{} rounds, {:?} sizes", plan.rounds, plan.scale);
        let tree = format!("{} MiB packed", fs::metadata(archive)?.len() >> 20);
        let mut lines = vec![
            ("date (UTC)", said("date", &["-u", "+%F %R"])),
            ("kernel", said("uname", &["-sr"])),
            ("processors", processors()),
            ("memory", memory()),
            ("backing file system", backing.to_owned()),
            ("simfs", said("git", &["describe", "--always", "--dirty"])),
            ("run", rounds),
            ("tree", tree),
            ("load at start", format!("{:.2}", load())),
        ];
        if plan.scale == Scale::Quick {
            lines.push((
                "note",
                "quick sizes are too small for figures to be quoted".to_owned(),
            ));
        }
        let peers = plan
            .peers
            .iter()
            .map(|peer| (*peer, version(*peer)))
            .collect();
        Ok(Self { lines, peers })
    }

    /// Looks again after it.
    pub(crate) fn finish(&mut self) {
        self.lines.push(("load at end", format!("{:.2}", load())));
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = "# Set-up\n\n| what | how |\n|---|---|\n".to_owned();
        for (what, how) in &self.lines {
            let _ = writeln!(text, "| {what} | {how} |");
        }
        text.push_str("\n## Peers, and what is unfair\n\n");
        for (peer, version) in &self.peers {
            let _ = writeln!(text, "- **{}** {version}: {}.", peer.name(), peer.about());
        }
        text.push_str(
            "\nAll peers show directories of one file system and run as root. Each round mounts them afresh; each workload \
             runs on all of them in turn, in an order that rotates; the disk is synced before each. Reads are warm.\n",
        );
        text
    }
}

fn said(program: &str, args: &[&str]) -> String {
    output(&mut command(program, args), Duration::from_secs(10))
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn version(peer: Peer) -> String {
    peer.program()
        .map(|program| said("dpkg-query", &["-W", "-f", "${Version}", program.package]))
        .unwrap_or_default()
}

fn processors() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = text
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    format!(
        "{} x {}",
        models.clone().count(),
        models.clone().next().unwrap_or("unknown")
    )
}

fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.unwrap_or("unknown").trim().to_owned()
}

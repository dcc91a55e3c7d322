//! The table: ratios to the native file system of the same round, median and ends, and what may be concluded.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::targets;
use crate::peer::Peer;
use crate::rounds::{Outcome, Plan};
use crate::statistics::{ENOUGH_ROUNDS, Spread, Verdict, compare, is_quiet};

/// Speeds of one phase by peer and round.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) phase: String,
    unit: &'static str,
    speeds: BTreeMap<(&'static str, u32), f64>,
}

/// The phases, in the order in which they were measured.
pub(super) fn rows(outcome: &Outcome) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for record in &outcome.records {
        let key = (record.peer.name(), record.round);
        let known = rows.iter_mut().find(|row| row.phase == record.sample.phase);
        if let Some(row) = known {
            row.speeds.insert(key, record.sample.speed());
        } else {
            rows.push(Row {
                phase: record.sample.phase.clone(),
                unit: record.sample.unit.name(),
                speeds: BTreeMap::from([(key, record.sample.speed())]),
            });
        }
    }
    rows
}

impl Row {
    /// One peer's speed as a part of another's, round by round.
    pub(super) fn ratios(&self, peer: Peer, to: Peer) -> Vec<f64> {
        let rounds = self
            .speeds
            .iter()
            .filter(|((name, _), _)| *name == peer.name());
        rounds
            .filter_map(|((_, round), speed)| Some(speed / self.speeds.get(&(to.name(), *round))?))
            .collect()
    }

    /// The fastest of the peers a user could choose instead.
    fn rival(&self) -> Option<Peer> {
        let median =
            |peer| Spread::of(&self.ratios(peer, Peer::Native)).map_or(0.0, |spread| spread.median);
        Peer::RIVALS
            .into_iter()
            .filter(|peer| median(*peer) > 0.0)
            .max_by(|one, other| median(*one).total_cmp(&median(*other)))
    }

    fn is_quiet(&self) -> bool {
        is_quiet(&self.ratios(Peer::NativeAgain, Peer::Native))
    }

    fn native(&self) -> String {
        let speeds: Vec<f64> = self
            .speeds
            .iter()
            .filter(|((name, _), _)| *name == Peer::Native.name())
            .map(|(_, speed)| *speed)
            .collect();
        Spread::of(&speeds).map_or_else(String::new, |spread| {
            let digits = if spread.median < 10.0 { 2 } else { 0 };
            format!("{:.*} {}/s", digits, spread.median, self.unit)
        })
    }

    /// What may be said about simfs in this row.
    fn conclusion(&self) -> String {
        let Some(rival) = self.rival() else {
            return String::new();
        };
        if self.ratios(Peer::Simfs, rival).len() < ENOUGH_ROUNDS {
            return "too few rounds".to_owned();
        }
        if !self.is_quiet() {
            return "too noisy".to_owned();
        }
        let word = match compare(&self.ratios(Peer::Simfs, rival)) {
            Verdict::Ahead => "ahead of",
            Verdict::Level => "level with",
            Verdict::Behind => "**behind**",
            Verdict::Unclear => return "unclear".to_owned(),
        };
        format!("{word} {}", rival.name())
    }
}

impl Row {
    /// simfs as a part of a server that does nothing.
    fn of_the_floor(&self) -> String {
        Spread::of(&self.ratios(Peer::Simfs, Peer::Floor))
            .map_or_else(String::new, |spread| format!("{:.2}", spread.median))
    }

    /// What was aimed at, where enough was measured to say so.
    fn target(&self) -> String {
        let ratios = self.ratios(Peer::Simfs, Peer::Native);
        let Some((target, spread)) = targets::of(&self.phase).zip(Spread::of(&ratios)) else {
            return String::new();
        };
        if ratios.len() < ENOUGH_ROUNDS || !self.is_quiet() {
            return "not judged".to_owned();
        }
        target.verdict(spread.median)
    }
}

/// One cell: `~` marks figures that scatter.
fn cell(ratios: &[f64]) -> String {
    Spread::of(ratios).map_or_else(
        || "-".to_owned(),
        |spread| {
            let mark = if spread.is_noisy() { "~" } else { "" };
            format!(
                "{mark}{:.2} ({:.2}-{:.2})",
                spread.median, spread.low, spread.high
            )
        },
    )
}

/// The whole summary.
pub(super) fn markdown(plan: &Plan, outcome: &Outcome) -> String {
    let rows = rows(outcome);
    let peers: Vec<Peer> = plan
        .peers
        .iter()
        .copied()
        .filter(|peer| *peer != Peer::Native)
        .collect();
    let mut text =
        "# Speed, as a part of the native file system's in the same round\n\n".to_owned();
    let _ = writeln!(text, "{}\n", headline(plan, &rows));
    text.push_str("Median (lowest-highest) of all rounds; 1.00 is native speed, `~` marks figures that scatter. ");
    text.push_str("'native-again' is the native file system measured twice: the noise.\n\n| workload | native |");
    for peer in &peers {
        let _ = write!(text, " {} |", peer.name());
    }
    text.push_str(
        " simfs and the fastest other | simfs, of the floor | target now / stretch |\n|---|---|---|---|---|",
    );
    text.push_str(&"---|".repeat(peers.len()));
    text.push('\n');
    for row in &rows {
        let _ = write!(text, "| {} | {} |", row.phase, row.native());
        for peer in &peers {
            let _ = write!(text, " {} |", cell(&row.ratios(*peer, Peer::Native)));
        }
        let _ = writeln!(
            text,
            " {} | {} | {} |",
            row.conclusion(),
            row.of_the_floor(),
            row.target()
        );
    }
    if !outcome.failures.is_empty() {
        text.push_str("\n## What failed\n\n");
        for ((peer, what), message) in &outcome.failures {
            let _ = writeln!(text, "- {peer}, {what}: {}", nameless(message));
        }
    }
    text
}

/// A message without the words that are paths of this machine.
fn nameless(message: &str) -> String {
    let words = message
        .split(' ')
        .map(|word| if word.contains('/') { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

fn headline(plan: &Plan, rows: &[Row]) -> String {
    if usize::try_from(plan.rounds).unwrap_or(0) < ENOUGH_ROUNDS {
        return format!(
            "**{} rounds prove nothing** ({ENOUGH_ROUNDS} are needed): read the figures as orders of magnitude.",
            plan.rounds
        );
    }
    let noisy = rows.iter().filter(|row| !row.is_quiet()).count();
    if noisy * 3 > rows.len() {
        return format!(
            "**This run is too noisy to conclude from**: in {noisy} of {} rows the native file system differs from \
             itself. Run it again on an idle machine.",
            rows.len()
        );
    }
    format!(
        "In {} of {} rows the native file system agrees with itself; the others conclude nothing.",
        rows.len() - noisy,
        rows.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(figures: &[(Peer, [f64; 5])]) -> Row {
        let mut row = Row::default();
        for (peer, speeds) in figures {
            for (round, speed) in (1..).zip(speeds) {
                row.speeds.insert((peer.name(), round), *speed);
            }
        }
        row
    }

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        let row = row(&[
            (Peer::Native, [100.0, 50.0, 100.0, 50.0, 100.0]),
            (Peer::Simfs, [50.0, 25.0, 50.0, 25.0, 50.0]),
        ]);
        assert_eq!(row.ratios(Peer::Simfs, Peer::Native), [0.5; 5]);
    }

    #[test]
    fn a_noisy_control_forbids_a_conclusion() {
        let quiet = [
            (Peer::Native, [100.0; 5]),
            (Peer::NativeAgain, [101.0; 5]),
            (Peer::Simfs, [50.0; 5]),
            (Peer::Bindfs, [70.0; 5]),
            (Peer::Mergerfs, [60.0; 5]),
        ];
        assert_eq!(row(&quiet).conclusion(), "**behind** bindfs");
        let mut noisy = quiet;
        noisy[1].1 = [50.0, 200.0, 80.0, 160.0, 100.0];
        assert_eq!(row(&noisy).conclusion(), "too noisy");
    }

    #[test]
    fn no_path_is_published() {
        assert_eq!(nameless("open /home/x: gone"), "open … gone");
    }
}

//! Plots: a dot for each round, a bar at the median, on a logarithmic scale of ratios. SVG, without a library.

use std::fmt::Write as _;

use crate::peer::Peer;
use crate::rounds::{Outcome, Plan};
use crate::statistics::Spread;

use super::summary::{Row, rows};

/// Phases of one drawing.
const PANELS: usize = 12;
const LINE: f64 = 14.0;
const LEFT: f64 = 230.0;
const WIDTH: f64 = 480.0;
/// The ends of the scale.
const LOWEST: f64 = 0.01;
const HIGHEST: f64 = 4.0;

/// Names and contents.
pub(super) fn all(plan: &Plan, outcome: &Outcome) -> Vec<(String, String)> {
    let peers: Vec<Peer> = plan
        .peers
        .iter()
        .copied()
        .filter(|peer| *peer != Peer::Native)
        .collect();
    let rows = rows(outcome);
    let parts = rows.chunks(PANELS).enumerate();
    parts
        .map(|(number, part)| (format!("ratios-{}.svg", number + 1), drawing(part, &peers)))
        .collect()
}

fn colour(peer: Peer) -> &'static str {
    match peer {
        Peer::Native | Peer::NativeAgain => "#999999",
        Peer::Simfs => "#d62728",
        Peer::Floor => "#555555",
        Peer::Bindfs => "#1f77b4",
        Peer::FuseOverlayfs => "#2ca02c",
        Peer::Mergerfs => "#9467bd",
        Peer::PassthroughHp => "#ff7f0e",
    }
}

/// Where a ratio stands.
fn across(ratio: f64) -> f64 {
    let part = (ratio.clamp(LOWEST, HIGHEST) / LOWEST).ln() / (HIGHEST / LOWEST).ln();
    LEFT + part * WIDTH
}

fn drawing(rows: &[Row], peers: &[Peer]) -> String {
    let mut body = String::new();
    let mut y = 30.0;
    for row in rows {
        y += LINE;
        let _ = writeln!(
            body,
            "<text x=\"6\" y=\"{y}\" font-weight=\"bold\">{}</text>",
            row.phase
        );
        for peer in peers {
            let ratios = row.ratios(*peer, Peer::Native);
            if let Some(spread) = Spread::of(&ratios) {
                body.push_str(&line(*peer, &ratios, spread, y));
                y += LINE;
            }
        }
    }
    let height = y + 20.0;
    let mut scale = String::new();
    for tick in [0.01, 0.03, 0.1, 0.3, 1.0, 3.0] {
        let (x, strong) = (
            across(tick),
            if (tick - 1.0_f64).abs() < 1e-9 {
                "#444"
            } else {
                "#ddd"
            },
        );
        let _ = writeln!(
            scale,
            "<line x1=\"{x:.1}\" y1=\"24\" x2=\"{x:.1}\" y2=\"{y}\" stroke=\"{strong}\"/>"
        );
        let _ = writeln!(
            scale,
            "<text x=\"{x:.1}\" y=\"18\" text-anchor=\"middle\">{tick}</text>"
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{scale}{body}</svg>\n",
        LEFT + WIDTH + 60.0
    )
}

fn line(peer: Peer, ratios: &[f64], spread: Spread, y: f64) -> String {
    let mut text = String::new();
    let (name, colour, middle) = (peer.name(), colour(peer), y - 4.0);
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\" fill=\"{colour}\">{name} {:.2}</text>",
        LEFT - 8.0,
        spread.median
    );
    for ratio in ratios {
        let _ = writeln!(
            text,
            "<circle cx=\"{:.1}\" cy=\"{middle}\" r=\"2.5\" fill=\"{colour}\" fill-opacity=\"0.5\"/>",
            across(*ratio)
        );
    }
    let x = across(spread.median);
    let _ = writeln!(
        text,
        "<line x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{}\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        middle - 5.0,
        middle + 5.0
    );
    text
}

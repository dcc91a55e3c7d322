//! A progress bar on standard error, when that is a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between two drawings.
const REDRAW: Duration = Duration::from_millis(100);
/// Letters of the bar.
const WIDTH: u64 = 30;

/// Shows how far a walk is; wipes itself away when dropped.
pub struct Bar {
    title: String,
    unit: &'static str,
    shown: Option<Instant>,
    drawn: bool,
    terminal: bool,
}

impl Bar {
    /// A bar with this title; nothing is drawn when standard error is no terminal.
    pub fn new(title: impl Into<String>) -> Self {
        Self::counting(title, "inodes")
    }

    /// The same for what is counted in another unit.
    pub fn counting(title: impl Into<String>, unit: &'static str) -> Self {
        let terminal = io::stderr().is_terminal();
        Self {
            title: title.into(),
            unit,
            shown: None,
            drawn: false,
            terminal,
        }
    }

    /// `done` of about `total`; a total of zero is unknown.
    pub fn show(&mut self, done: u64, total: u64) {
        let now = Instant::now();
        let fresh = self
            .shown
            .is_some_and(|shown| now.duration_since(shown) < REDRAW);
        if !self.terminal || fresh {
            return;
        }
        self.shown = Some(now);
        self.drawn = true;
        let line = format!("\r{}: {}\x1b[K", self.title, bar(done, total, self.unit));
        let _nobody_looks = io::stderr().lock().write_all(line.as_bytes());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.drawn {
            let _nobody_looks = io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }
}

fn bar(done: u64, total: u64, unit: &str) -> String {
    let Some(percent) = done.saturating_mul(100).checked_div(total) else {
        return format!("{done} {unit}");
    };
    // The total is an estimate: a walk that finds more is not done before it says so.
    let percent = percent.min(99);
    let filled = percent * WIDTH / 100;
    let letters: String = (0..WIDTH)
        .map(|at| if at < filled { '#' } else { '.' })
        .collect();
    format!("[{letters}] {percent:>2}% {done} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_that_was_too_low_is_not_passed() {
        assert!(bar(50, 100, "inodes").contains("50%"));
        assert!(bar(500, 100, "inodes").contains("99%"));
        assert_eq!(bar(7, 0, "inodes"), "7 inodes");
    }
}

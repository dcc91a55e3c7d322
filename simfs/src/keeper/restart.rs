//! When a dead daemon gets a successor, and when the mount is given up.                                       (pure)
//!
//! Deaths with progress in between (a request was finished) never end the mount: whoever works goes on. Deaths without any
//! wait longer and longer, so that a daemon that cannot start does not burn the host, and end it at last, so that guests get
//! an error instead of waiting for ever.

use std::time::{Duration, Instant};

/// Pauses before the successor, by how many deaths in a row came without progress.
const PAUSES_MS: [u64; 10] = [0, 0, 10, 100, 1000, 2000, 4000, 8000, 8000, 8000];
/// How long deaths without progress may follow each other.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is to be done about a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Start a successor after this pause.
    Restart(Duration),
    /// End the mount.
    GiveUp,
}

/// The deaths so far.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    /// How many in a row without progress, and when the row began.
    row: u32,
    since: Option<Instant>,
    /// Requests finished up to the last one.
    finished: u64,
}

impl Deaths {
    /// A daemon died; `finished` is how many requests were finished since the mount was made.
    pub(super) fn add(&mut self, now: Instant, finished: u64) -> Verdict {
        if self.since.is_none() || finished != self.finished {
            (self.row, self.since, self.finished) = (0, Some(now), finished);
        }
        let pause = usize::try_from(self.row)
            .ok()
            .and_then(|row| PAUSES_MS.get(row));
        self.row = self.row.saturating_add(1);
        let lasted = self.since.map_or(Duration::ZERO, |since| now - since);
        match pause {
            Some(pause) if lasted < PATIENCE => Verdict::Restart(Duration::from_millis(*pause)),
            _ => Verdict::GiveUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn deaths_without_progress_wait_longer_and_then_end_it() {
        let (mut deaths, start) = (Deaths::default(), Instant::now());
        for pause in PAUSES_MS {
            let verdict = deaths.add(at(start, 1), 7);
            assert_eq!(verdict, Verdict::Restart(Duration::from_millis(pause)));
        }
        assert_eq!(deaths.add(at(start, 2), 7), Verdict::GiveUp);
    }

    #[test]
    fn few_deaths_over_a_long_time_end_it_too() {
        let (mut deaths, start) = (Deaths::default(), Instant::now());
        assert_ne!(deaths.add(start, 0), Verdict::GiveUp);
        assert_ne!(deaths.add(at(start, 29_000), 0), Verdict::GiveUp);
        assert_eq!(deaths.add(at(start, 30_000), 0), Verdict::GiveUp);
    }

    #[test]
    fn whoever_finishes_a_request_goes_on_for_ever() {
        let (mut deaths, start) = (Deaths::default(), Instant::now());
        for round in 0..1000 {
            let verdict = deaths.add(at(start, round * 100_000), round);
            assert_eq!(verdict, Verdict::Restart(Duration::ZERO));
        }
    }
}

//! The trial of a new program: what it must do to stay, and what takes over again where it does not.
//!
//! ```text
//! named -> begin -> ready in time -> serves for the probation -> proven: the old program is let go
//!             \          \                   \
//!              +----------+-------------------+-- ends, or is late: the old program is taken back
//! ```
//! A daemon that starts in the place of a dead one may take its time, since there is nothing better. A new program that is
//! late keeps guests waiting while a good one is at hand.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long a new program may take until it serves. An ordinary start takes a hundredth of that.
const START: Duration = Duration::from_secs(10);
/// How long it must serve before the old one is let go.
const PROBATION: Duration = Duration::from_secs(3);

/// The program on trial, if there is one.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// What the next daemon runs, once this one hands over.
    candidate: Option<OwnedFd>,
    /// While a new program is on trial: what ran before it.
    previous: Option<OwnedFd>,
    attempts: u32,
}

/// Since when the daemon of the moment runs, and since when it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) started: Instant,
    pub(super) ready: Option<Instant>,
}

/// What has become of a new program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It serves, and stays.
    Proven,
    /// It does not serve: it is to be ended.
    Late,
}

impl Trial {
    /// The administrator has named a program.
    pub(super) fn name(&mut self, candidate: OwnedFd) {
        self.candidate = Some(candidate);
    }

    /// Whether a program has been named and not been started yet.
    pub(super) fn is_ahead(&self) -> bool {
        self.candidate.is_some()
    }

    /// The daemon hands over: puts the named program into the place of the present one.
    pub(super) fn begin(&mut self, program: &mut Option<OwnedFd>) {
        if let Some(candidate) = self.candidate.take() {
            self.previous = program.replace(candidate);
            self.attempts = self.attempts.saturating_add(1);
        }
    }

    /// The new program does not serve: puts the old one back. False where there is none on trial.
    pub(super) fn take_back(&mut self, program: &mut Option<OwnedFd>) -> bool {
        let Some(previous) = self.previous.take() else {
            return false;
        };
        *program = Some(previous);
        true
    }

    /// The new program stays. False where there is none on trial.
    pub(super) fn end(&mut self) -> bool {
        self.previous.take().is_some()
    }

    /// How many programs were tried.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// When there is something to be judged; `None` without a trial.
    pub(super) fn due(&self, progress: Progress) -> Option<Instant> {
        self.previous.as_ref()?;
        Some(deadline(progress))
    }

    /// Judges the program on trial; `None` as long as it is too early.
    pub(super) fn judge(&self, now: Instant, progress: Progress) -> Option<Judgement> {
        self.due(progress).filter(|due| *due <= now)?;
        Some(match progress.ready {
            Some(_) => Judgement::Proven,
            None => Judgement::Late,
        })
    }
}

fn deadline(progress: Progress) -> Instant {
    match progress.ready {
        Some(since) => since + PROBATION,
        None => progress.started + START,
    }
}

/// Why a program that was late is taken back.
pub(super) fn lateness() -> String {
    format!("it was not ready to serve within {} s", START.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> OwnedFd {
        tempfile::tempfile().unwrap().into()
    }

    fn on_trial() -> (Trial, Option<OwnedFd>) {
        let (mut trial, mut program) = (Trial::default(), Some(file()));
        trial.name(file());
        trial.begin(&mut program);
        (trial, program)
    }

    #[test]
    fn nothing_is_judged_without_a_trial() {
        let started = Instant::now();
        let progress = Progress {
            started,
            ready: None,
        };
        let (mut trial, mut program) = (Trial::default(), Some(file()));
        assert_eq!(trial.due(progress), None);
        assert_eq!(trial.judge(started + START * 9, progress), None);
        trial.begin(&mut program);
        assert!(!trial.is_ahead() && program.is_some(), "none was named");
        assert!(!trial.take_back(&mut program) && !trial.end());
        assert_eq!(trial.attempts(), 0);
    }

    #[test]
    fn a_new_program_must_be_ready_in_time_and_then_serve_for_a_while() {
        let (trial, _program) = on_trial();
        let started = Instant::now();
        let late = Progress {
            started,
            ready: None,
        };
        let moment = Duration::from_millis(1);
        assert_eq!(trial.judge(started + START - moment, late), None);
        let judged = trial.judge(started + START, late);
        assert_eq!(judged, Some(Judgement::Late));
        let since = started + START - moment;
        let ready = Progress {
            ready: Some(since),
            ..late
        };
        assert_eq!(trial.due(ready), Some(since + PROBATION));
        assert_eq!(trial.judge(started + START, ready), None, "it serves");
        let judged = trial.judge(since + PROBATION, ready);
        assert_eq!(judged, Some(Judgement::Proven));
    }

    #[test]
    fn the_old_program_is_at_hand_until_the_end_of_the_trial() {
        use std::os::fd::AsRawFd;
        let number = |program: &Option<OwnedFd>| program.as_ref().unwrap().as_raw_fd();
        let (mut trial, mut program) = (Trial::default(), Some(file()));
        let old = number(&program);
        trial.name(file());
        assert!(trial.is_ahead());
        trial.begin(&mut program);
        assert!(!trial.is_ahead() && number(&program) != old);
        assert!(trial.take_back(&mut program));
        assert_eq!(number(&program), old);
        trial.name(file());
        trial.begin(&mut program);
        assert!(trial.end());
        assert!(!trial.take_back(&mut program), "it was let go");
        assert_eq!(trial.attempts(), 2);
    }
}

//! Whether the daemon still answers.                                                                          (pure)
//!
//! | state | waits for | so that |
//! |---|---|---|
//! | idle | a request, for one limit | an idle VE causes a wake-up per limit, no more |
//! | active | the next look | one request costs a few looks, a busy daemon one now and then |
//!
//! A request is seen at the device only until a worker reads it, and the worker is often faster: the one that hangs may be the
//! last one for long. So who waits for a request looks once per limit all the same.
//!
//! A daemon hangs when requests wait and none was finished for the whole limit.

use std::time::{Duration, Instant};

/// Looks per limit.
const LOOKS: u32 = 12;
const SHORTEST: Duration = Duration::from_millis(50);
/// A daemon that is not ready yet has its own work to do: it may take this many limits.
const LIMITS_TO_START: u32 = 5;

/// Requests so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// That workers are at now.
    pub in_work: usize,
    /// That were finished since the mount.
    pub finished: u64,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A request at the device, or the time of the next look.
    Request(Instant),
    /// The time of the next look.
    Look(Instant),
    /// Nothing: the daemon is to be ended.
    Kill,
    /// Nothing at all: switched off.
    Off,
}

/// The state of the watch.
#[derive(Debug)]
pub(super) struct Watchdog {
    limit: Option<Duration>,
    /// While active: since when nothing was finished, and how much was by then.
    active: Option<(Instant, u64)>,
    ready: bool,
}

impl Watchdog {
    /// A watch with this limit, or none.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self {
            limit,
            active: None,
            ready: false,
        }
    }

    /// A daemon was started.
    pub(super) fn started(&mut self, now: Instant, counts: Counts) {
        (self.active, self.ready) = (Some((now, counts.finished)), false);
    }

    /// It serves requests.
    pub(super) fn is_ready(&mut self, now: Instant, counts: Counts) {
        (self.active, self.ready) = (Some((now, counts.finished)), true);
    }

    /// A request waits at the device, or it is time to look; `waiting` says whether one waits there now.
    pub(super) fn look(&mut self, now: Instant, counts: Counts, waiting: bool) -> Step {
        let Some(limit) = self.limit else {
            return Step::Off;
        };
        if self.ready && !waiting && counts.in_work == 0 {
            self.active = None;
            return Step::Request(now + limit);
        }
        let (since, finished) = *self.active.get_or_insert((now, counts.finished));
        let limit = if self.ready {
            limit
        } else {
            limit.saturating_mul(LIMITS_TO_START)
        };
        if counts.finished != finished {
            self.active = Some((now, counts.finished));
        } else if now.saturating_duration_since(since) >= limit {
            return Step::Kill;
        }
        Step::Look(now + (limit / LOOKS).max(SHORTEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn counts(in_work: usize, finished: u64) -> Counts {
        Counts { in_work, finished }
    }

    fn watch(start: Instant) -> Watchdog {
        let mut watch = Watchdog::new(Some(LIMIT));
        watch.started(start, counts(0, 0));
        watch.is_ready(start, counts(0, 0));
        watch
    }

    #[test]
    fn an_idle_daemon_is_looked_at_once_per_limit() {
        let start = Instant::now();
        let mut watch = watch(start);
        let idle = watch.look(start, counts(0, 9), false);
        assert_eq!(idle, Step::Request(start + LIMIT));
        let later = start + LIMIT * 100;
        let idle = watch.look(later, counts(0, 9), false);
        assert_eq!(idle, Step::Request(later + LIMIT));
        let busy = watch.look(later, counts(1, 9), false);
        assert!(matches!(busy, Step::Look(_)), "the time counts from here");
    }

    #[test]
    fn slow_is_not_dead_as_long_as_something_is_finished() {
        let start = Instant::now();
        let mut watch = watch(start);
        for round in 1..100 {
            let now = start + LIMIT * 9 / 10 * round;
            let step = watch.look(now, counts(2, round.into()), true);
            assert!(matches!(step, Step::Look(_)), "{round}");
        }
    }

    #[test]
    fn a_daemon_that_finishes_nothing_while_requests_wait_is_ended() {
        for (in_work, waiting) in [(1, false), (0, true), (2, true)] {
            let start = Instant::now();
            let mut watch = watch(start);
            let _ = watch.look(start, counts(in_work, 0), waiting);
            let before = start + LIMIT - Duration::from_millis(1);
            let step = watch.look(before, counts(in_work, 0), waiting);
            assert!(matches!(step, Step::Look(_)));
            let step = watch.look(start + LIMIT, counts(in_work, 0), waiting);
            assert_eq!(step, Step::Kill, "{in_work} {waiting}");
        }
    }

    #[test]
    fn a_start_takes_its_time_but_not_for_ever() {
        let start = Instant::now();
        let mut watch = Watchdog::new(Some(LIMIT));
        watch.started(start, counts(2, 3));
        let step = watch.look(start + LIMIT, counts(2, 3), false);
        assert!(matches!(step, Step::Look(_)));
        let step = watch.look(start + LIMIT * LIMITS_TO_START, counts(2, 3), false);
        assert_eq!(step, Step::Kill);
    }

    #[test]
    fn it_can_be_switched_off() {
        let start = Instant::now();
        let mut watch = Watchdog::new(None);
        watch.started(start, counts(0, 0));
        assert_eq!(watch.look(start + LIMIT * 9, counts(9, 0), true), Step::Off);
    }
}

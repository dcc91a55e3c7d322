//! The thread that commits totals and looks again at files; it sleeps while there is nothing to do.
//!
//! Invariant: an idle VE causes no wake-ups. The first change after a commit rouses the thread, which then waits
//! [`COMMIT_INTERVAL`], so that changes are gathered, and commits.
//!
//! Lock order: the flag's lock is a leaf.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How long changes are gathered before they are committed; with the commit itself, totals on the disk are at most five
/// seconds old.
pub const COMMIT_INTERVAL: Duration = Duration::from_secs(4);

/// Rouses the thread.
#[derive(Debug, Default)]
pub struct Housekeeper {
    roused: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    hurry: bool,
}

impl Housekeeper {
    /// Something is to be committed; costs one load where that is known already.
    pub fn wake(&self) {
        if self.roused.load(Ordering::Relaxed) || self.roused.swap(true, Ordering::AcqRel) {
            return;
        }
        // The lock orders this against a thread that is about to sleep.
        drop(self.state.lock());
        self.changed.notify_one();
    }

    /// The commit that is due must not wait any longer.
    pub fn hurry(&self) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.hurry, true) {
            self.changed.notify_one();
        }
    }

    /// Ends [`Self::run`] after the round that it is in.
    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_one();
    }

    /// Runs until stopped. `round` does what is due and says when it wants to run again, if nothing changes before.
    pub fn run(&self, round: &mut dyn FnMut() -> Option<Instant>) {
        let mut next = None;
        loop {
            if self.sleep(next) {
                return;
            }
            self.roused.store(false, Ordering::Release);
            next = round();
        }
    }

    /// Sleeps until there is something to do; true says to stop.
    fn sleep(&self, next: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        while !state.stop && !self.roused.load(Ordering::Acquire) {
            match next {
                Some(due) if due <= Instant::now() => return false,
                Some(due) => drop(self.changed.wait_until(&mut state, due)),
                None => self.changed.wait(&mut state),
            }
        }
        let gathered = Instant::now() + COMMIT_INTERVAL;
        while !state.stop && !state.hurry && Instant::now() < gathered {
            self.changed.wait_until(&mut state, gathered);
        }
        state.hurry = false;
        state.stop
    }
}

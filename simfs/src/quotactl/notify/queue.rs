//! The bounded queue between the thread that receives and the threads that serve.
//!
//! One thread pushes, after it asked for room; so nothing that was received is ever dropped.
//!
//! Lock order: the queue's own lock, nothing inside it.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

#[derive(Debug)]
struct State<T> {
    jobs: VecDeque<T>,
    closed: bool,
}

/// A queue of at most `bound` jobs.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    bound: usize,
}

impl<T> Queue<T> {
    pub(super) const fn new(bound: usize) -> Self {
        let state = Mutex::new(State {
            jobs: VecDeque::new(),
            closed: false,
        });
        Self {
            state,
            filled: Condvar::new(),
            bound,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.state.lock().jobs.len() < self.bound
    }

    pub(super) fn push(&self, job: T) {
        self.state.lock().jobs.push_back(job);
        self.filled.notify_one();
    }

    /// Waits for the next job; `None` once the queue is closed. Also tells whether it was full.
    pub(super) fn pop(&self) -> Option<(T, bool)> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            let full = state.jobs.len() >= self.bound;
            if let Some(job) = state.jobs.pop_front() {
                return Some((job, full));
            }
            self.filled.wait(&mut state);
        }
    }

    /// Ends all waits and returns what nobody will serve.
    pub(super) fn close(&self) -> Vec<T> {
        let mut state = self.state.lock();
        state.closed = true;
        self.filled.notify_all();
        state.jobs.drain(..).collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_says_so_and_a_closed_one_hands_back() {
        let queue = Queue::new(2);
        queue.push(1);
        assert!(queue.has_room());
        queue.push(2);
        assert!(!queue.has_room());
        assert_eq!(queue.pop(), Some((1, true)));
        assert_eq!(queue.close(), [2]);
        assert_eq!(queue.pop(), None);
    }
}

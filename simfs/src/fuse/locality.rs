//! Workers stay on the CPU of who asks.
//!
//! Most of a round trip between two sleeping CPUs is waking them. A worker therefore looks now and then where its caller
//! runs, and binds itself to that CPU when several looks found the same caller, or the same CPU. A caller that moves is
//! followed; as soon as another one is seen elsewhere, the scheduler places the worker again. So several clients on several
//! CPUs have workers on all of them.
//!
//! The state is a worker's own: no locks. What does not work (no /proc, a CPU that is not allowed) leaves the worker
//! where the scheduler puts it.

use std::cell::RefCell;

use crate::sys::cpu::{self, Cpu, CpuOf};

/// Requests between two looks: one costs about as much as a request's system calls. Each look that changes nothing for a
/// bound worker doubles their number, up to the second.
const LOOK_EVERY: u32 = 16;
const LOOK_AT_LEAST_EVERY: u32 = 128;
/// Looks in a row that must find one caller, or one CPU, before a worker is bound.
const AGREEING: u32 = 3;

thread_local! {
    static WORKER: RefCell<Worker> = const { RefCell::new(Worker::new()) };
}

/// Notes a request of the calling worker's.
pub(super) fn note(callers: &CpuOf, pid: u32) {
    WORKER.with_borrow_mut(|worker| {
        if pid == 0 || !worker.is_look_due() {
            return;
        }
        let Ok(cpu) = callers.last_cpu(pid) else {
            return;
        };
        // A refusal leaves the worker where it is.
        let _ = match worker.saw(pid, cpu) {
            Some(Step::Bind(cpu)) => cpu::bind_thread(cpu),
            Some(Step::Free) => cpu::free_thread(),
            None => Ok(()),
        };
    });
}

/// What a worker is to do about its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Bind(Cpu),
    Free,
}

/// Where a worker's callers were seen.
#[derive(Debug)]
struct Worker {
    requests: u32,
    interval: u32,
    last: Option<(u32, Cpu)>,
    agreed: u32,
    bound: Option<Cpu>,
}

impl Worker {
    const fn new() -> Self {
        Self {
            requests: 0,
            interval: LOOK_EVERY,
            last: None,
            agreed: 0,
            bound: None,
        }
    }

    fn is_look_due(&mut self) -> bool {
        self.requests += 1;
        let due = self.requests >= self.interval;
        if due {
            self.requests = 0;
        }
        due
    }

    fn saw(&mut self, pid: u32, cpu: Cpu) -> Option<Step> {
        let agrees = self
            .last
            .is_none_or(|(last_pid, last_cpu)| last_pid == pid || last_cpu == cpu);
        self.last = Some((pid, cpu));
        self.interval = if agrees && self.bound == Some(cpu) {
            (self.interval * 2).min(LOOK_AT_LEAST_EVERY)
        } else {
            LOOK_EVERY
        };
        if !agrees {
            self.agreed = 1;
            return self.bound.take().map(|_| Step::Free);
        }
        self.agreed = self.agreed.saturating_add(1);
        if self.agreed < AGREEING || self.bound == Some(cpu) {
            return None;
        }
        self.bound = Some(cpu);
        Some(Step::Bind(cpu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Option<Step> = Some(Step::Free);

    fn bind(cpu: u32) -> Option<Step> {
        Some(Step::Bind(Cpu::new(cpu)))
    }

    fn steps(seen: &[(u32, u32)]) -> Vec<Option<Step>> {
        let mut worker = Worker::new();
        seen.iter()
            .map(|&(pid, cpu)| worker.saw(pid, Cpu::new(cpu)))
            .collect()
    }

    #[test]
    fn a_caller_is_followed() {
        let seen = [(7, 1), (7, 0), (7, 0), (7, 0), (7, 1), (7, 1)];
        assert_eq!(steps(&seen), [None, None, bind(0), None, bind(1), None]);
    }

    #[test]
    fn callers_in_turn_on_one_cpu_count_as_one() {
        let seen = [(7, 1), (8, 1), (9, 1), (10, 1)];
        assert_eq!(steps(&seen), [None, None, bind(1), None]);
    }

    #[test]
    fn another_caller_elsewhere_frees_the_worker() {
        let seen = [(7, 0), (7, 0), (7, 0), (8, 1), (7, 0), (8, 1)];
        assert_eq!(steps(&seen), [None, None, bind(0), FREE, None, None]);
    }

    #[test]
    fn only_some_requests_are_looked_at() {
        let mut worker = Worker::new();
        let due = (0..LOOK_EVERY * 3).filter(|_| worker.is_look_due()).count();
        assert_eq!(due, 3);
    }

    #[test]
    fn who_stays_is_looked_at_less_often() {
        let mut worker = Worker::new();
        let mut requests_until_look = |pid, cpu| {
            let requests = (1..).find(|_| worker.is_look_due()).unwrap();
            worker.saw(pid, Cpu::new(cpu));
            requests
        };
        let bound: Vec<u32> = (0..8).map(|_| requests_until_look(7, 1)).collect();
        assert_eq!(bound, [16, 16, 16, 16, 32, 64, 128, 128]);
        assert_eq!(requests_until_look(7, 0), 128, "it moved");
        assert_eq!(requests_until_look(7, 0), 16);
        assert_eq!(requests_until_look(8, 1), 32, "another one, elsewhere");
        assert_eq!(requests_until_look(8, 1), 16);
    }
}

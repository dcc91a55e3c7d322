//! A thread that makes the database's calls, so that a call that hangs is noticed and its caller goes on.
//!
//! Invariants:
//! 1. Calls run one after the other, in the order in which they came.
//! 2. A call that does not end within the limit is reported once; from then on every call fails with
//!    [`StoreError::Timeout`]. The thread is then lost, with all that it holds.
//! 3. An idle worker sleeps without a time limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::StoreError;

/// What to do when a call hangs: it is given the name of the call.
pub type OnHang = Arc<dyn Fn(&'static str) + Send + Sync>;

/// How to open a store: what becomes of calls that hang.
#[derive(Clone)]
pub struct Options {
    /// How long one call may take.
    pub time_limit: Duration,
    /// Called once when a call takes longer.
    pub on_hang: OnHang,
}

impl Default for Options {
    /// Ten seconds, then the end of the process: a supervisor starts the next one, and a kill loses nothing.
    fn default() -> Self {
        Self {
            time_limit: Duration::from_secs(10),
            on_hang: Arc::new(|_| std::process::abort()),
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A rate that a store which does not hang exceeds by far.
const BYTES_PER_SECOND: usize = 64 << 10;

/// The thread and the way to it.
pub(super) struct Worker {
    /// Held while a call is under way, so that the time limit is that of one call. Never nested.
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Option<JoinHandle<()>>,
    hung: AtomicBool,
    limit: Duration,
    on_hang: OnHang,
}

impl Worker {
    pub(super) fn start(limit: Duration, on_hang: OnHang) -> std::io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let thread = thread::Builder::new()
            .name("quota-store".into())
            .spawn(move || inbox.into_iter().for_each(|job| job()))?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            thread: Some(thread),
            hung: AtomicBool::new(false),
            limit,
            on_hang,
        })
    }

    /// Runs one call on the thread and waits for its answer.
    pub(super) fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run_sized(op, 0, job)
    }

    /// The same for a call that moves this many bytes: each started 64 KiB may take a second more.
    pub(super) fn run_sized<T: Send + 'static>(
        &self,
        op: &'static str,
        bytes: usize,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let seconds = u64::try_from(bytes.div_ceil(BYTES_PER_SECOND)).unwrap_or(u64::MAX);
        let limit = self.limit.saturating_add(Duration::from_secs(seconds));
        let jobs = self.jobs.lock();
        if self.hung.load(Ordering::Acquire) {
            return Err(self.timeout(op));
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let job = Box::new(move || {
            // Nobody waits any more after a time-out.
            let _ = answer.send(job());
        });
        let sent = jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(self.timeout(op));
        }
        let started = Instant::now();
        let result = answered.recv_timeout(limit);
        match result {
            Ok(value) => Ok(value),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                self.hung.store(true, Ordering::Release);
                drop(jobs);
                tracing::error!(op, waited = ?started.elapsed(), "quota database hangs");
                (self.on_hang)(op);
                Err(self.timeout(op))
            }
        }
    }

    fn timeout(&self, op: &'static str) -> StoreError {
        let limit_ms = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
        StoreError::Timeout { op, limit_ms }
    }
}

impl Drop for Worker {
    /// Waits for the thread, so that the database is closed when this returns; not for one that hangs.
    fn drop(&mut self) {
        *self.jobs.lock() = None;
        if let Some(thread) = self
            .thread
            .take()
            .filter(|_| !self.hung.load(Ordering::Acquire))
        {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_hangs_is_reported_once_and_ends_the_worker() {
        let (release, gate) = mpsc::channel::<()>();
        let (report, reported) = mpsc::channel();
        let on_hang: OnHang = Arc::new(move |op| report.send(op).unwrap());
        let worker = Worker::start(Duration::from_millis(50), on_hang).unwrap();
        assert_eq!(worker.run("sum", || 1 + 1).unwrap(), 2);
        let hung = worker.run("commit", move || gate.recv());
        assert!(matches!(
            hung,
            Err(StoreError::Timeout {
                op: "commit",
                limit_ms: 50
            })
        ));
        assert!(matches!(
            worker.run("get", || ()),
            Err(StoreError::Timeout { op: "get", .. })
        ));
        assert_eq!(reported.try_iter().collect::<Vec<_>>(), ["commit"]);
        drop(release);
    }

    #[test]
    fn dropping_waits_for_the_work_at_hand() {
        let worker = Worker::start(Duration::from_secs(10), Arc::new(|_| ())).unwrap();
        let kept = Arc::new(());
        let held = Arc::clone(&kept);
        worker.run("hold", move || drop(held)).unwrap();
        drop(worker);
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}

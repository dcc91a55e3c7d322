//! A store in memory, for tests: it fails when told to, and shows what a crash would leave.
//!
//! The image is the durable one: a commit that returned `Ok` is in it, one that was refused is not, and a refused
//! commit of [`MemoryStore::fail_nth_late`] is, as after a power loss between the write and the answer.
//! No lock is held between calls.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{Batch, CopyChange, Entry, LimitsCopy, Op, Store, StoreError};

/// An ordered map of bytes in memory with failures on demand.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    copy: Option<LimitsCopy>,
    calls: u64,
    commits: u64,
    failure: Option<Failure>,
    stopped: Option<u64>,
}

#[derive(Debug)]
struct Failure {
    at: u64,
    error: StoreError,
    late: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The n-th call from now (1 is the next) fails with this error and changes nothing; calls after it work again.
    /// Every method of [`Store`] counts. Replaces a failure that has not happened yet.
    pub fn fail_nth(&self, n: u64, error: StoreError) {
        self.arm(n, error, false);
    }

    /// Like [`MemoryStore::fail_nth`], but the change is made durable before the error is returned.
    pub fn fail_nth_late(&self, n: u64, error: StoreError) {
        self.arm(n, error, true);
    }

    /// The next `n` calls work, all later ones fail: the process dies there.
    pub fn stop_after(&self, n: u64) {
        let mut state = self.state.lock();
        state.stopped = Some(state.calls.saturating_add(n));
    }

    /// What a crash at this moment would leave, as a fresh store that works.
    #[must_use]
    pub fn crash(&self) -> Self {
        let state = self.state.lock();
        let fresh = State {
            durable: state.durable.clone(),
            copy: state.copy.clone(),
            ..State::default()
        };
        Self {
            state: Mutex::new(fresh),
        }
    }

    /// The calls made so far, failed ones too.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// The commits that became durable so far.
    pub fn commits(&self) -> u64 {
        self.state.lock().commits
    }

    /// All entries in order.
    pub fn entries(&self) -> Vec<Entry> {
        self.state
            .lock()
            .durable
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// The copy of the limits as it was kept.
    pub fn copy(&self) -> Option<LimitsCopy> {
        self.state.lock().copy.clone()
    }

    /// Replaces a value behind everybody's back, as damage does.
    pub fn overwrite(&self, key: &[u8], value: &[u8]) {
        self.state
            .lock()
            .durable
            .insert(key.to_vec(), value.to_vec());
    }

    fn arm(&self, n: u64, error: StoreError, late: bool) {
        let mut state = self.state.lock();
        let at = state.calls.saturating_add(n);
        state.failure = Some(Failure { at, error, late });
    }

    /// Counts a call, does it unless it is to fail before, answers unless it is to fail after.
    fn call<T>(&self, work: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        let mut state = self.state.lock();
        state.calls = state.calls.saturating_add(1);
        if state.stopped.is_some_and(|last| state.calls > last) {
            return Err(StoreError::Poisoned {
                cause: "stopped by a test".into(),
                retry_ms: 0,
            });
        }
        let calls = state.calls;
        match state.failure.take_if(|failure| failure.at == calls) {
            None => Ok(work(&mut state)),
            Some(failure) => {
                if failure.late {
                    work(&mut state);
                }
                Err(failure.error)
            }
        }
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.call(|state| state.durable.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.call(|state| {
            let start = from.max(prefix).to_vec();
            let matching = state.durable.range(start..);
            matching
                .take_while(|(key, _)| key.starts_with(prefix))
                .take(limit)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        })
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.call(|state| {
            for op in batch.ops() {
                match op {
                    Op::Put { key, value } => state.durable.insert(key.clone(), value.clone()),
                    Op::Remove { key } => state.durable.remove(key),
                };
            }
            state.commits = state.commits.saturating_add(1);
        })
    }

    fn keep_copy(&self, change: &CopyChange) -> Result<(), StoreError> {
        self.call(|state| {
            let copy = state.copy.get_or_insert_default();
            copy.apply(change);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Batch {
        let mut batch = Batch::new();
        batch.put(key, value);
        batch
    }

    fn failure() -> StoreError {
        StoreError::NoSpace {
            dir: "/nowhere".into(),
        }
    }

    #[test]
    fn scan_is_bounded_by_prefix_start_and_limit() {
        let store = MemoryStore::new();
        for key in ["a", "u1", "u2", "u3", "v"] {
            store.commit(&put(key, key)).unwrap();
        }
        let keys = |prefix: &str, from: &str, limit| -> Vec<String> {
            let found = store
                .scan(prefix.as_bytes(), from.as_bytes(), limit)
                .unwrap();
            found
                .into_iter()
                .map(|(key, _)| String::from_utf8(key).unwrap())
                .collect()
        };
        assert_eq!(keys("u", "", 9), ["u1", "u2", "u3"]);
        assert_eq!(keys("u", "u2", 9), ["u2", "u3"]);
        assert_eq!(keys("u", "u2", 1), ["u2"]);
        assert_eq!(keys("u", "v", 9), [""; 0]);
        assert_eq!(keys("", "", 9).len(), 5);
    }

    #[test]
    fn the_nth_call_fails_once_and_changes_nothing() {
        let store = MemoryStore::new();
        store.fail_nth(2, failure());
        store.commit(&put("a", "1")).unwrap();
        assert!(matches!(
            store.commit(&put("a", "2")),
            Err(StoreError::NoSpace { .. })
        ));
        assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!((store.calls(), store.commits()), (3, 1));
    }

    #[test]
    fn a_late_failure_leaves_the_change_behind() {
        let store = MemoryStore::new();
        store.fail_nth_late(1, failure());
        assert!(store.commit(&put("a", "1")).is_err());
        assert_eq!(store.crash().get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn a_stopped_store_stays_stopped_and_its_image_survives() {
        let store = MemoryStore::new();
        store.stop_after(1);
        store.commit(&put("a", "1")).unwrap();
        assert!(store.commit(&put("a", "2")).is_err());
        assert!(store.get(b"a").is_err());
        let after = store.crash();
        assert_eq!(after.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
        after.commit(&put("a", "3")).unwrap();
    }
}

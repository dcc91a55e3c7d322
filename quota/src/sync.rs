//! Locks and atomics of this crate, from one place, so that a model checker can replace them.

pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock};

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
}

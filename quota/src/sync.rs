//! The locks of this crate, from one place, so that a model checker can replace them.

pub(crate) use parking_lot::Mutex;

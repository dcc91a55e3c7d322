//! Where requests enter: it can be closed, and one request can have the house to itself.
//!
//! Lock order: the gate comes before every other lock of a request.

use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Passed by each request for as long as it is being carried out.
#[derive(Debug, Default)]
pub struct Gate {
    inside: RwLock<()>,
}

/// A request's stay.
#[must_use = "a request is inside as long as this lives"]
pub(super) enum Stay<'a> {
    /// Beside others.
    Together(#[expect(dead_code, reason = "held for its drop")] RwLockReadGuard<'a, ()>),
    /// Alone.
    Alone(#[expect(dead_code, reason = "held for its drop")] RwLockWriteGuard<'a, ()>),
}

impl Gate {
    /// Lets a request in, now or when the gate opens.
    pub(super) fn enter(&self) -> Stay<'_> {
        Stay::Together(self.inside.read())
    }

    /// Lets a request in when all others are out, and none in as long as it stays: what a daemon dies of is then no
    /// matter of doubt.
    pub(super) fn enter_alone(&self) -> Stay<'_> {
        Stay::Alone(self.inside.write())
    }

    /// Closes the gate and runs `work` when the last request is out; opens it again afterwards. `None` where requests stay
    /// longer than that.
    pub fn closed<R>(&self, patience: Duration, work: impl FnOnce() -> R) -> Option<R> {
        let closed = self.inside.try_write_for(patience)?;
        let result = work();
        drop(closed);
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_closes_behind_the_last_request() {
        let gate = Gate::default();
        let stay = gate.enter();
        assert_eq!(gate.closed(Duration::from_millis(5), || ()), None);
        drop(stay);
        let open = gate.closed(Duration::from_secs(60), || gate.inside.try_read().is_none());
        assert_eq!(open, Some(true), "nobody enters meanwhile");
        assert!(gate.inside.try_read().is_some());
        let alone = gate.enter_alone();
        assert!(gate.inside.try_read().is_none());
        drop(alone);
    }
}

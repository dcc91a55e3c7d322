//! Named points in operations that cannot be repeated, where a test ends the daemon as a kill would.
//!
//! Only debug builds have them; in a release build [`point`] is empty and the environment is not looked at. Armed by
//! `SIMFS_FAULT=NAME:EVERY:TIMES`: each EVERY-th pass of point NAME ends the process by SIGKILL, TIMES times in all. Passes
//! are counted in the shared memory, so that a successor does not begin anew.

/// The points of operations on files, in the order in which one comes by.
pub const POINTS: [&str; 13] = [
    "described",
    "made",
    "counted",
    "handed-out",
    "opened",
    "deposited",
    "removed",
    "renamed",
    "attribute",
    "answered",
    "ordered",
    "forgetting",
    "forgotten",
];

/// The points at the end of a mount or of a daemon that hands over, in the order in which one comes by: all changes are on the
/// disk, the commit is done, and, where a recount is kept, its file is written, has its name, and is durable.
pub const ENDING: [&str; 5] = ["settled", "committed", "written", "named", "kept"];

/// The point between a system call of a guest that the kernel handed over and the note of it.
pub const RECEIVED: &str = "received";

/// The points while a listener is taken from a container runtime, in the order in which one comes by: the connection is there,
/// its message is read, the keeper holds the listener, and that is noted.
pub const REGISTERING: [&str; 4] = ["connected", "heard", "listening", "registered"];

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;

    #[derive(Debug, PartialEq, Eq)]
    struct Order {
        name: String,
        every: u64,
        times: u64,
    }

    type Count = dyn Fn() -> u64 + Send + Sync;

    static ARMED: OnceLock<(Order, Box<Count>)> = OnceLock::new();

    /// Reads the environment. `count` counts a pass in memory that outlives the daemon, and says which it is.
    pub fn arm(count: impl Fn() -> u64 + Send + Sync + 'static) {
        let Ok(order) = std::env::var("SIMFS_FAULT") else {
            return;
        };
        match parse(&order) {
            Some(order) => {
                tracing::warn!(?order, "a fault point is armed");
                let _ = ARMED.set((order, Box::new(count)));
            }
            None => tracing::error!(order, "SIMFS_FAULT is NAME:EVERY:TIMES; nothing is armed"),
        }
    }

    fn parse(order: &str) -> Option<Order> {
        let mut parts = order.split(':');
        let name = parts
            .next()
            .filter(|name| {
                super::POINTS.contains(name)
                    || super::ENDING.contains(name)
                    || super::REGISTERING.contains(name)
                    || *name == super::RECEIVED
            })?
            .to_owned();
        let every = parts.next()?.parse().ok().filter(|&every| every > 0)?;
        let times = parts.next()?.parse().ok()?;
        parts
            .next()
            .is_none()
            .then_some(Order { name, every, times })
    }

    /// Ends the process if this point is armed and due.
    pub fn point(name: &str) {
        #[cfg(test)]
        super::stop::check(name);
        let Some((order, count)) = ARMED.get().filter(|(order, _)| order.name == name) else {
            return;
        };
        let pass = count();
        if pass.is_multiple_of(order.every) && pass / order.every <= order.times {
            let itself = rustix::process::getpid();
            let _ = rustix::process::kill_process(itself, rustix::process::Signal::KILL);
            // The signal may take a moment to arrive; nothing may happen meanwhile.
            loop {
                std::thread::park();
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_no_order_arms_nothing() {
            for order in ["", "made", "made:1", "made:0:1", "made:1:1:1", "other:1:1"] {
                assert_eq!(parse(order), None, "{order}");
            }
            let order = Order {
                name: "made".into(),
                every: 3,
                times: 1,
            };
            assert_eq!(parse("made:3:1"), Some(order));
        }
    }
}

#[cfg(debug_assertions)]
pub use armed::{arm, point};
#[cfg(test)]
pub(crate) use stop::stop_at;

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub fn arm(_: impl Fn() -> u64) {}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_: &str) {}

/// Panics in each request of the kind that `SIMFS_FAULT_REQUEST` names: a fault of the daemon's own, which the successor
/// meets again. Debug builds only.
#[cfg(debug_assertions)]
#[expect(clippy::panic, reason = "what it is there for")]
pub fn request(kind: &str) {
    static NAMED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let named = NAMED.get_or_init(|| std::env::var("SIMFS_FAULT_REQUEST").ok());
    if named.as_deref() == Some(kind) {
        panic!("SIMFS_FAULT_REQUEST={kind}");
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn request(_: &str) {}

/// As if the kernel were older than Linux 6.9, where `SIMFS_FAULT_OLD_KERNEL` is set: it sends no request twice and has no
/// passthrough. Debug builds only.
#[cfg(debug_assertions)]
pub fn is_kernel_old() -> bool {
    std::env::var_os("SIMFS_FAULT_OLD_KERNEL").is_some()
}

/// Never, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn is_kernel_old() -> bool {
    false
}

/// What `SIMFS_FAULT_SUCCESSOR=KIND:PROGRAM` has one program do when it is to take over, known by the path of its file: it
/// `crashes` or `hangs` here, or it is `newer`: see [`is_newer`]. Any other program takes over as ever. Debug builds only.
#[cfg(debug_assertions)]
pub fn successor() {
    if is_named("crashes") {
        std::process::abort();
    }
    while is_named("hangs") {
        std::thread::park();
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub fn successor() {}

/// Whether this program is to read a later version of the saved state than it was built for. Debug builds only.
#[cfg(debug_assertions)]
pub fn is_newer() -> bool {
    is_named("newer")
}

/// Never, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn is_newer() -> bool {
    false
}

#[cfg(debug_assertions)]
fn is_named(kind: &str) -> bool {
    let order = std::env::var("SIMFS_FAULT_SUCCESSOR").unwrap_or_default();
    let named = order
        .split_once(':')
        .filter(|(named, _)| *named == kind)
        .map(|(_, program)| std::path::Path::new(program));
    let own = std::fs::read_link("/proc/self/exe").ok();
    named.is_some_and(|named| own.as_deref() == Some(named))
}

/// For tests within one process: a point that unwinds instead of killing.
#[cfg(test)]
mod stop {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    thread_local! {
        static POINT: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    struct Stopped;

    /// Runs `act` to its end, or to the point; `None` where it came by there.
    pub(crate) fn stop_at<T>(point: &'static str, act: impl FnOnce() -> T) -> Option<T> {
        assert!(super::POINTS.contains(&point), "{point}");
        POINT.set(Some(point));
        let result = catch_unwind(AssertUnwindSafe(act));
        POINT.set(None);
        match result {
            Ok(done) => Some(done),
            Err(cause) if cause.is::<Stopped>() => None,
            Err(cause) => resume_unwind(cause),
        }
    }

    pub(super) fn check(name: &str) {
        if POINT.get() == Some(name) {
            POINT.set(None);
            resume_unwind(Box::new(Stopped));
        }
    }
}

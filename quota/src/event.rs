//! What an administrator may want to hear of: a limit that was passed or reached.
//!
//! Each kind is reported once per crossing: again only after usage fell below the limit, or the limits changed. The
//! rules return events as values; they are sent when no lock is held.
//!
//! # Source
//! OpenVZ kernel `fs/quota/vzdquota/vzdq_ops.c`: six messages per quota, `{file, disk}` x `{hard reached, soft exceeded,
//! soft expired}`.

use serde::{Deserialize, Serialize};

use crate::grace::Timestamp;
use crate::subject::Subject;
use crate::usage::Resource;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Usage is above the soft limit now.
    SoftExceeded {
        /// When the soft limit begins to act as a hard one; `None` while the scope is not enforced.
        deadline: Option<Timestamp>,
    },
    /// A request was refused because the time above the soft limit is over.
    GraceExpired,
    /// A request was refused because it would have passed the hard limit.
    HardReached,
}

/// One event, with the account's figures at that moment, in bytes or inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Whose account.
    pub subject: Subject,
    /// Of which resource.
    pub resource: Resource,
    /// What happened.
    pub kind: EventKind,
    /// What is charged.
    pub used: u64,
    /// The soft limit.
    pub soft: Option<u64>,
    /// The hard limit.
    pub hard: Option<u64>,
}

/// Receives events. Called without any lock of the engine, possibly by several threads at once.
pub trait EventSink: Send + Sync {
    /// One event happened.
    fn event(&self, event: &Event);
}

/// Drops every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn event(&self, _event: &Event) {}
}

/// What one step has to say, spoken when no lock is held. Hardly ever more than two events.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// For the sink.
    pub(crate) events: smallvec::SmallVec<[Event; 2]>,
    /// Totals that would have left their range: the accounting has gone wrong before.
    pub(crate) broken: smallvec::SmallVec<[(Subject, Resource); 1]>,
}

//! Quota events in the daemon's log, for the host's administrator.

use quota::{Event, EventKind, EventSink, VeId};

/// Writes quota events to the log, once per crossing.
#[derive(Debug)]
pub(super) struct EventLog {
    ve: VeId,
}

impl EventLog {
    pub(super) fn new(ve: VeId) -> Self {
        Self { ve }
    }
}

impl EventSink for EventLog {
    fn event(&self, event: &Event) {
        let what = match event.kind {
            EventKind::SoftExceeded { .. } => "soft limit exceeded, grace begins",
            EventKind::GraceExpired => "grace expired, the soft limit is enforced",
            EventKind::HardReached => "hard limit reached",
        };
        tracing::warn!(
            ve = %self.ve,
            subject = %event.subject,
            resource = ?event.resource,
            used = event.used,
            soft = ?event.soft,
            hard = ?event.hard,
            "{what}"
        );
    }
}

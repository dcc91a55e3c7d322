//! What a thread keeps in its lane: the accounts that it used last, so that it need not look for them.

use std::sync::Arc;

use crate::subject::Subject;

use super::entry::{Entry, Generation};

/// Places for users, and as many for groups.
const PLACES: usize = 8;

/// The belongings of one lane.
#[derive(Debug)]
pub(super) struct Lane {
    /// The present generation; changes in closed lanes only, in all of them together.
    pub(super) generation: Generation,
    ve: Option<Arc<Entry>>,
    users: [Option<Arc<Entry>>; PLACES],
    groups: [Option<Arc<Entry>>; PLACES],
}

impl Lane {
    /// A lane of the first generation.
    pub(super) fn new() -> Self {
        Self {
            generation: 1,
            ve: None,
            users: Default::default(),
            groups: Default::default(),
        }
    }

    /// An account that is at hand.
    pub(super) fn get(&self, subject: Subject) -> Option<&Arc<Entry>> {
        let place = match subject {
            Subject::Ve => self.ve.as_ref(),
            Subject::User(uid) => self.users.get(place(uid.get()))?.as_ref(),
            Subject::Group(gid) => self.groups.get(place(gid.get()))?.as_ref(),
        };
        place.filter(|entry| entry.subject() == subject)
    }

    /// Keeps an account at hand, in the place of another.
    pub(super) fn keep(&mut self, entry: Arc<Entry>) {
        let place = match entry.subject() {
            Subject::Ve => Some(&mut self.ve),
            Subject::User(uid) => self.users.get_mut(place(uid.get())),
            Subject::Group(gid) => self.groups.get_mut(place(gid.get())),
        };
        if let Some(place) = place {
            *place = Some(entry);
        }
    }

    /// Begins a generation; accounts that are kept nowhere else may leave memory then.
    pub(super) fn begin(&mut self, generation: Generation) {
        *self = Self {
            generation,
            ve: self.ve.take(),
            ..Self::new()
        };
    }
}

/// Ids are mostly given in a row, so these spread them.
fn place(id: u32) -> usize {
    usize::try_from(id).unwrap_or(0) % PLACES
}

//! The accounts of one VE that are in memory: checks and charges all accounts of a request together.
//!
//! There are two ways to change them. *At once*: a thread in its lane changes amounts by single steps of the processor,
//! as long as every account concerned is far from all its limits and no timer runs. *By the rules*: everything else, in
//! closed lanes, where nothing else moves ([`Closed`]). Both may be tried at any time; the first one never refuses,
//! it only says that the second is needed.
//!
//! Accounts come from the store at their first touch and leave after a commit; which of them are here is the engine's
//! business. What cannot be refused and meets an account that could not be read becomes a *debt*, settled when the
//! account arrives.
//!
//! Invariants:
//! 1. A request is promised on all its accounts or on none; the VE is asked first, then users, then groups.
//! 2. What is held is at most the lowest limit, at every instant, where it got there at once: limits change only in closed
//!    lanes, and each step is compared with them ([`counter`], 1). Whoever finds the room taken by one that gives it
//!    back again asks once more in closed lanes, where nobody is half way.
//! 3. In closed lanes each change has happened on all its accounts or on none: sums agree there.
//! 4. An account whose record differs from the stored one is in `changed`, or part of the commit under way.
//! 5. An account that is in memory, is not changed and holds no promise equals the stored one.
//!
//! Lock order: `books`, lanes, roster, an entry's `side`, `changed`; then the journal's.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::charges::Move;
use crate::dquot::{Dquot, Rules};
use crate::error::{Denied, DenyReason};
use crate::grace::Timestamp;
use crate::info::VeInfo;
use crate::lanes::{Lanes, parallelism};
use crate::scope::Scope;
use crate::subject::Subject;
use crate::sync::{Mutex, MutexGuard};
use crate::usage::Resource;

mod at_once;
mod closed;
mod counter;
mod edit;
mod entry;
mod lane;
mod roster;
mod snapshot;

pub(crate) use closed::Closed;
pub(crate) use edit::{AccountEdit, Edit};
pub(crate) use snapshot::{Item, Snapshot};

use entry::{Entry, Generation};
use lane::Lane;
use roster::Roster;

/// Which levels a request has to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Levels {
    /// The VE, its users and its groups.
    Both,
    /// The VE alone: the caller passes the second level.
    First,
}

/// Accounts of one VE.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// First in the lock order; whoever closes the lanes holds it.
    books: Mutex<Books>,
    lanes: Lanes<Lane>,
    roster: Roster,
    /// Entries that this generation changed, each once. A leaf.
    changed: Mutex<Vec<Arc<Entry>>>,
}

/// What concerns all accounts.
#[derive(Debug)]
struct Books {
    info: VeInfo,
    debts: BTreeMap<Subject, Move>,
    /// A commit failed, so the store may have settings that are not in force.
    unsure: bool,
    /// Accounts that came without a record, or lost what was worth storing: to be let go by the next commit. Not before: an
    /// order may have brought them in to change them.
    visitors: Vec<Subject>,
}

impl Ledger {
    /// The ledger of this VE, without any account.
    pub(crate) fn new(info: VeInfo) -> Self {
        Self {
            books: Mutex::new(Books {
                info,
                debts: BTreeMap::new(),
                unsure: false,
                visitors: Vec::new(),
            }),
            lanes: Lanes::new(parallelism(), Lane::new),
            roster: Roster::default(),
            changed: Mutex::default(),
        }
    }

    /// Waits until nobody is changing anything, and keeps it so.
    pub(crate) fn close(&self) -> Closed<'_> {
        let books = self.books.lock();
        Closed::new(self, books, self.lanes.close())
    }

    /// The VE as a whole.
    pub(crate) fn info(&self) -> VeInfo {
        self.books.lock().info.clone()
    }

    /// Whether the limits of this scope are enforced.
    pub(crate) fn is_enforced(&self, scope: Scope) -> bool {
        self.books.lock().info.is_enforced(scope)
    }

    /// An account that is in memory.
    pub(crate) fn get(&self, subject: Subject) -> Option<Dquot> {
        // In a lane nothing but amounts moves.
        let lane = self.lanes.enter();
        match lane.get(subject) {
            Some(entry) => Some(entry.dquot()),
            None => self.roster.get(subject).map(|entry| entry.dquot()),
        }
    }

    /// The first account in memory, from this one on, of which `pick` makes something.
    pub(crate) fn find_from<T>(
        &self,
        from: Subject,
        mut pick: impl FnMut(&Dquot) -> Option<T>,
    ) -> Option<T> {
        let _lane = self.lanes.enter();
        self.roster.find_from(from, |entry| pick(&entry.dquot()))
    }

    /// Whether there is anything to commit.
    pub(crate) fn is_changed(&self) -> bool {
        let books = self.books.lock();
        books.unsure || !books.debts.is_empty() || !self.changed.lock().is_empty()
    }

    /// An account that could not be read when something happened to it.
    pub(crate) fn first_debt(&self) -> Option<Subject> {
        self.books.lock().debts.keys().next().copied()
    }

    /// Whether something happened to this account that could not be read.
    pub(crate) fn has_debt(&self, subject: Subject) -> bool {
        self.books.lock().debts.contains_key(&subject)
    }

    /// Lets accounts go that equal the stored ones: those that are not worth the memory, then those unused for longest,
    /// until `bound` are left.
    pub(crate) fn shrink_to(&self, bound: usize) {
        let mut visitors = std::mem::take(&mut self.books.lock().visitors);
        let roster = &self.roster;
        visitors.retain(|subject| !roster.forget_unused(*subject) && roster.has_unused(*subject));
        self.books.lock().visitors.append(&mut visitors);
        self.roster.shrink_to(bound);
    }

    /// Puts an entry on the list of changed ones, before its record changes for the first time in this generation.
    fn touch(&self, entry: &Arc<Entry>, now: Generation) {
        if entry.touch(now) {
            self.changed.lock().push(entry.clone());
        }
    }
}

/// The rules that a VE's settings give for one of its accounts.
fn rules_of(info: &VeInfo, subject: Subject, now: Timestamp) -> Rules {
    let scope = Scope::of(subject);
    Rules {
        enforced: info.enforced.get(scope),
        grace: info.grace.get(scope),
        now,
    }
}

/// The refusal of an account that could not be read.
pub(crate) fn unavailable(subject: Subject) -> Denied {
    let reason = DenyReason::AccountUnavailable;
    Denied {
        subject,
        resource: Resource::Space,
        used: 0,
        limit: 0,
        reason,
    }
}

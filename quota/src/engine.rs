//! The public face of quota: every change of a VE's disk usage passes here.
//!
//! A change has two halves. [`Engine::reserve`] promises the worst case on all accounts concerned, or refuses it
//! with nothing changed; [`Reservation::settle`] replaces the promise by what the change really took. What is not
//! settled is cancelled when the reservation is dropped.
//!
//! Invariants:
//! 1. `used + reserved <= hard` on every enforced account at every instant, except through the no-fail verbs
//!    (settling more than was reserved, [`Engine::record`], limits lowered below usage) and for callers that pass the
//!    second level.
//! 2. A reservation is granted on all its accounts or on none.
//! 3. The VE's usage = the sum over its users = the sum over its groups.
//! 4. What an administrative verb acknowledged is durable.
//! 5. Events are sent, callers are looked up, and batches are written without any lock of the ledger.
//!
//! Lock order: `admin` before the ledger's; the store is never called with the ledger closed, except to load an account.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::charges::{Charges, Moves};
use crate::clock::{Clock, SystemClock};
use crate::error::{Denied, DenyReason, EngineError};
use crate::event::{EventSink, News, NoEvents};
use crate::grace::Timestamp;
use crate::inode::{Charged, InodeId};
use crate::journal::{Epoch, IntentSlot, Journal, NoJournal};
use crate::lanes::{LANES, number_of_thread};
use crate::ledger::{self, Ledger, Levels};
use crate::request::{Accounts, Change, Want};
use crate::reservation::{Ended, Reservation};
use crate::scope::Scope;
use crate::standing::Standing;
use crate::statfs::{HostSpace, StatfsView};
use crate::store::Store;
use crate::subject::{Owner, Subject};
use crate::sync::Mutex;
use crate::usage::Usage;

mod accounts;
mod admin;
mod commit;
mod records;
mod service;
mod setup;

pub use service::Watch;
pub use setup::Setup;

/// What an engine needs besides its store.
#[derive(Clone)]
pub struct Environment {
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Who hears of events.
    pub events: Arc<dyn EventSink>,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            events: Arc::new(NoEvents),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

/// The quota of one VE. Clones are handles to the same engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    grips: Arc<[Arc<Grip>; LANES]>,
}

struct Inner {
    store: Arc<dyn Store>,
    environment: Environment,
    journal: Arc<dyn Journal>,
    /// One administrator or commit at a time. First in the lock order; holds the number of the last attempt to commit.
    admin: Mutex<Epoch>,
    /// Last in the lock order but for the journal; closed for arithmetic, and to read an account that is not in memory.
    ledger: Ledger,
    /// A leaf; changed with `admin` held.
    standing: Mutex<Standing>,
    /// Whether this engine keeps the journal that the store names.
    in_service: AtomicBool,
    /// No recount of this service makes totals known; changed with `admin` held.
    lost: AtomicBool,
    violations: AtomicU64,
    /// The last account that was asked for could not be read.
    unreadable: AtomicBool,
}

impl Engine {
    /// Opens the record in this store.
    ///
    /// # Errors
    /// [`EngineError::NoRecord`] when the store is empty, [`EngineError::Store`] when it cannot be read.
    pub fn open(store: Arc<dyn Store>, environment: Environment) -> Result<Self, EngineError> {
        Self::open_journaled(store, environment, Arc::new(NoJournal))
    }

    /// Opens the record in this store, and tells the journal of every change.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_journaled(
        store: Arc<dyn Store>,
        environment: Environment,
        journal: Arc<dyn Journal>,
    ) -> Result<Self, EngineError> {
        let (info, epoch) = records::info(&*store)?.ok_or(EngineError::NoRecord)?;
        records::require(&*store, Subject::Ve)?;
        let standing = records::standing(&*store)?;
        let engine = Self::of(Inner {
            store,
            environment,
            journal,
            admin: Mutex::new(epoch),
            ledger: Ledger::new(info),
            standing: Mutex::new(standing),
            in_service: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            violations: AtomicU64::new(0),
            unreadable: AtomicBool::new(false),
        });
        engine.bring_in([Subject::Ve])?;
        Ok(engine)
    }

    /// Promises these amounts on all their accounts, or refuses and counts the refusal.
    ///
    /// `touched` names the inodes that the change may alter, with what the totals hold for them. `exempt` is asked, with
    /// no lock held, only when the second level would refuse: `true` means that the caller passes it.
    ///
    /// # Errors
    /// [`Denied`] by the first account that has no room: the VE, then users, then groups.
    pub fn reserve(
        &self,
        touched: &[(InodeId, Option<Charged>)],
        wants: &[Want],
        exempt: &dyn Fn() -> bool,
    ) -> Result<Reservation, Denied> {
        self.try_reserve(touched, wants, exempt)
            .inspect_err(|denied| self.count_refusal(denied))
    }

    /// Like [`Engine::reserve`], but a refusal changes nothing at all: for callers that can ask for less.
    ///
    /// # Errors
    /// As [`Engine::reserve`].
    pub fn try_reserve(
        &self,
        touched: &[(InodeId, Option<Charged>)],
        wants: &[Want],
        exempt: &dyn Fn() -> bool,
    ) -> Result<Reservation, Denied> {
        let charges = Charges::of(wants);
        let denied = match self.promise(touched, &charges, Levels::Both) {
            Ok(()) => return Ok(self.promised(charges, touched)),
            Err(denied) => denied,
        };
        let unreadable = denied.reason == DenyReason::AccountUnavailable;
        if denied.subject == Subject::Ve || unreadable || !exempt() {
            return Err(denied);
        }
        self.promise(touched, &charges, Levels::First)?;
        Ok(self.promised(charges, touched))
    }

    /// Takes in changes that happened already: freed space, space that was allocated late. Cannot be refused.
    pub fn record(&self, changes: &[Change]) {
        self.inner
            .apply(&Charges::default(), changes, &Ended::default());
    }

    /// How much more this owner could take now; without its second level for a caller that passes that.
    pub fn room(&self, owner: Owner, second_level: bool) -> Usage {
        let levels = if second_level {
            Levels::Both
        } else {
            Levels::First
        };
        let now = self.now();
        let ledger = self.inner.ledger.close();
        let rooms = crate::charges::subjects(Accounts::of(owner)).map(|subject| {
            // An account that cannot be read has no room.
            self.inner
                .peek(&ledger, subject)
                .map_or(Usage::ZERO, |dquot| ledger.room(&dquot, levels, now))
        });
        rooms.reduce(Usage::min).unwrap_or_default()
    }

    /// Whether the limits of this scope are enforced.
    pub fn is_enforced(&self, scope: Scope) -> bool {
        self.inner.ledger.is_enforced(scope)
    }

    /// What df shows in the VE.
    pub fn statfs(&self, host: HostSpace) -> StatfsView {
        let ve = self.inner.ledger.get(Subject::Ve);
        let ve = ve.map(|dquot| *dquot.account());
        let (limits, used) = ve.map_or_else(Default::default, |ve| (ve.limits, ve.usage));
        crate::statfs::view(&limits, used, host)
    }

    /// What the VE has promised and not settled; zero at unmount.
    pub fn reserved(&self) -> Usage {
        let ve = self.inner.ledger.get(Subject::Ve);
        ve.map_or(Usage::ZERO, |dquot| dquot.account().reserved)
    }

    /// How often a total would have left its range, and was set to its bound: what the accounts are told of is not what they
    /// hold, since the private area was edited behind the mount, or the accounting has gone wrong.
    pub fn invariant_violations(&self) -> u64 {
        self.inner.violations.load(Ordering::Relaxed)
    }

    /// A handle to this engine; each lane has its own, so that threads do not count the uses of one and the same.
    fn of(inner: Inner) -> Self {
        let inner = Arc::new(inner);
        let grip = |_| Arc::new(Grip(inner.clone()));
        Self {
            grips: Arc::new(std::array::from_fn(grip)),
            inner,
        }
    }

    fn promised(&self, charges: Charges, touched: &[(InodeId, Option<Charged>)]) -> Reservation {
        let [first, ..] = &*self.grips;
        let grip = self.grips.get(number_of_thread() % LANES).unwrap_or(first);
        Reservation::new(grip.clone(), charges, touched)
    }

    fn promise(
        &self,
        touched: &[(InodeId, Option<Charged>)],
        charges: &Charges,
        levels: Levels,
    ) -> Result<(), Denied> {
        let inner = &self.inner;
        if levels == Levels::First || !inner.ledger.promise_at_once(charges) {
            inner.promise_by_rules(charges, levels)?;
        }
        inner.journal.begin(touched);
        Ok(())
    }

    fn count_refusal(&self, denied: &Denied) {
        let mut news = News::default();
        let mut ledger = self.inner.ledger.close();
        ledger.count_refusal(denied, &mut news);
        drop(ledger);
        self.inner.tell(&news);
    }

    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn tell(&self, news: &News) {
        self.inner.tell(news);
    }
}

/// A lane's handle to the engine.
pub(crate) struct Grip(Arc<Inner>);

impl fmt::Debug for Grip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grip").finish_non_exhaustive()
    }
}

impl Grip {
    /// Says that a new inode may appear under this name, where there is none now.
    pub(crate) fn intend(&self, parent: &InodeId, name: &[u8]) -> Option<IntentSlot> {
        self.0.journal.intend(parent, name)
    }

    /// Gives a promise back and takes changes in.
    pub(crate) fn apply(&self, back: &Charges, changes: &[Change], ended: &Ended) {
        self.0.apply(back, changes, ended);
    }

    /// Whether both are handles to one engine.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Inner {
    /// Promises amounts, or refuses, after a look at limits and timers.
    fn promise_by_rules(&self, charges: &Charges, levels: Levels) -> Result<(), Denied> {
        let now = self.now();
        let mut news = News::default();
        let mut ledger = self.ledger.close();
        let loaded = charges.iter().try_for_each(|(subject, _)| {
            self.load(&mut ledger, subject, now, &mut news)
                .map_err(|_| ledger::unavailable(subject))
        });
        let verdict = loaded.and_then(|()| ledger.promise(charges, levels, now));
        drop(ledger);
        self.tell(&news);
        verdict
    }

    /// Gives a promise back and takes changes in.
    fn apply(&self, back: &Charges, changes: &[Change], ended: &Ended) {
        let moves = Moves::of(back, changes);
        let mut intent = ended.intent;
        // In one step with the totals: a commit is before both or after both.
        let mut announce = || {
            if !changes.is_empty() && self.journal.settle(changes, intent) {
                intent = None;
            }
        };
        if !self.ledger.apply_at_once(&moves, &mut announce) {
            self.apply_by_rules(&moves, announce);
        }
        self.journal.end(&ended.touched, intent);
    }

    fn apply_by_rules(&self, moves: &Moves, announce: impl FnOnce()) {
        let now = self.now();
        let mut news = News::default();
        let mut ledger = self.ledger.close();
        announce();
        for (subject, _) in moves.iter() {
            // What happened to an account that cannot be read is kept until it can.
            let _ = self.load(&mut ledger, subject, now, &mut news);
        }
        ledger.apply(moves, now, &mut news);
        drop(ledger);
        self.tell(&news);
    }

    fn now(&self) -> Timestamp {
        self.environment.clock.now()
    }

    /// Speaks of what a step brought. Call it without any lock of the ledger.
    fn tell(&self, news: &News) {
        for event in &news.events {
            self.environment.events.event(event);
        }
        for (subject, resource) in &news.broken {
            // One edit behind the mount may bring many of them.
            if self.violations.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::error!(%subject, %resource, "total left its range, set to its bound; run a check");
            }
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

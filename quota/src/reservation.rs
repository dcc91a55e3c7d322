//! A promise of space and inodes: settles once, or is cancelled when it is dropped.
//!
//! Invariants:
//! 1. What a reservation holds is part of `reserved` of each of its accounts, until it is settled, reduced or dropped.
//! 2. Giving a promise back and taking the changes in is one step: nobody sees the room in between.
//!
//! # Source
//! Linux `fs/quota/dquot.c`: `dquot_claim_space_nodirty`, `dquot_free_reserved_space`.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::charges::{Charges, subjects};
use crate::engine::Grip;
use crate::inode::{Charged, InodeId};
use crate::journal::IntentSlot;
use crate::request::{Accounts, Change, Want};
use crate::usage::Usage;

/// A promise. Dropping it cancels it.
#[derive(Debug)]
#[must_use = "a reservation that is dropped is cancelled"]
pub struct Reservation {
    engine: Arc<Grip>,
    held: Charges,
    open: Ended,
}

/// What ends with an operation: inodes that it might change, and the name that it was to make.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) touched: SmallVec<[InodeId; 1]>,
    pub(crate) intent: Option<IntentSlot>,
}

impl Ended {
    fn is_empty(&self) -> bool {
        self.touched.is_empty() && self.intent.is_none()
    }
}

impl Reservation {
    pub(crate) fn new(
        engine: Arc<Grip>,
        held: Charges,
        touched: &[(InodeId, Option<Charged>)],
    ) -> Self {
        let touched = touched.iter().map(|(inode, _)| *inode).collect();
        let open = Ended {
            touched,
            intent: None,
        };
        Self { engine, held, open }
    }

    /// Says that a new inode may appear under this name before the promise is settled. There must be none now.
    pub fn intend(&mut self, parent: &InodeId, name: &[u8]) {
        if self.open.intent.is_none() {
            self.open.intent = self.engine.intend(parent, name);
        }
    }

    /// Gives the promise back and takes the changes in. They may be larger than what was promised: what happened
    /// happened, and the next request is the one that is refused.
    pub fn settle(mut self, changes: &[Change]) {
        self.engine.apply(&self.held, changes, &self.open);
        self.forget();
    }

    /// Takes the changes in and keeps only `keep` of the promise.
    ///
    /// What is to be kept must have been promised; where it was not, only what was promised is kept.
    pub fn settle_part(&mut self, keep: &[Want], changes: &[Change]) {
        let mut kept = Charges::default();
        for (subject, usage) in Charges::of(keep).iter() {
            let promised = self.held.get(subject);
            debug_assert_eq!(
                usage.min(promised),
                usage,
                "{subject} keeps more than was promised"
            );
            kept.add(subject, usage.min(promised));
        }
        let mut back = Charges::default();
        for (subject, promised) in self.held.iter() {
            back.add(subject, promised.saturating_sub(kept.get(subject)));
        }
        self.held = kept;
        self.engine.apply(&back, changes, &self.open);
        self.open = Ended::default();
    }

    /// Nothing is left to give back.
    fn forget(&mut self) {
        self.held.clear();
        self.open.touched.clear();
        self.open.intent = None;
    }

    /// Makes one promise out of two of the same engine.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(
            self.engine.is_same(&other.engine),
            "promises of two engines"
        );
        if !self.engine.is_same(&other.engine) {
            return;
        }
        for (subject, usage) in std::mem::take(&mut other.held).iter() {
            self.held.add(subject, usage);
        }
        self.open
            .touched
            .extend(std::mem::take(&mut other.open.touched));
    }

    /// What the VE still promises.
    pub fn reserved(&self) -> Usage {
        self.held.get(crate::Subject::Ve)
    }

    /// What all of these accounts still promise.
    pub fn reserved_of(&self, accounts: Accounts) -> Usage {
        let amounts = subjects(accounts).map(|subject| self.held.get(subject));
        amounts.reduce(Usage::min).unwrap_or_default()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.held.is_empty() || !self.open.is_empty() {
            self.engine.apply(&self.held, &[], &self.open);
        }
    }
}

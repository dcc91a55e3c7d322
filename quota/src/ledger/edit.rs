//! An administrator's order, as a change of values: of the VE's settings, and of each account it concerns.   (pure)
//!
//! The same order is applied twice: to copies that are written to the store, and, when they are durable, to the
//! accounts in force.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::charges::Move;
use crate::dquot::Dquot;
use crate::event::News;
use crate::grace::{Deadlines, DeadlinesChange, GracePeriods, Timestamp};
use crate::info::VeInfo;
use crate::limit::Limits;
use crate::scope::Scope;
use crate::store::record::AccountRecord;
use crate::subject::Subject;
use crate::tally::Tally;
use crate::usage::{Resource, Usage};

use super::rules_of;

/// One order.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    /// None: totals alone are written.
    Nothing,
    /// Limits and running deadlines of accounts.
    Accounts(BTreeMap<Subject, AccountEdit>),
    /// The grace periods of a scope.
    Grace(Scope, GracePeriods),
    /// The switch of a scope.
    Enforced(Scope, bool),
    /// The path of the private area.
    Private(PathBuf),
    /// The number of ids that is expected.
    UgidLimit(u32),
    /// What is charged to every account.
    Usage(Tally),
}

/// What becomes of one account.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AccountEdit {
    /// Its limits, if they change.
    pub(crate) limits: Option<Limits>,
    /// Its running deadlines.
    pub(crate) deadlines: DeadlinesChange,
}

impl Edit {
    /// An order on one account.
    pub(crate) fn account(subject: Subject, edit: AccountEdit) -> Self {
        Self::Accounts(BTreeMap::from([(subject, edit)]))
    }

    /// The settings after the order.
    pub(crate) fn applied_to(&self, info: &VeInfo) -> VeInfo {
        let mut info = info.clone();
        match self {
            Self::Grace(scope, periods) => info.grace.set(*scope, *periods),
            Self::Enforced(scope, on) => info.enforced.set(*scope, *on),
            Self::Private(path) => info.private.clone_from(path),
            Self::UgidLimit(limit) => info.ugid_limit = *limit,
            Self::Nothing | Self::Accounts(_) | Self::Usage(_) => {}
        }
        info
    }

    /// Whether an account in memory may change.
    pub(super) fn concerns(&self, subject: Subject) -> bool {
        match self {
            Self::Nothing | Self::Private(_) | Self::UgidLimit(_) => false,
            Self::Accounts(accounts) => accounts.contains_key(&subject),
            Self::Grace(scope, _) | Self::Enforced(scope, _) => *scope == Scope::of(subject),
            Self::Usage(_) => true,
        }
    }

    /// Whether it names accounts and what becomes of their limits or deadlines.
    pub(super) const fn is_of_limits(&self) -> bool {
        matches!(self, Self::Accounts(_))
    }

    /// Whether accounts are concerned that the order does not name.
    pub(crate) fn is_sweeping(&self) -> bool {
        matches!(self, Self::Grace(..) | Self::Enforced(..) | Self::Usage(_))
    }

    /// Whether an account that is only in the store would change, and so has to be in memory first.
    pub(crate) fn needs(&self, subject: Subject, stored: &AccountRecord) -> bool {
        if !self.concerns(subject) {
            return false;
        }
        match self {
            Self::Grace(..) => stored.deadlines != Deadlines::NONE,
            Self::Enforced(_, on) => *on && starts_a_timer(stored),
            Self::Usage(tally) => stored.usage != tally.usage(subject),
            _ => true,
        }
    }

    /// Changes one account it concerns. `old` are the settings before the order, `new` those after it; `known` is what was
    /// charged when the order was given: charges that came since are kept.
    pub(super) fn amend(
        &self,
        dquot: &mut Dquot,
        (old, new): (&VeInfo, &VeInfo),
        known: Usage,
        now: Timestamp,
        news: &mut News,
    ) {
        let subject = dquot.account().subject;
        let rules = rules_of(new, subject, now);
        match self {
            Self::Accounts(accounts) => {
                let Some(edit) = accounts.get(&subject) else {
                    return;
                };
                if let Some(limits) = edit.limits {
                    dquot.set_limits(limits, rules);
                }
                // Limits start the timers that deadlines move.
                dquot.set_deadlines(edit.deadlines);
            }
            Self::Grace(scope, _) => {
                dquot.move_deadlines(old.grace.get(*scope), new.grace.get(*scope));
            }
            Self::Enforced(..) => {
                dquot.follow(rules);
            }
            Self::Usage(tally) => {
                let counted = tally.usage(subject);
                if counted != known {
                    let correction = Move {
                        minus: known,
                        plus: counted,
                        ..Move::default()
                    };
                    dquot.apply(correction, rules, news);
                }
            }
            Self::Nothing | Self::Private(_) | Self::UgidLimit(_) => {}
        }
    }
}

/// Whether a soft limit is passed and no timer runs for it.
fn starts_a_timer(stored: &AccountRecord) -> bool {
    Resource::ALL.into_iter().any(|resource| {
        let soft = stored.limits.get(resource).soft;
        stored.deadlines.get(resource).is_none()
            && soft.is_some_and(|soft| stored.usage.get(resource) > soft)
    })
}

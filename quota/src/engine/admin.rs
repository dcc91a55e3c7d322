//! Administrative verbs: each is checked, made durable, and put in force, in this order.
//!
//! One at a time, under `admin`; so what a verb was checked against is still so when it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::account::Account;
use crate::error::{Changed, EngineError};
use crate::grace::{DeadlinesChange, GracePeriod, GracePeriods, Timestamp};
use crate::ledger::{AccountEdit, Edit};
use crate::limit::{Limit, Limits, LimitsChange};
use crate::scope::Scope;
use crate::store::copy::AccountCopy;
use crate::store::record::key;
use crate::subject::{QuotaType, Subject};
use crate::tally::Tally;
use crate::usage::Resource;

use super::{Engine, records};

impl Engine {
    /// Changes an account's limits. Limits below usage are accepted: nothing is deleted, nothing more is granted.
    /// The timers follow the new limits at once.
    ///
    /// # Errors
    /// [`EngineError::SoftAboveHard`] on the first level; the second level accepts any pair, as Linux does. The store's.
    pub fn set_limits(
        &self,
        subject: Subject,
        change: &LimitsChange,
    ) -> Result<Changed, EngineError> {
        self.administer(|| {
            let old = self.account(subject)?.limits;
            let new = change.applied_to(old);
            if subject == Subject::Ve {
                check_first_level(&new)?;
            }
            let edit = AccountEdit {
                limits: Some(new),
                ..AccountEdit::default()
            };
            Ok((new != old).then(|| Edit::account(subject, edit)))
        })
    }

    /// Gives accounts exactly these limits, and moves their running timers to the deadlines that are given, as
    /// [`Engine::set_limits`] and [`Engine::set_deadlines`] do one by one: all of them in one commit, or none.
    ///
    /// # Errors
    /// As [`Engine::set_limits`].
    pub fn set_accounts(&self, accounts: &[AccountCopy]) -> Result<Changed, EngineError> {
        self.administer(|| {
            let mut edits = BTreeMap::new();
            for &AccountCopy {
                subject,
                limits,
                deadlines,
            } in accounts
            {
                if subject == Subject::Ve {
                    check_first_level(&limits)?;
                }
                let old = self.account(subject)?;
                let edit = AccountEdit {
                    limits: (limits != old.limits).then_some(limits),
                    deadlines: DeadlinesChange {
                        space: deadlines.space.map(Some),
                        inodes: deadlines.inodes.map(Some),
                    },
                };
                let new = Account { limits, ..old };
                if edit.limits.is_some() || moves_a_timer(&new, edit.deadlines) {
                    edits.insert(subject, edit);
                }
            }
            Ok((!edits.is_empty()).then_some(Edit::Accounts(edits)))
        })
    }

    /// Moves or stops running timers; the outer `None` leaves one as it is. Where usage is not above the soft limit there is
    /// no timer, and nothing changes. One that is stopped above it starts anew with the next request.
    ///
    /// # Errors
    /// The store's.
    pub fn set_deadlines(
        &self,
        subject: Subject,
        space: Option<Option<Timestamp>>,
        inodes: Option<Option<Timestamp>>,
    ) -> Result<Changed, EngineError> {
        self.administer(|| {
            let account = self.account(subject)?;
            let change = DeadlinesChange { space, inodes };
            let edit = AccountEdit {
                deadlines: change,
                ..AccountEdit::default()
            };
            Ok(moves_a_timer(&account, change).then(|| Edit::account(subject, edit)))
        })
    }

    /// Changes the grace periods of the VE, of all users, or of all groups. A running deadline moves: its timer is taken to
    /// have started one old period before it, and gets the new period from there.
    ///
    /// # Errors
    /// The store's.
    pub fn set_grace_periods(
        &self,
        scope: Scope,
        space: Option<GracePeriod>,
        inodes: Option<GracePeriod>,
    ) -> Result<Changed, EngineError> {
        self.administer(|| {
            let old = self.info().grace_periods(scope);
            let new = GracePeriods {
                space: space.unwrap_or(old.space),
                inodes: inodes.unwrap_or(old.inodes),
            };
            Ok((new != old).then_some(Edit::Grace(scope, new)))
        })
    }

    /// Switches enforcement. Usage is counted and limits are kept in any case; timers of accounts above a soft limit are
    /// started when it is switched on.
    ///
    /// # Errors
    /// The store's.
    pub fn set_enforced(&self, scope: Scope, on: bool) -> Result<Changed, EngineError> {
        self.administer(|| {
            let differs = self.info().is_enforced(scope) != on;
            Ok(differs.then_some(Edit::Enforced(scope, on)))
        })
    }

    /// Stores another path of the private area.
    ///
    /// # Errors
    /// [`EngineError::PrivateNotUtf8`], the store's.
    pub fn set_private(&self, path: &Path) -> Result<Changed, EngineError> {
        self.administer(|| {
            records::private_text(path)?;
            let differs = self.info().private != path;
            Ok(differs.then(|| Edit::Private(path.to_path_buf())))
        })
    }

    /// Stores the number of user and group ids that the administrator expects.
    ///
    /// # Errors
    /// The store's.
    pub fn set_ugid_limit(&self, limit: u32) -> Result<Changed, EngineError> {
        self.administer(|| {
            let differs = self.info().ugid_limit != limit;
            Ok(differs.then_some(Edit::UgidLimit(limit)))
        })
    }

    /// Replaces all usage by a recount; limits and refusals stay, a peak is raised where the recount is above it.
    ///
    /// The recount is taken to be of the moment of the call: what is charged from then on comes on top.
    ///
    /// # Errors
    /// The store's.
    pub fn replace_usage(&self, tally: &Tally) -> Result<Changed, EngineError> {
        self.administer(|| {
            let differs = !self.tally_now()?.differences(tally).is_empty();
            Ok(differs.then(|| Edit::Usage(tally.clone())))
        })
    }

    /// Carries out what `order` decides on, if anything.
    fn administer(
        &self,
        order: impl FnOnce() -> Result<Option<Edit>, EngineError>,
    ) -> Result<Changed, EngineError> {
        let mut admin = self.inner.admin.lock();
        let Some(edit) = order()? else {
            return Ok(Changed::No);
        };
        self.load_concerned(&edit)?;
        let change = self.write(&mut admin, &edit, self.now())?;
        self.keep_copy(&change);
        Ok(Changed::Yes)
    }

    /// Brings in the accounts that the order changes.
    fn load_concerned(&self, edit: &Edit) -> Result<(), EngineError> {
        let mut concerned = BTreeSet::new();
        match edit {
            Edit::Accounts(accounts) => concerned.extend(accounts.keys()),
            Edit::Usage(tally) => concerned.extend(tally.subjects()),
            _ => {}
        }
        let sweeping = QuotaType::ALL.into_iter().filter(|_| edit.is_sweeping());
        for kind in sweeping {
            let start = key::account(kind.subject(0));
            records::scan(
                &*self.inner.store,
                key::prefix(kind),
                start,
                &mut |subject, record| {
                    if edit.needs(subject, &record) {
                        concerned.insert(subject);
                    } else {
                        concerned.remove(&subject);
                    }
                    true
                },
            )?;
        }
        // One at a time: the ledger is not held over many reads.
        concerned
            .into_iter()
            .try_for_each(|subject| self.bring_in([subject]))
    }
}

/// Whether one of these deadlines is another one, and of a timer that runs.
fn moves_a_timer(account: &Account, change: DeadlinesChange) -> bool {
    let new = change.applied_to(account.deadlines);
    let held = account.usage.saturating_add(account.reserved);
    Resource::ALL.into_iter().any(|resource| {
        let soft = account.limits.get(resource).soft;
        let over = soft.is_some_and(|soft| held.get(resource) > soft);
        over && account.deadlines.get(resource) != new.get(resource)
    })
}

/// The first level demands soft <= hard.
///
/// # Source
/// OpenVZ kernel `fs/quota/vzdquota/vzdq_mgmt.c`: `EINVAL` otherwise.
pub(super) fn check_first_level(limits: &Limits) -> Result<(), EngineError> {
    for resource in Resource::ALL {
        let limit = limits.get(resource);
        if let Limit {
            soft: Some(soft),
            hard: Some(hard),
        } = limit
            && !limit.is_ordered()
        {
            return Err(EngineError::SoftAboveHard {
                resource,
                soft,
                hard,
            });
        }
    }
    Ok(())
}

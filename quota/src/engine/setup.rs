//! The first record of a VE.

use std::path::PathBuf;
use std::sync::Arc;

use crate::dquot::{Dquot, Rules};
use crate::error::EngineError;
use crate::grace::GracePeriods;
use crate::info::VeInfo;
use crate::journal::Epoch;
use crate::limit::Limits;
use crate::scope::{PerScope, Scope};
use crate::store::copy::AccountCopy;
use crate::store::record::{self, AccountRecord, key};
use crate::store::{Batch, CopyChange, Store};
use crate::subject::{Subject, VeId};
use crate::tally::Tally;

use super::{Engine, Environment, admin, records};

/// What a new record starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Whose record.
    pub ve: VeId,
    /// The private area.
    pub private: PathBuf,
    /// The VE's limits.
    pub limits: Limits,
    /// Grace periods; a week each unless given.
    pub grace: PerScope<GracePeriods>,
    /// Whether limits are enforced.
    pub enforced: PerScope<bool>,
    /// The number of user and group ids that the administrator expects.
    pub ugid_limit: u32,
    /// What the private area holds already.
    pub usage: Tally,
}

impl Setup {
    /// An empty private area without limits, everything enforced.
    pub fn new(ve: VeId, private: impl Into<PathBuf>) -> Self {
        Self {
            ve,
            private: private.into(),
            limits: Limits::UNLIMITED,
            grace: PerScope::default(),
            enforced: PerScope::all(true),
            ugid_limit: VeInfo::ANY_UGIDS,
            usage: Tally::default(),
        }
    }
}

impl Engine {
    /// Writes the first record of a VE and opens it; durable when it returns.
    ///
    /// # Errors
    /// [`EngineError::RecordExists`], [`EngineError::SoftAboveHard`], [`EngineError::PrivateNotUtf8`], or the store's.
    pub fn create(
        store: Arc<dyn Store>,
        environment: Environment,
        setup: Setup,
    ) -> Result<Self, EngineError> {
        admin::check_first_level(&setup.limits)?;
        if records::info(&*store)?.is_some() {
            return Err(EngineError::RecordExists);
        }
        let now = environment.clock.now();
        let info = VeInfo {
            ve: setup.ve,
            private: setup.private,
            grace: setup.grace,
            enforced: setup.enforced,
            ugid_limit: setup.ugid_limit,
            created: now,
        };
        let mut batch = Batch::new();
        let info_key = key::info();
        let first = Epoch::default().next();
        let mut change = CopyChange {
            info: records::info_record(&info, first)?,
            accounts: Vec::new(),
        };
        let info_value = record::encode(&info_key, &change.info);
        batch.put(info_key, info_value);
        for subject in setup.usage.subjects() {
            let usage = setup.usage.usage(subject);
            if usage.is_zero() && subject != Subject::Ve {
                continue;
            }
            let limits = if subject == Subject::Ve {
                setup.limits
            } else {
                Limits::UNLIMITED
            };
            let record = AccountRecord {
                usage,
                peak: usage,
                limits,
                ..AccountRecord::default()
            };
            let mut dquot = Dquot::new(subject, &record);
            let scope = Scope::of(subject);
            let (enforced, grace) = (info.enforced.get(scope), info.grace.get(scope));
            dquot.follow(Rules {
                enforced,
                grace,
                now,
            });
            let account = AccountCopy::new(subject, &dquot.record());
            change
                .accounts
                .extend(Some(account).filter(AccountCopy::is_worth_keeping));
            let key = key::account(subject);
            let value = record::encode(&key, &dquot.record());
            batch.put(key, value);
        }
        store.commit(&batch)?;
        let engine = Self::open(store, environment)?;
        engine.keep_copy(&change);
        Ok(engine)
    }
}

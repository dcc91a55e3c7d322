//! Between the engine's values and the store's bytes.

use std::path::{Path, PathBuf};

use crate::dquot::Dquot;
use crate::error::EngineError;
use crate::event::News;
use crate::grace::Timestamp;
use crate::info::VeInfo;
use crate::journal::Epoch;
use crate::ledger::Closed;
use crate::standing::Standing;
use crate::store::record::{self, AccountRecord, InfoRecord, key};
use crate::store::{Store, StoreError};
use crate::subject::Subject;

use super::{Engine, Inner};

/// The record of the VE as a whole, with the number of the last commit; `None` in an empty store.
pub(super) fn info(store: &dyn Store) -> Result<Option<(VeInfo, Epoch)>, StoreError> {
    let key = key::info();
    let Some(value) = store.get(&key)? else {
        return Ok(None);
    };
    let record: InfoRecord = record::decode(&key, &value).map_err(|error| error.at(&key))?;
    let info = VeInfo {
        ve: record.ve,
        private: PathBuf::from(record.private),
        grace: record.grace.into(),
        enforced: record.enforced.into(),
        ugid_limit: record.ugid_limit,
        created: record.created,
    };
    Ok(Some((info, Epoch::new(record.epoch))))
}

/// Whether the stored totals are the last word.
pub(super) fn standing(store: &dyn Store) -> Result<Standing, StoreError> {
    let key = key::standing();
    let Some(value) = store.get(&key)? else {
        return Ok(Standing::Final);
    };
    record::decode(&key, &value).map_err(|error| error.at(&key))
}

/// The stored form of the VE as a whole.
pub(super) fn info_record(info: &VeInfo, epoch: Epoch) -> Result<InfoRecord, EngineError> {
    Ok(InfoRecord {
        ve: info.ve,
        private: private_text(&info.private)?.to_owned(),
        grace: info.grace.into(),
        enforced: info.enforced.into(),
        ugid_limit: info.ugid_limit,
        epoch: epoch.get(),
        created: info.created,
    })
}

/// The path of the private area as it is stored.
pub(super) fn private_text(path: &Path) -> Result<&str, EngineError> {
    path.to_str()
        .ok_or_else(|| EngineError::PrivateNotUtf8(path.to_path_buf()))
}

/// One account as the store has it; `None` where it has none.
pub(super) fn account(
    store: &dyn Store,
    subject: Subject,
) -> Result<Option<AccountRecord>, StoreError> {
    let key = key::account(subject);
    let Some(value) = store.get(&key)? else {
        return Ok(None);
    };
    record::decode(&key, &value)
        .map(Some)
        .map_err(|error| error.at(&key))
}

/// Fails where an account that every record has is missing.
pub(super) fn require(store: &dyn Store, subject: Subject) -> Result<(), StoreError> {
    let missing = || StoreError::damaged_key("account is missing", &key::account(subject));
    account(store, subject)?.map(drop).ok_or_else(missing)
}

/// All accounts of the store whose key starts with this, from a key on, by pages.
pub(super) fn scan(
    store: &dyn Store,
    prefix: &[u8],
    mut from: Vec<u8>,
    each: &mut dyn FnMut(Subject, AccountRecord) -> bool,
) -> Result<(), StoreError> {
    const PAGE: usize = 256;
    loop {
        let page = store.scan(prefix, &from, PAGE)?;
        for (key, value) in &page {
            let Some(subject) = key::subject(key) else {
                continue;
            };
            let record = record::decode(key, value).map_err(|error| error.at(key))?;
            if !each(subject, record) {
                return Ok(());
            }
        }
        // The first possible key after the last of this page.
        match page.last() {
            Some((last, _)) if page.len() == PAGE => {
                from.clone_from(last);
                from.push(0);
            }
            _ => return Ok(()),
        }
    }
}

impl Engine {
    /// Brings accounts into memory.
    pub(super) fn bring_in(
        &self,
        subjects: impl IntoIterator<Item = Subject>,
    ) -> Result<(), EngineError> {
        let now = self.inner.now();
        let mut news = News::default();
        let mut ledger = self.inner.ledger.close();
        let loaded = subjects
            .into_iter()
            .try_for_each(|subject| self.inner.load(&mut ledger, subject, now, &mut news));
        drop(ledger);
        self.inner.tell(&news);
        Ok(loaded?)
    }
}

impl Inner {
    /// Brings an account into memory.
    pub(super) fn load(
        &self,
        ledger: &mut Closed<'_>,
        subject: Subject,
        now: Timestamp,
        news: &mut News,
    ) -> Result<(), StoreError> {
        if ledger.has(subject) {
            return Ok(());
        }
        let record = self.read(subject)?;
        ledger.insert(subject, &record, now, news);
        Ok(())
    }

    /// An account, without bringing it into memory.
    pub(super) fn peek(&self, ledger: &Closed<'_>, subject: Subject) -> Result<Dquot, StoreError> {
        match ledger.get(subject) {
            Some(dquot) => Ok(dquot),
            None => Ok(Dquot::new(subject, &self.read(subject)?)),
        }
    }

    /// Reads an account; a broken store is reported once, not with every request.
    fn read(&self, subject: Subject) -> Result<AccountRecord, StoreError> {
        let read = account(&*self.store, subject);
        let unreadable = read.is_err();
        if self
            .unreadable
            .swap(unreadable, std::sync::atomic::Ordering::Relaxed)
            != unreadable
            && let Err(error) = &read
        {
            tracing::error!(%subject, %error, "accounts cannot be read: requests on them are refused");
        }
        Ok(read?.unwrap_or_default())
    }
}

//! Writing totals and orders: one atomic batch, outside the ledger's lock.
//!
//! Crash cases:
//! 1. Before the batch is durable: the store has the last commit, the order never came into force.
//! 2. After it, before the order is in force here: the store has it, and the next start finds it. Nobody was told.
//! 3. The store failed: it has either. Here nothing changed; the accounts and the settings are written again by the
//!    next commit, under a number of its own.

use crate::error::EngineError;
use crate::grace::Timestamp;
use crate::journal::Epoch;
use crate::ledger::{Edit, Item, Snapshot};
use crate::standing::Standing;
use crate::store::record::{self, key};
use crate::store::{Batch, CopyChange};

use super::{Engine, records};

/// How many accounts stay in memory over a commit, unless more are in use.
const ACCOUNTS_IN_MEMORY: usize = 16_384;

impl Engine {
    /// Writes what changed since the last commit; durable when it returns. Writes nothing where nothing changed.
    ///
    /// # Errors
    /// The store's; the changes are kept, and the next commit writes them.
    pub fn commit(&self) -> Result<(), EngineError> {
        let mut admin = self.inner.admin.lock();
        if !self.is_dirty() {
            self.inner.ledger.shrink_to(ACCOUNTS_IN_MEMORY);
            return Ok(());
        }
        self.write(&mut admin, &Edit::Nothing, self.now()).map(drop)
    }

    /// Whether anything changed since the last commit.
    pub fn is_dirty(&self) -> bool {
        self.inner.ledger.is_changed()
    }

    /// The number of the last commit that was tried.
    pub fn epoch(&self) -> Epoch {
        *self.inner.admin.lock()
    }

    /// Writes all changes and this order in one batch, then puts the order in force. Returns what the copy of limits is
    /// to know of it.
    pub(super) fn write(
        &self,
        admin: &mut Epoch,
        edit: &Edit,
        now: Timestamp,
    ) -> Result<CopyChange, EngineError> {
        self.settle_debts()?;
        // A number is never used twice: a commit that failed may be durable all the same.
        *admin = admin.next();
        let epoch = *admin;
        let ledger = &self.inner.ledger;
        let cut = {
            let mut closed = ledger.close();
            self.inner.journal.rotate(epoch);
            closed.cut(edit, now)
        };
        self.inner.journal.carry();
        let snapshot = ledger.collect(cut);
        let standing = self.next_standing(edit, epoch);
        let written = batch(&snapshot, epoch, standing).and_then(|batch| {
            self.inner.store.commit(&batch)?;
            Ok(CopyChange {
                info: records::info_record(&snapshot.info, epoch)?,
                accounts: snapshot.copied(edit),
            })
        });
        let change = match written {
            Ok(change) => change,
            Err(error) => {
                ledger.restore(&snapshot);
                return Err(error);
            }
        };
        let news = ledger.confirm(snapshot, edit, now);
        ledger.shrink_to(ACCOUNTS_IN_MEMORY);
        *self.inner.standing.lock() = standing;
        self.inner.journal.committed(epoch);
        self.tell(&news);
        Ok(change)
    }

    /// Brings the readable copy of limits up to date. The order itself is durable already, so a failure is only reported.
    pub(super) fn keep_copy(&self, change: &CopyChange) {
        if let Err(error) = self.inner.store.keep_copy(change) {
            tracing::warn!(%error, "the readable copy of the limits is out of date");
        }
    }
}

fn batch(snapshot: &Snapshot, epoch: Epoch, standing: Standing) -> Result<Batch, EngineError> {
    let mut batch = Batch::new();
    let info_key = key::info();
    let info = record::encode(&info_key, &records::info_record(&snapshot.info, epoch)?);
    batch.put(info_key, info);
    put_standing(&mut batch, standing);
    for item in &snapshot.items {
        put(&mut batch, item);
    }
    Ok(batch)
}

fn put_standing(batch: &mut Batch, standing: Standing) {
    let key = key::standing();
    match standing {
        Standing::Final => batch.remove(key),
        other => {
            let value = record::encode(&key, &other);
            batch.put(key, value);
        }
    }
}

fn put(batch: &mut Batch, item: &Item) {
    let key = key::account(item.subject());
    match item.stored() {
        Some(account) => {
            let value = record::encode(&key, account);
            batch.put(key, value);
        }
        None => batch.remove(key),
    }
}

//! A VE in service: the store knows that totals may be missing something, until the last commit.
//!
//! The crash cases:
//! 1. Before the first commit of a mount is durable: the store names the journal of the mount before, if any.
//! 2. From then on: it names the journal of this mount, and with each commit the epoch from which its records count.
//! 3. After [`Engine::end_service`]: the totals are final, and any journal is void.
//!
//! A loss is not made good by counting: after [`Engine::private_area_has_lost`] totals stay unknown as long as the service lasts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::EngineError;
use crate::inode::{Charged, InodeId};
use crate::journal::{Epoch, Journal};
use crate::ledger::Edit;
use crate::standing::Standing;

use super::Engine;

/// An inode that may change by itself, or by an operation that cannot be refused, as long as this is kept.
#[derive(Debug)]
#[must_use = "the inode is watched only while this is kept"]
pub struct Watch {
    journal: Arc<dyn Journal>,
    inode: InodeId,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.journal.end(&[self.inode], None);
    }
}

impl std::fmt::Debug for dyn Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}

impl Engine {
    /// How far the stored totals can be trusted.
    pub fn standing(&self) -> Standing {
        *self.inner.standing.lock()
    }

    /// Puts the VE into service under the journal of this number; durable when it returns. With `unknown` the totals
    /// are to be counted anew, until [`Engine::totals_are_known`].
    ///
    /// # Errors
    /// The store's.
    pub fn begin_service(&self, session: u64, unknown: bool) -> Result<(), EngineError> {
        let mut admin = self.inner.admin.lock();
        self.inner.in_service.store(true, Ordering::Release);
        let epoch = *admin;
        let standing = match unknown {
            true => Standing::Unknown { session },
            false => Standing::Journaled { session, epoch },
        };
        self.write_standing(&mut admin, standing)
    }

    /// The totals were counted anew; from now on the journal says what they miss. After a loss they stay unknown.
    ///
    /// # Errors
    /// The store's.
    pub fn totals_are_known(&self) -> Result<(), EngineError> {
        let mut admin = self.inner.admin.lock();
        let Standing::Unknown { session } = self.standing() else {
            return Ok(());
        };
        let epoch = *admin;
        self.write_standing(&mut admin, Standing::Journaled { session, epoch })
    }

    /// The totals may be wrong, because what lies below lost something that they hold or was changed uncounted: the next
    /// start of service is to count them anew, whatever the end of this one.
    ///
    /// # Errors
    /// The store's; where it lies on what failed, the journal says the same.
    pub fn totals_are_doubtful(&self) -> Result<(), EngineError> {
        let mut admin = self.inner.admin.lock();
        self.doubt(&mut admin)
    }

    /// What lies below may have lost what the totals hold, now or when it is next read from the disk: they are doubtful, and
    /// no recount of this service changes that.
    ///
    /// # Errors
    /// As [`Engine::totals_are_doubtful`]; the next commit that succeeds says the same.
    pub fn private_area_has_lost(&self) -> Result<(), EngineError> {
        let mut admin = self.inner.admin.lock();
        self.inner.lost.store(true, Ordering::Release);
        self.doubt(&mut admin)
    }

    fn doubt(&self, admin: &mut Epoch) -> Result<(), EngineError> {
        self.inner.journal.distrust();
        let session = match self.standing() {
            Standing::Unknown { .. } if self.inner.in_service.load(Ordering::Acquire) => {
                return Ok(());
            }
            // What a recount has seen counts no more, either.
            Standing::Unknown { .. } => 0,
            Standing::Journaled { session, .. } => session,
            // No mount is in service, so there is no journal.
            Standing::Final => 0,
        };
        self.write_standing(admin, Standing::Unknown { session })
    }

    /// Whether [`Engine::private_area_has_lost`] was told of this service.
    pub fn has_lost(&self) -> bool {
        self.inner.lost.load(Ordering::Acquire)
    }

    /// The last commit: the VE is out of service and its totals are final. Totals that are still to be counted stay so.
    ///
    /// # Errors
    /// The store's; a commit can be tried again.
    pub fn end_service(&self) -> Result<(), EngineError> {
        if !self.inner.in_service.load(Ordering::Acquire) {
            return self.commit();
        }
        let mut admin = self.inner.admin.lock();
        let standing = match self.standing() {
            unknown @ Standing::Unknown { .. } => unknown,
            Standing::Journaled { session, .. } if self.has_lost() => Standing::Unknown { session },
            _ => Standing::Final,
        };
        self.write_standing(&mut admin, standing)
    }

    fn write_standing(&self, admin: &mut Epoch, standing: Standing) -> Result<(), EngineError> {
        let before = std::mem::replace(&mut *self.inner.standing.lock(), standing);
        self.write(admin, &Edit::Nothing, self.now())
            .map(drop)
            .inspect_err(|_| {
                *self.inner.standing.lock() = before;
            })
    }

    /// The standing that a commit writes.
    pub(super) fn next_standing(&self, edit: &Edit, epoch: Epoch) -> Standing {
        let in_service = self.inner.in_service.load(Ordering::Acquire);
        match self.standing() {
            // The store could not be told before, or a recount has ended.
            Standing::Journaled { session, .. } if in_service && self.has_lost() => {
                Standing::Unknown { session }
            }
            Standing::Journaled { session, .. } if in_service => {
                Standing::Journaled { session, epoch }
            }
            // Counted while it is not in service: nothing can be missing.
            _ if !in_service && matches!(edit, Edit::Usage(_)) => Standing::Final,
            present => present,
        }
    }

    /// Says that an inode may change from now on, and what the totals hold for it. Cannot be refused.
    pub fn watch(&self, inode: InodeId, charged: Option<Charged>) -> Watch {
        let journal = self.inner.journal.clone();
        journal.begin(&[(inode, charged)]);
        Watch { journal, inode }
    }

    /// A recount that is going to replace the totals found an inode that occupies something else than they hold.
    pub fn restate(&self, inode: InodeId, charged: Charged) {
        self.inner.journal.restate(&inode, Some(charged));
    }

    /// Whether what the totals miss after a kill would be known.
    pub fn journal_is_sound(&self) -> bool {
        self.inner.journal.is_sound()
    }

    /// Whether so much was touched since the last commit that another one is due.
    pub fn wants_commit(&self) -> bool {
        self.inner.journal.wants_commit()
    }
}

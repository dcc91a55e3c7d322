//! What the record says of a VE as a whole, beside its accounts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::grace::{GracePeriods, Timestamp};
use crate::scope::{PerScope, Scope};
use crate::subject::VeId;

/// The record of a VE as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VeInfo {
    /// Whose record.
    pub ve: VeId,
    /// The private area, as the administrator gave it.
    pub private: PathBuf,
    /// How long soft limits may be passed.
    pub grace: PerScope<GracePeriods>,
    /// Whether limits are enforced; usage is counted in any case.
    pub enforced: PerScope<bool>,
    /// The number of user and group ids that the administrator expects, as OpenVZ's quotaugidlimit: nobody is refused for
    /// it, but 0 says that the VE has no second level from its next start on.
    pub ugid_limit: u32,
    /// When the record was made.
    pub created: Timestamp,
}

impl VeInfo {
    /// The `ugid_limit` of a VE for which none was given.
    pub const ANY_UGIDS: u32 = u32::MAX;

    /// Whether the VE is to have a second level that can be switched on.
    pub const fn offers_second_level(&self) -> bool {
        self.ugid_limit != 0
    }

    /// The grace periods of one scope.
    pub const fn grace_periods(&self, scope: Scope) -> GracePeriods {
        self.grace.get(scope)
    }

    /// Whether the limits of one scope are enforced.
    pub const fn is_enforced(&self, scope: Scope) -> bool {
        self.enforced.get(scope)
    }
}

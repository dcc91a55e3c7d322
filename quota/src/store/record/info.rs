//! The record of the VE's settings.

use crate::grace::{GracePeriod, GracePeriods, Timestamp};
use crate::subject::VeId;

use super::{Reader, Record, RecordError, Writer};

/// What is stored of the VE besides its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoRecord {
    /// Whose store it is.
    pub ve: VeId,
    /// The private area, as `vzquota init` was given it.
    pub private: String,
    /// Grace periods of the VE, of users, of groups.
    pub grace: [GracePeriods; 3],
    /// Whether limits of the VE, of users, of groups are enforced.
    pub enforced: [bool; 3],
    /// How many user and group ids the administrator expects; kept, not enforced.
    pub ugid_limit: u32,
    /// Grows with each commit; joins the totals and the journal.
    pub epoch: u64,
    /// When the record was first written.
    pub created: Timestamp,
}

/// Payload of the info record.
/// ```text
///  0  ve u32 |  4  ugid_limit u32 |  8  epoch u64 | 16  created i64
/// 24  grace: VE space, VE inodes, users space, users inodes, groups space, groups inodes, 6 x u64
/// 72  enforced u8: bit 0 VE, 1 users, 2 groups
/// 73  private, UTF-8, to the end
/// ```
impl Record for InfoRecord {
    const FORMAT: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u32(self.ve.get());
        out.u32(self.ugid_limit);
        out.u64(self.epoch);
        out.i64(self.created.get());
        for periods in &self.grace {
            out.u64(periods.space.get());
            out.u64(periods.inodes.get());
        }
        let [ve, users, groups] = self.enforced.map(u8::from);
        out.u8(ve | users << 1 | groups << 2);
        out.raw(self.private.as_bytes());
    }

    fn read(_format: u8, input: &mut Reader<'_>) -> Result<Self, RecordError> {
        let ve = VeId::new(input.u32()?);
        let ugid_limit = input.u32()?;
        let epoch = input.u64()?;
        let created = Timestamp::new(input.i64()?);
        let mut periods = || -> Result<GracePeriods, RecordError> {
            let space = GracePeriod::new(input.u64()?);
            Ok(GracePeriods {
                space,
                inodes: GracePeriod::new(input.u64()?),
            })
        };
        let grace = [periods()?, periods()?, periods()?];
        let flags = input.u8()?;
        if flags >= 1 << 3 {
            return Err(RecordError::Field { field: "enforced" });
        }
        let enforced = [0, 1, 2].map(|bit| flags & (1 << bit) != 0);
        let private = String::from_utf8(input.rest().to_vec())
            .map_err(|_| RecordError::Field { field: "private" })?;
        Ok(Self {
            ve,
            private,
            grace,
            enforced,
            ugid_limit,
            epoch,
            created,
        })
    }
}

//! The record of one account.

use crate::account::Refusals;
use crate::grace::{Deadlines, Timestamp};
use crate::limit::{Limit, Limits};
use crate::units::{Bytes, Inodes};
use crate::usage::Usage;

use super::{Reader, Record, RecordError, Writer};

/// What is stored of one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountRecord {
    /// What it holds.
    pub usage: Usage,
    /// The most it ever held, per resource.
    pub peak: Usage,
    /// How often it refused, per resource.
    pub refused: Refusals,
    /// Its limits.
    pub limits: Limits,
    /// Its running deadlines.
    pub deadlines: Deadlines,
}

/// Payload of an account; a limit or deadline whose flag is clear is absent and stored as zero.
/// ```text
///  0  usage.space     u64 |  8  usage.inodes    u64
/// 16  peak.space      u64 | 24  peak.inodes     u64
/// 32  refused.space   u64 | 40  refused.inodes  u64
/// 48  flags u8: bit 0 space soft, 1 space hard, 2 inodes soft, 3 inodes hard, 4 deadline space, 5 inodes
/// 49  space soft      u64 | 57  space hard      u64
/// 65  inodes soft     u64 | 73  inodes hard     u64
/// 81  deadline space  i64 | 89  deadline inodes i64      97 in all
/// ```
impl Record for AccountRecord {
    const FORMAT: u8 = 1;

    fn write(&self, out: &mut Writer) {
        put_usage(out, self.usage);
        put_usage(out, self.peak);
        out.u64(self.refused.space);
        out.u64(self.refused.inodes);
        let limits = [
            self.limits.space.soft.map(Bytes::get),
            self.limits.space.hard.map(Bytes::get),
            self.limits.inodes.soft.map(Inodes::get),
            self.limits.inodes.hard.map(Inodes::get),
        ];
        let deadlines = [self.deadlines.space, self.deadlines.inodes];
        let present = limits
            .iter()
            .map(Option::is_some)
            .chain(deadlines.iter().map(Option::is_some));
        out.u8(present
            .enumerate()
            .fold(0, |flags, (bit, set)| flags | (u8::from(set) << bit)));
        limits.iter().for_each(|limit| out.u64(limit.unwrap_or(0)));
        deadlines
            .iter()
            .for_each(|deadline| out.i64(deadline.map_or(0, Timestamp::get)));
    }

    fn read(_format: u8, input: &mut Reader<'_>) -> Result<Self, RecordError> {
        let usage = take_usage(input)?;
        let peak = take_usage(input)?;
        let refused = Refusals {
            space: input.u64()?,
            inodes: input.u64()?,
        };
        let flags = input.u8()?;
        if flags >= 1 << 6 {
            return Err(RecordError::Field { field: "flags" });
        }
        let has = |bit: u8| flags & (1 << bit) != 0;
        let mut limit = |bit| input.u64().map(|value| has(bit).then_some(value));
        let (space, inodes) = ((limit(0)?, limit(1)?), (limit(2)?, limit(3)?));
        let mut deadline = |bit| input.i64().map(|at| has(bit).then_some(Timestamp::new(at)));
        let deadlines = Deadlines {
            space: deadline(4)?,
            inodes: deadline(5)?,
        };
        let limits = Limits {
            space: Limit::new(space.0.map(Bytes::new), space.1.map(Bytes::new)),
            inodes: Limit::new(inodes.0.map(Inodes::new), inodes.1.map(Inodes::new)),
        };
        Ok(Self {
            usage,
            peak,
            refused,
            limits,
            deadlines,
        })
    }
}

fn put_usage(out: &mut Writer, usage: Usage) {
    out.u64(usage.space.get());
    out.u64(usage.inodes.get());
}

fn take_usage(input: &mut Reader<'_>) -> Result<Usage, RecordError> {
    let space = Bytes::new(input.u64()?);
    Ok(Usage::new(space, Inodes::new(input.u64()?)))
}

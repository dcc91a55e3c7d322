//! The record that says whether the totals are the last word.

use crate::journal::Epoch;
use crate::standing::Standing;

use super::{Reader, Record, RecordError, Writer};

/// Payload: state u8 (0 final, 1 journaled, 2 unknown), session u64, epoch u64. No record: final.
impl Record for Standing {
    const FORMAT: u8 = 1;

    fn write(&self, out: &mut Writer) {
        let (state, session, epoch) = match *self {
            Self::Final => (0, 0, Epoch::default()),
            Self::Journaled { session, epoch } => (1, session, epoch),
            Self::Unknown { session } => (2, session, Epoch::default()),
        };
        out.u8(state);
        out.u64(session);
        out.u64(epoch.get());
    }

    fn read(_format: u8, input: &mut Reader<'_>) -> Result<Self, RecordError> {
        let (state, session, epoch) = (input.u8()?, input.u64()?, Epoch::new(input.u64()?));
        match state {
            0 => Ok(Self::Final),
            1 => Ok(Self::Journaled { session, epoch }),
            2 => Ok(Self::Unknown { session }),
            _ => Err(RecordError::Field { field: "state" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{decode, encode, key};
    use super::*;

    #[test]
    fn a_standing_is_read_as_it_was_written() {
        let key = key::standing();
        let (session, epoch) = (u64::MAX, Epoch::new(9));
        for standing in [
            Standing::Final,
            Standing::Journaled { session, epoch },
            Standing::Unknown { session },
        ] {
            assert_eq!(
                decode::<Standing>(&key, &encode(&key, &standing)),
                Ok(standing)
            );
        }
    }
}

//! The record that names the store itself.

use crate::subject::VeId;

use super::super::{Batch, Op};
use super::{Reader, Record, RecordError, Writer, encode, key};

/// Names the store itself: written when it is made, never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaRecord {
    /// Whose store it is.
    pub ve: VeId,
}

/// The first bytes of a schema record.
const SCHEMA_MAGIC: u64 = u64::from_le_bytes(*b"simfs-db");

/// Payload of the schema record.
/// ```text
///  0  magic "simfs-db" |  8  ve u32
/// ```
impl Record for SchemaRecord {
    const FORMAT: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u64(SCHEMA_MAGIC);
        out.u32(self.ve.get());
    }

    fn read(_format: u8, input: &mut Reader<'_>) -> Result<Self, RecordError> {
        if input.u64()? != SCHEMA_MAGIC {
            return Err(RecordError::Field { field: "magic" });
        }
        Ok(Self {
            ve: VeId::new(input.u32()?),
        })
    }
}

/// The first entry of a new store.
pub(in crate::store) fn schema_batch(ve: VeId) -> Batch {
    let key = key::schema();
    let value = encode(&key, &SchemaRecord { ve });
    Batch::from_iter([Op::Put { key, value }])
}

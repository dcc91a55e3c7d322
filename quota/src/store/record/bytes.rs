//! Numbers as little-endian bytes: appended without an error, taken with one.

use super::RecordError;

/// Appends numbers to a payload.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Room for a usual record.
    pub fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(128),
        }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Eight bytes, two's complement.
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_le_bytes());
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// All that was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes numbers from the front of a payload.
#[derive(Debug)]
pub struct Reader<'a> {
    len: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start.
    pub const fn new(payload: &'a [u8]) -> Self {
        Self {
            len: payload.len(),
            rest: payload,
        }
    }

    /// One byte.
    ///
    /// # Errors
    /// [`RecordError::Length`] at the end of the payload; so for all numbers.
    pub fn u8(&mut self) -> Result<u8, RecordError> {
        self.array().map(u8::from_le_bytes)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// As [`Reader::u8`].
    pub fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// As [`Reader::u8`].
    pub fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Eight bytes, two's complement.
    ///
    /// # Errors
    /// As [`Reader::u8`].
    pub fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_le_bytes)
    }

    /// A run of bytes.
    ///
    /// # Errors
    /// As [`Reader::u8`].
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(self.too_short())?;
        self.rest = rest;
        Ok(taken)
    }

    /// All bytes that are left.
    pub const fn rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// Whether all was taken.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Checks that all was taken.
    ///
    /// # Errors
    /// [`RecordError::Length`] when bytes are left.
    pub fn finish(self) -> Result<(), RecordError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.too_short())
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (&taken, rest) = self.rest.split_first_chunk::<N>().ok_or(self.too_short())?;
        self.rest = rest;
        Ok(taken)
    }

    const fn too_short(&self) -> RecordError {
        RecordError::Length { len: self.len }
    }
}

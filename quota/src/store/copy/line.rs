//! One line of a copy: checksum, JSON.
//! ```text
//! 9f3a01c7 {"epoch":12,"subject":{"user":1000},"limits":{...},"deadlines":{...}}
//! ```
//! Eight hexadecimal digits of CRC-32 over the JSON, a space, the JSON without a line break, the end of the line.

use serde::Serialize;

/// Digits of the checksum.
const DIGITS: usize = 8;

/// The line of this value, with its end.
pub(super) fn seal(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(value)?;
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

/// The JSON in a line without its end; `None` where the checksum does not match.
pub(super) fn open(line: &[u8]) -> Option<&[u8]> {
    let (digits, rest) = line.split_at_checked(DIGITS)?;
    let json = rest.strip_prefix(b" ")?;
    let is_sound = format!("{:08x}", crc32fast::hash(json)).as_bytes() == digits;
    is_sound.then_some(json)
}

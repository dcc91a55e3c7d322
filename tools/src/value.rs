//! Numbers as people type them: sizes, counts, times, VE numbers.
//!
//! Every error names the value and what to type instead. Nothing is computed in floating point: `2.2G` is exactly
//! that, cut down to a whole KiB.

use quota::{Blocks, Bytes, GracePeriod, Inodes, VeId};
use thiserror::Error;

/// The largest VE number.
///
/// # Source
/// vzctl(8): a CT ID is at most 2147483644.
const VE_MAX: u32 = 2_147_483_644;
/// The largest size: what a file offset can hold.
const SPACE_MAX: u64 = i64::MAX.unsigned_abs();
/// More digits than any 64-bit number has; longer input is refused before it is computed with.
const DIGITS_MAX: usize = 20;

/// Why a value is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Not in the form of such a value.
    #[error("'{value}' is not {wanted}")]
    Form {
        /// As typed.
        value: String,
        /// What to type, with an example.
        wanted: &'static str,
    },
    /// Below zero.
    #[error("'{value}' is negative: give zero or more")]
    Negative {
        /// As typed.
        value: String,
    },
    /// Too large to be stored.
    #[error("'{value}' is too large: {remedy}")]
    TooLarge {
        /// As typed.
        value: String,
        /// What to type instead.
        remedy: &'static str,
    },
    /// Not zero, but zero after rounding down.
    #[error("'{value}' is less than 1 KiB, the smallest unit: give 0 or at least 1")]
    TooSmall {
        /// As typed.
        value: String,
    },
}

const SIZE: &str = "a size: give KiB as a plain number, or a number with B, K, M, G or T (10G), or \
                    'unlimited'";
const SIZE_LARGE: &str = "give at most 9007199254740991 (KiB), or 'unlimited'";
const COUNT: &str =
    "a number of inodes: give a plain number, or one with K, M or G (200K), or 'unlimited'";
const COUNT_LARGE: &str = "give at most 9223372036854775807, or 'unlimited'";
const TIME: &str = "a time: give seconds, dd:hh:mm:ss, or a number with one of h d w m y (7d)";
const TIME_LARGE: &str = "give at most 100 years (100y)";
const VE: &str = "a VE number: give 1 to 2147483644";

/// Bits of the binary suffixes.
fn suffix_bits(letter: char) -> Option<u32> {
    match letter.to_ascii_uppercase() {
        'B' => Some(0),
        'K' => Some(10),
        'M' => Some(20),
        'G' => Some(30),
        'T' => Some(40),
        _ => None,
    }
}

/// A limit of space; `None` is no limit.
///
/// # Errors
/// Signs, other suffixes, decimals without a suffix, trailing text, more than a file offset holds.
///
/// # Source
/// vzquota(8): units of 1 KiB. vzctl `src/lib/config.c`: suffixes, decimals, rounding down. Its `P` (memory pages)
/// is refused, since people mean pebibytes by it.
pub fn parse_space(value: &str) -> Result<Option<Bytes>, ValueError> {
    if is_unlimited(value) {
        return Ok(None);
    }
    let (number, bits) = split_suffix(value, 10, SIZE)?;
    let bytes = scaled(value, number, bits, SIZE, SIZE_LARGE)?;
    let whole = bytes - bytes % Blocks::SIZE;
    if whole == 0 && bytes != 0 {
        return Err(ValueError::TooSmall {
            value: value.into(),
        });
    }
    Ok(Some(Bytes::new(whole)))
}

/// A limit of inodes; `None` is no limit.
///
/// # Errors
/// As [`parse_space`].
pub fn parse_inodes(value: &str) -> Result<Option<Inodes>, ValueError> {
    if is_unlimited(value) {
        return Ok(None);
    }
    let (number, bits) = split_suffix(value, 0, COUNT)?;
    if value.ends_with(['b', 'B']) {
        return Err(form(value, COUNT));
    }
    Ok(Some(Inodes::new(scaled(
        value,
        number,
        bits,
        COUNT,
        COUNT_LARGE,
    )?)))
}

/// A grace period.
///
/// # Errors
/// Signs, unknown units, fields out of range, more than a hundred years.
///
/// # Source
/// vzquota(8): seconds, or `dd:hh:mm:ss` with fields left out on the left, or a number with a unit; m is 30 days and
/// y 365.
pub fn parse_period(value: &str) -> Result<GracePeriod, ValueError> {
    const DAY: u64 = 86_400;
    refuse_sign(value)?;
    let seconds = if value.contains(':') {
        clock_seconds(value)?
    } else {
        let unit = match value
            .chars()
            .last()
            .map(|letter| letter.to_ascii_lowercase())
        {
            Some('h') => 3600,
            Some('d') => DAY,
            Some('w') => 7 * DAY,
            Some('m') => 30 * DAY,
            Some('y') => 365 * DAY,
            _ => 1,
        };
        let number = if unit == 1 {
            value
        } else {
            value.get(..value.len() - 1).unwrap_or("")
        };
        whole(value, number, TIME, TIME_LARGE)?
            .checked_mul(unit)
            .ok_or_else(|| too_large(value, TIME_LARGE))?
    };
    if seconds > 100 * 365 * DAY {
        return Err(too_large(value, TIME_LARGE));
    }
    Ok(GracePeriod::new(seconds))
}

/// `[[dd:]hh:]mm:ss` in seconds.
fn clock_seconds(value: &str) -> Result<u64, ValueError> {
    // Seconds, minutes, hours, days: what one is worth, and where it ends.
    const FIELDS: [(u64, u64); 4] = [(1, 60), (60, 60), (3600, 24), (86_400, 36_501)];
    let fields: Vec<&str> = value.split(':').rev().collect();
    if fields.len() > FIELDS.len() {
        return Err(form(value, TIME));
    }
    let mut seconds = 0u64;
    for (field, (worth, end)) in fields.iter().zip(FIELDS) {
        let number = whole(value, field, TIME, TIME_LARGE)?;
        if number >= end {
            return Err(form(value, TIME));
        }
        seconds = seconds.saturating_add(number.saturating_mul(worth));
    }
    Ok(seconds)
}

/// The number of a VE.
///
/// # Errors
/// Anything but a decimal number in the range of VEs.
pub fn parse_ve(value: &str) -> Result<VeId, ValueError> {
    match value.parse::<u32>() {
        Ok(number) if (1..=VE_MAX).contains(&number) => Ok(VeId::new(number)),
        _ => Err(form(value, VE)),
    }
}

fn is_unlimited(value: &str) -> bool {
    value.eq_ignore_ascii_case("unlimited")
}

fn form(value: &str, wanted: &'static str) -> ValueError {
    ValueError::Form {
        value: value.into(),
        wanted,
    }
}

fn too_large(value: &str, remedy: &'static str) -> ValueError {
    ValueError::TooLarge {
        value: value.into(),
        remedy,
    }
}

fn refuse_sign(value: &str) -> Result<(), ValueError> {
    match value.strip_prefix('-') {
        Some(rest) if rest.starts_with(|first: char| first.is_ascii_digit()) => {
            Err(ValueError::Negative {
                value: value.into(),
            })
        }
        _ => Ok(()),
    }
}

/// The digits of a value and the bits its suffix shifts them by.
fn split_suffix<'a>(
    value: &'a str,
    default_bits: u32,
    wanted: &'static str,
) -> Result<(&'a str, u32), ValueError> {
    refuse_sign(value)?;
    match value.chars().last() {
        Some(last) if last.is_ascii_digit() => Ok((value, default_bits)),
        Some(last) => {
            let bits = suffix_bits(last).ok_or_else(|| form(value, wanted))?;
            Ok((value.strip_suffix(last).unwrap_or(value), bits))
        }
        None => Err(form(value, wanted)),
    }
}

/// A whole number without sign or spaces.
fn whole(
    value: &str,
    digits: &str,
    wanted: &'static str,
    remedy: &'static str,
) -> Result<u64, ValueError> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(form(value, wanted));
    }
    digits.parse().map_err(|_| too_large(value, remedy))
}

/// `digits` (decimals allowed) times two to the power of `bits`, rounded down.
fn scaled(
    value: &str,
    digits: &str,
    bits: u32,
    wanted: &'static str,
    remedy: &'static str,
) -> Result<u64, ValueError> {
    let (integer, fraction) = match digits.split_once('.') {
        // A fraction of the unit itself would be lost without a word.
        Some(_) if digits == value => return Err(form(value, wanted)),
        Some(parts) => parts,
        None => (digits, "0"),
    };
    let integer = u128::from(whole(value, integer, wanted, remedy)?) << bits;
    if fraction.len() > DIGITS_MAX - 1 {
        return Err(form(value, wanted));
    }
    let parts = u128::from(whole(value, fraction, wanted, remedy)?) << bits;
    let tenths = 10u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let total = integer.saturating_add(parts / tenths);
    u64::try_from(total)
        .ok()
        .filter(|total| *total <= SPACE_MAX)
        .ok_or_else(|| too_large(value, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kib(value: &str) -> Option<u64> {
        parse_space(value).unwrap().map(|bytes| bytes.get() / 1024)
    }

    #[test]
    fn sizes_are_kib_or_have_a_suffix() {
        let table = [
            ("0", 0),
            ("1000", 1000),
            ("10G", 10 << 20),
            ("10g", 10 << 20),
            ("2.2G", 2_306_867),
            ("1.1G", 1_153_433),
            ("2048B", 2),
            ("1.5K", 1),
            ("3T", 3 << 30),
            ("9007199254740991", 9_007_199_254_740_991),
        ];
        for (value, expected) in table {
            assert_eq!(kib(value), Some(expected), "{value}");
        }
        assert_eq!(parse_space("unlimited").unwrap(), None);
    }

    #[test]
    fn bad_sizes_are_refused_by_name() {
        for value in [
            "",
            " ",
            "G",
            ".",
            ".5G",
            "1.G",
            "10GB",
            "10 G",
            "10X",
            "10P",
            "+1",
            "0x10",
            "1e3",
            "--1",
            "1,5G",
            "10ß",
            "1.5",
            "1.0",
            "9007199254740992",
            "18446744073709551616",
            "99999999999999999999999999T",
            "1.00000000000000000000001G",
            "unlimited ",
            "-1",
            "-10G",
            "512B",
            "0.1K",
        ] {
            let error = parse_space(value).unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("'{value}' is ")),
                "{error}"
            );
        }
        assert!(matches!(
            parse_space("-1"),
            Err(ValueError::Negative { .. })
        ));
        assert!(matches!(
            parse_space("9007199254740992"),
            Err(ValueError::TooLarge { .. })
        ));
        assert!(matches!(
            parse_space("512B"),
            Err(ValueError::TooSmall { .. })
        ));
    }

    #[test]
    fn inodes_are_counts() {
        assert_eq!(parse_inodes("200000").unwrap(), Some(Inodes::new(200_000)));
        assert_eq!(parse_inodes("2K").unwrap(), Some(Inodes::new(2048)));
        assert_eq!(parse_inodes("unlimited").unwrap(), None);
        assert_eq!(parse_inodes("1.5K").unwrap(), Some(Inodes::new(1536)));
        for value in ["", "5B", "-5", "1x", "1.5", "99999999999999999999"] {
            assert!(parse_inodes(value).is_err(), "{value}");
        }
    }

    #[test]
    fn times_have_three_forms() {
        let table = [
            ("0", 0),
            ("604800", 604_800),
            ("7D", 604_800),
            ("2h", 7200),
            ("1w", 604_800),
            ("1m", 2_592_000),
            ("1Y", 31_536_000),
            ("01:30", 90),
            ("1:00:00", 3600),
            ("07:00:00:00", 604_800),
        ];
        for (value, seconds) in table {
            assert_eq!(parse_period(value).unwrap().get(), seconds, "{value}");
        }
        for value in [
            "",
            "d",
            "1s",
            "1dd",
            "-1",
            "-7d",
            "1:60",
            "24:00:00",
            "1:2:3:4:5",
            ":",
            "1.5d",
            "101y",
            "99999999999999999999",
            "18446744073709551615y",
        ] {
            assert!(parse_period(value).is_err(), "{value}");
        }
    }

    #[test]
    fn ve_numbers_have_a_range() {
        assert_eq!(parse_ve("101").unwrap(), VeId::new(101));
        assert_eq!(parse_ve("2147483644").unwrap(), VeId::new(VE_MAX));
        for value in ["0", "2147483645", "-1", "101a", "", " 101", "99999999999"] {
            assert!(parse_ve(value).is_err(), "{value}");
        }
    }
}

//! Reading what is left of a damaged database.
//!
//! A copy of it in memory is read without being verified, so a call on it fails or panics where it meets damage: where a page of
//! records is damaged, for every key of that page. Such a gap is stepped over, and so is a run of records whose checksum
//! is wrong: their keys need not be true, so they lead nowhere.
//!
//! Bound: some 60 tries for each gap, and one for each expected key.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::subject::QuotaType;

use super::record::{self, key};
use super::redb::Database;
use super::{Entry, Store as _, StoreError};

/// Entries read at a time where nothing is damaged.
const WINDOW: usize = 1024;
/// Places for the keys that begin with one byte: the byte alone, and with every id behind it.
const PLACES: u64 = (1 << 32) + 1;
/// The place behind all keys.
const END: u64 = PLACES << 8;

/// A run of keys that cannot be read.
pub(super) struct Gap {
    from: u64,
    to: u64,
    /// Why, in words.
    cause: String,
}

impl Gap {
    /// All keys.
    pub(super) fn everything(cause: String) -> Self {
        Self {
            from: 0,
            to: END,
            cause,
        }
    }

    /// The first and the last id of this kind that may have had a record in it; `None` where it has no such keys.
    pub(super) fn ids(&self, kind: QuotaType) -> Option<(u32, u32)> {
        let first = place(&key::account(kind.subject(0)));
        let last = first.saturating_add(u64::from(u32::MAX));
        let from = self.from.max(first);
        let to = self.to.saturating_sub(1).min(last);
        let id = |place: u64| u32::try_from(place.saturating_sub(first)).unwrap_or(u32::MAX);
        (from <= to).then(|| (id(from), id(to)))
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, cause) = (key_at(self.from), &self.cause);
        let from = from.escape_ascii();
        if self.to == END {
            return write!(f, "records from key {from} on: {cause}");
        }
        let to = key_at(self.to.saturating_sub(1));
        write!(
            f,
            "records from key {from} to {}: {cause}",
            to.escape_ascii()
        )
    }
}

/// Shows every entry that can be read, a bad one among good ones too; says what stays unread. `expected` are
/// keys that are asked for by name as well: one of them may lie in a gap and be readable, or be shown twice.
///
/// # Errors
/// [`StoreError`] when the database cannot be opened at all.
pub(super) fn each_readable(
    path: &Path,
    expected: impl Iterator<Item = Vec<u8>>,
    look: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<Vec<Gap>, StoreError> {
    let bytes = fs::read(path).map_err(|error| StoreError::io("read", path, error))?;
    let mut remains = Remains {
        path,
        db: Some(Database::open_remains(path, &bytes)?),
        bytes,
    };
    let mut gaps = Vec::new();
    let mut at = 0;
    while at < END {
        match remains.read(at) {
            Ok(entries) => {
                entries.iter().for_each(|(key, value)| look(key, value));
                at = entries.last().map_or(END, behind);
            }
            Err(error) => {
                let to = remains.behind_gap(at);
                let cause = error.to_string();
                gaps.push(Gap {
                    from: at,
                    to,
                    cause,
                });
                at = to;
            }
        }
    }
    for key in expected {
        if let Some(value) = remains.get(&key) {
            look(&key, &value);
        }
    }
    Ok(gaps)
}

fn is_sound((key, value): &Entry) -> bool {
    record::check(key, value).is_ok()
}

/// The place behind an entry.
fn behind((key, _): &Entry) -> u64 {
    place(key).saturating_add(1)
}

/// A damaged database; opened again after each failure, which may leave it unusable.
struct Remains<'a> {
    path: &'a Path,
    bytes: Vec<u8>,
    db: Option<Database>,
}

impl Remains<'_> {
    fn call<T>(
        &mut self,
        work: impl Fn(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let db = match self.db.take() {
            Some(db) => db,
            None => Database::open_remains(self.path, &self.bytes)?,
        };
        let done = work(&db)?;
        self.db = Some(db);
        Ok(done)
    }

    /// Entries from this place on, the last of them sound; none at the end of the records.
    fn read(&mut self, at: u64) -> Result<Vec<Entry>, StoreError> {
        let from = key_at(at);
        let many = self.call(|db| db.scan(&[], &from, WINDOW));
        let mut entries = many.or_else(|_| self.call(|db| db.scan(&[], &from, 1)))?;
        let sound = entries.iter().rposition(is_sound);
        match sound {
            // Where damage leads back, the walk would never end.
            Some(last) if entries.get(last).is_some_and(|entry| behind(entry) > at) => {
                entries.truncate(last.saturating_add(1));
                Ok(entries)
            }
            None if entries.is_empty() => Ok(entries),
            _ => Err(StoreError::damaged_file("records are damaged", self.path)),
        }
    }

    /// The first place behind the damage at this one from which something can be read.
    fn behind_gap(&mut self, at: u64) -> u64 {
        let (mut bad, mut step) = (at, 1_u64);
        let mut good = loop {
            let next = bad.saturating_add(step).min(END);
            if next == END || self.is_readable(next) {
                break next;
            }
            bad = next;
            step = step.saturating_mul(2);
        };
        while good.saturating_sub(bad) > 1 {
            let middle = bad.midpoint(good);
            if self.is_readable(middle) {
                good = middle;
            } else {
                bad = middle;
            }
        }
        good
    }

    fn is_readable(&mut self, at: u64) -> bool {
        let from = key_at(at);
        let found = self.call(|db| db.scan(&[], &from, 1));
        found.is_ok_and(|entries| entries.iter().all(is_sound))
    }

    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.call(|db| db.get(key)).ok().flatten()?;
        record::check(key, &value).is_ok().then_some(value)
    }
}

/// Where a key stands among all keys that there can be; other keys stand where the next one does.
fn place(key: &[u8]) -> u64 {
    let (first, rest) = key.split_first().unwrap_or((&0, &[]));
    let id = rest.first_chunk::<4>().copied().map(u32::from_be_bytes);
    let within = id.map_or(0, |id| u64::from(id).saturating_add(1));
    u64::from(*first)
        .saturating_mul(PLACES)
        .saturating_add(within)
}

/// The key at a place.
fn key_at(place: u64) -> Vec<u8> {
    let first = u8::try_from(place / PLACES).unwrap_or(u8::MAX);
    let within = (place % PLACES).checked_sub(1);
    let id = within.and_then(|id| u32::try_from(id).ok());
    let mut key = vec![first];
    key.extend(id.into_iter().flat_map(u32::to_be_bytes));
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Subject;

    #[test]
    fn places_are_in_the_order_of_keys_and_lead_back_to_them() {
        let mut keys = vec![
            key::info(),
            key::schema(),
            key::standing(),
            key::account(Subject::Ve),
        ];
        for kind in QuotaType::ALL {
            for id in [0, 1, 255, 256, u32::MAX] {
                keys.push(key::account(kind.subject(id)));
            }
        }
        keys.sort();
        assert!(keys.is_sorted_by_key(|key| place(key)));
        for key in keys {
            assert_eq!(key_at(place(&key)), key);
            assert!(place(&key) < END);
        }
    }

    #[test]
    fn a_gap_names_the_ids_that_it_may_have_held() {
        let gap = |from: &[u8], to: &[u8]| Gap {
            from: place(from),
            to: place(to),
            cause: String::new(),
        };
        let user = |id| key::account(QuotaType::User.subject(id));
        let some = gap(&user(7), &user(9));
        assert_eq!(some.ids(QuotaType::User), Some((7, 8)));
        assert_eq!(some.ids(QuotaType::Group), None);
        let all = Gap::everything(String::new());
        for kind in QuotaType::ALL {
            assert_eq!(all.ids(kind), Some((0, u32::MAX)));
        }
        let tail = gap(&user(7), &key::account(Subject::Ve));
        assert_eq!(tail.ids(QuotaType::User), Some((7, u32::MAX)));
    }
}

//! The keys of the store: one tree, a letter per kind, ids big-endian so that scans come in the order of ids.
//! ```text
//! "i"            the info record            "s"  the schema record
//! "v"            the VE's account           "n"  whether the totals are the last word
//! "u" id be32    a user's account
//! "g" id be32    a group's account
//! ```

use crate::subject::{QuotaType, Subject};

const INFO: u8 = b'i';
const SCHEMA: u8 = b's';
const VE: u8 = b'v';
const USER: u8 = b'u';
const GROUP: u8 = b'g';
const STANDING: u8 = b'n';

/// The key of the info record.
pub fn info() -> Vec<u8> {
    vec![INFO]
}

/// The key of the schema record.
pub fn schema() -> Vec<u8> {
    vec![SCHEMA]
}

/// The key of the record that says whether the totals are the last word.
pub fn standing() -> Vec<u8> {
    vec![STANDING]
}

/// The key of an account.
pub fn account(subject: Subject) -> Vec<u8> {
    match subject {
        Subject::Ve => vec![VE],
        Subject::User(uid) => numbered(USER, uid.get()),
        Subject::Group(gid) => numbered(GROUP, gid.get()),
    }
}

/// What the keys of all accounts of one kind start with.
pub const fn prefix(kind: QuotaType) -> &'static [u8] {
    match kind {
        QuotaType::User => &[USER],
        QuotaType::Group => &[GROUP],
    }
}

/// Whose account a key names; `None` for every other key.
pub fn subject(key: &[u8]) -> Option<Subject> {
    match key {
        [VE] => Some(Subject::Ve),
        [USER, id @ ..] => number(id).map(|id| QuotaType::User.subject(id)),
        [GROUP, id @ ..] => number(id).map(|id| QuotaType::Group.subject(id)),
        _ => None,
    }
}

fn numbered(kind: u8, id: u32) -> Vec<u8> {
    let [a, b, c, d] = id.to_be_bytes();
    vec![kind, a, b, c, d]
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_their_subject_and_sort_by_id() {
        let ids = [0, 1, 255, 256, 65_536, u32::MAX - 1];
        for kind in QuotaType::ALL {
            let keys: Vec<_> = ids.iter().map(|&id| account(kind.subject(id))).collect();
            assert!(keys.is_sorted());
            for (key, &id) in keys.iter().zip(&ids) {
                assert_eq!(subject(key), Some(kind.subject(id)));
                assert!(key.starts_with(prefix(kind)));
            }
        }
        assert_eq!(subject(&account(Subject::Ve)), Some(Subject::Ve));
    }

    #[test]
    fn other_keys_name_no_subject() {
        for key in [
            info(),
            schema(),
            standing(),
            vec![b't', 0, 0, 0, 1],
            vec![],
            vec![USER, 0, 0, 0],
            vec![VE, 0],
        ] {
            assert_eq!(subject(&key), None, "{key:?}");
        }
    }
}

//! A recount: what each owner's inodes occupy, added up; and its comparison with the totals.                (pure)

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::subject::{Gid, Owner, Subject, Uid};
use crate::usage::Usage;

/// Usage by account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Of the VE.
    pub ve: Usage,
    /// Of each user.
    pub users: BTreeMap<Uid, Usage>,
    /// Of each group.
    pub groups: BTreeMap<Gid, Usage>,
}

/// One account on which two tallies differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Whose.
    pub subject: Subject,
    /// What the totals say.
    pub recorded: Usage,
    /// What was counted.
    pub counted: Usage,
}

impl Tally {
    /// Adds what one inode occupies to its three accounts.
    pub fn add(&mut self, owner: Owner, usage: Usage) {
        self.ve = self.ve.saturating_add(usage);
        let user = self.users.entry(owner.uid).or_default();
        *user = user.saturating_add(usage);
        let group = self.groups.entry(owner.gid).or_default();
        *group = group.saturating_add(usage);
    }

    /// Takes what one inode occupied from its three accounts.
    pub fn remove(&mut self, owner: Owner, usage: Usage) {
        for subject in [
            Subject::Ve,
            Subject::User(owner.uid),
            Subject::Group(owner.gid),
        ] {
            self.set(subject, self.usage(subject).saturating_sub(usage));
        }
    }

    /// The usage of one account; zero where it has none.
    pub fn usage(&self, subject: Subject) -> Usage {
        match subject {
            Subject::Ve => self.ve,
            Subject::User(uid) => self.users.get(&uid).copied().unwrap_or_default(),
            Subject::Group(gid) => self.groups.get(&gid).copied().unwrap_or_default(),
        }
    }

    /// Sets the usage of one account; an account without usage is left out.
    pub fn set(&mut self, subject: Subject, usage: Usage) {
        match subject {
            Subject::Ve => self.ve = usage,
            Subject::User(uid) if usage.is_zero() => drop(self.users.remove(&uid)),
            Subject::User(uid) => drop(self.users.insert(uid, usage)),
            Subject::Group(gid) if usage.is_zero() => drop(self.groups.remove(&gid)),
            Subject::Group(gid) => drop(self.groups.insert(gid, usage)),
        }
    }

    /// Every account that is named, the VE first, then users, then groups, by id.
    pub fn subjects(&self) -> impl Iterator<Item = Subject> + '_ {
        let users = self.users.keys().map(|&uid| Subject::User(uid));
        let groups = self.groups.keys().map(|&gid| Subject::Group(gid));
        std::iter::once(Subject::Ve).chain(users).chain(groups)
    }

    /// Where a recount differs from these totals, in the order of [`Self::subjects`].
    pub fn differences(&self, counted: &Self) -> Vec<Difference> {
        let subjects: std::collections::BTreeSet<_> =
            self.subjects().chain(counted.subjects()).collect();
        subjects
            .into_iter()
            .map(|subject| Difference {
                subject,
                recorded: self.usage(subject),
                counted: counted.usage(subject),
            })
            .filter(|difference| difference.recorded != difference.counted)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    #[test]
    fn an_account_named_on_one_side_only_is_compared_with_zero() {
        let mut recorded = Tally::default();
        recorded.add(Owner::new(1, 2), Usage::inode(Bytes::new(10)));
        let mut counted = Tally::default();
        counted.add(Owner::new(3, 2), Usage::inode(Bytes::new(10)));
        // An empty entry is the same as none.
        counted.users.insert(Uid::new(9), Usage::ZERO);
        let ten = Usage::inode(Bytes::new(10));
        let user = |id, recorded, counted| Difference {
            subject: Subject::User(Uid::new(id)),
            recorded,
            counted,
        };
        assert_eq!(
            recorded.differences(&counted),
            [user(1, ten, Usage::ZERO), user(3, Usage::ZERO, ten)]
        );
        assert_eq!(recorded.differences(&recorded.clone()), []);
    }
}

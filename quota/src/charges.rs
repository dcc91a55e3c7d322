//! Amounts by account: what a request adds up to on each account that it concerns.                          (pure)
//!
//! Kept in place for the few accounts of one request, sorted in the order of checks: VE, users, groups. An account is
//! named once, however many inodes of its owner a request touches: its limit is checked against the sum.

use smallvec::SmallVec;

use crate::reservation::{Accounts, Change, Want};
use crate::subject::{Owner, Subject};
use crate::usage::Usage;

/// Accounts of one request that need no allocation: the VE, and three owners with their groups.
const INLINE: usize = 7;

/// Promised amounts by account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charges(SmallVec<[(Subject, Usage); INLINE]>);

impl Charges {
    /// What these wants add up to.
    pub(crate) fn of(wants: &[Want]) -> Self {
        let mut charges = Self::default();
        for want in wants {
            for subject in subjects(want.accounts) {
                charges.add(subject, want.usage);
            }
        }
        charges
    }

    /// Adds an amount to an account; nothing at all names no account.
    pub(crate) fn add(&mut self, subject: Subject, usage: Usage) {
        if usage.is_zero() {
            return;
        }
        match self
            .0
            .binary_search_by_key(&subject, |(subject, _)| *subject)
        {
            Ok(at) => {
                if let Some((_, sum)) = self.0.get_mut(at) {
                    *sum = sum.saturating_add(usage);
                }
            }
            Err(at) => self.0.insert(at, (subject, usage)),
        }
    }

    /// The amount of one account.
    pub(crate) fn get(&self, subject: Subject) -> Usage {
        self.iter()
            .find(|(named, _)| *named == subject)
            .map_or(Usage::ZERO, |(_, usage)| usage)
    }

    /// All amounts, in the order of checks.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Subject, Usage)> + '_ {
        self.0.iter().copied()
    }

    /// Whether nothing is promised.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What one step does to one account: a promise is given back, charges go, charges come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Move {
    /// Promise given back.
    pub(crate) promised: Usage,
    /// Charges that go.
    pub(crate) minus: Usage,
    /// Charges that come.
    pub(crate) plus: Usage,
}

impl Move {
    /// Two steps in one.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            promised: self.promised.saturating_add(other.promised),
            minus: self.minus.saturating_add(other.minus),
            plus: self.plus.saturating_add(other.plus),
        }
    }

    fn is_nothing(&self) -> bool {
        self.promised.is_zero() && self.minus == self.plus
    }
}

/// What one step does, by account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moves(SmallVec<[(Subject, Move); INLINE]>);

impl Moves {
    /// Gives these promises back and takes these changes in.
    pub(crate) fn of(back: &Charges, changes: &[Change]) -> Self {
        let mut moves = Self::default();
        for (subject, promised) in back.iter() {
            moves.add(
                subject,
                Move {
                    promised,
                    ..Move::default()
                },
            );
        }
        for change in changes {
            if change.before == change.after {
                continue;
            }
            for charged in change.before.iter() {
                let part = Move {
                    minus: charged.usage,
                    ..Move::default()
                };
                moves.add_owner(charged.owner, part);
            }
            for charged in change.after.iter() {
                let part = Move {
                    plus: charged.usage,
                    ..Move::default()
                };
                moves.add_owner(charged.owner, part);
            }
        }
        moves.0.retain(|(_, part)| !part.is_nothing());
        moves
    }

    /// All of them, in the order of checks.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Subject, Move)> + '_ {
        self.0.iter().copied()
    }

    fn add_owner(&mut self, owner: Owner, part: Move) {
        for subject in subjects(Accounts::of(owner)) {
            self.add(subject, part);
        }
    }

    fn add(&mut self, subject: Subject, part: Move) {
        match self
            .0
            .binary_search_by_key(&subject, |(subject, _)| *subject)
        {
            Ok(at) => {
                if let Some((_, sum)) = self.0.get_mut(at) {
                    *sum = sum.and(part);
                }
            }
            Err(at) => self.0.insert(at, (subject, part)),
        }
    }
}

/// The accounts in the order of checks.
pub(crate) fn subjects(accounts: Accounts) -> impl Iterator<Item = Subject> {
    let ve = accounts.ve.then_some(Subject::Ve);
    let user = accounts.uid.map(Subject::User);
    let group = accounts.gid.map(Subject::Group);
    [ve, user, group].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inode::{Charged, InodeId};
    use crate::units::Bytes;

    fn space(bytes: u64) -> Usage {
        Usage::space(Bytes::new(bytes))
    }

    #[test]
    fn wants_of_one_owner_add_up_in_the_order_of_checks() {
        let charges = Charges::of(&[
            Want::new(Owner::new(9, 1), space(4)),
            Want::new(Owner::new(2, 1), space(3)),
            Want::new(Owner::new(2, 1), Usage::ZERO),
        ]);
        let user = |id| Subject::User(crate::Uid::new(id));
        let group = Subject::Group(crate::Gid::new(1));
        let expected = [
            (Subject::Ve, space(7)),
            (user(2), space(3)),
            (user(9), space(4)),
            (group, space(7)),
        ];
        assert!(charges.iter().eq(expected));
        assert_eq!(charges.get(group), space(7));
        assert_eq!(charges.get(user(1)), Usage::ZERO);
    }

    #[test]
    fn a_change_of_owner_leaves_the_ve_and_the_common_group_alone() {
        let usage = Usage::inode(Bytes::new(8));
        let change = Change {
            inode: InodeId::new(1, 0, &[]),
            before: Some(Charged {
                owner: Owner::new(1, 5),
                usage,
            }),
            after: Some(Charged {
                owner: Owner::new(2, 5),
                usage,
            }),
        };
        let moves = Moves::of(&Charges::default(), &[change]);
        let subjects: Vec<_> = moves.iter().map(|(subject, _)| subject).collect();
        assert_eq!(
            subjects,
            [1, 2].map(|id| Subject::User(crate::Uid::new(id)))
        );
    }
}

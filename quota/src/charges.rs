//! Amounts by account: what a request adds up to on each account that it concerns.                          (pure)
//!
//! Kept in place for the few accounts of one request, sorted in the order of checks: VE, users, groups. An account is
//! named once, however many inodes of its owner a request touches: its limit is checked against the sum.

use smallvec::SmallVec;

use crate::inode::Charged;
use crate::request::{Accounts, Change, Want};
use crate::subject::{Owner, Subject};
use crate::usage::{Resource, Usage};

/// Accounts of one request that need no allocation: the VE, and two owners with their groups.
const INLINE: usize = 5;

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
        let at = place(&self.0, subject);
        match self.0.get_mut(at) {
            Some((named, sum)) if *named == subject => *sum = sum.saturating_add(usage),
            _ => self.0.insert(at, (subject, usage)),
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

    /// Names no account any more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
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

    /// One amount goes, another comes.
    fn exchange(&mut self, minus: Usage, plus: Usage) {
        self.minus = self.minus.saturating_add(minus);
        self.plus = self.plus.saturating_add(plus);
    }

    /// What becomes of one resource.
    pub(crate) const fn step(&self, resource: Resource) -> Step {
        let (plus, minus) = (self.plus.get(resource), self.minus.get(resource));
        Step {
            back: self.promised.get(resource),
            grow: plus.saturating_sub(minus),
            shrink: minus.saturating_sub(plus),
        }
    }

    /// What it adds to charges beyond the promise that it gives back.
    pub(crate) fn excess(&self) -> Usage {
        let mut excess = Usage::ZERO;
        for resource in Resource::ALL {
            let step = self.step(resource);
            excess.set(resource, step.grow.saturating_sub(step.back));
        }
        excess
    }

    /// Whether what is charged changes.
    pub(crate) fn moves_charges(&self) -> bool {
        self.minus != self.plus
    }

    fn is_nothing(&self) -> bool {
        self.promised.is_zero() && self.minus == self.plus
    }
}

/// What a [`Move`] does to one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Promise given back.
    pub(crate) back: u64,
    /// What is charged in addition; zero where `shrink` is not.
    pub(crate) grow: u64,
    /// What is not charged any more.
    pub(crate) shrink: u64,
}

impl Step {
    /// What is neither charged nor promised afterwards.
    pub(crate) const fn surplus(&self) -> u64 {
        self.back
            .saturating_sub(self.grow)
            .saturating_add(self.shrink)
    }
}

/// What one step does, by account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moves(SmallVec<[(Subject, Move); INLINE]>);

impl Moves {
    /// Gives these promises back and takes these changes in.
    pub(crate) fn of(back: &Charges, changes: &[Change]) -> Self {
        let mut moves = Self::default();
        for &(subject, promised) in &back.0 {
            let part = Move {
                promised,
                ..Move::default()
            };
            moves.0.push((subject, part));
        }
        for change in changes {
            let (before, after) = (change.before, change.after);
            let (minus, plus) = (usage_of(before), usage_of(after));
            match (before.map(|held| held.owner), after.map(|held| held.owner)) {
                (Some(old), Some(new)) if old != new => {
                    moves.add_owner(old, minus, Usage::ZERO);
                    moves.add_owner(new, Usage::ZERO, plus);
                }
                (Some(owner), _) | (None, Some(owner)) if minus != plus => {
                    moves.add_owner(owner, minus, plus);
                }
                _ => {}
            }
        }
        moves.0.retain(|(_, part)| !part.is_nothing());
        moves
    }

    /// All of them, in the order of checks.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Subject, &Move)> + '_ {
        self.0.iter().map(|(subject, part)| (*subject, part))
    }

    fn add_owner(&mut self, owner: Owner, minus: Usage, plus: Usage) {
        for subject in subjects(Accounts::of(owner)) {
            let at = place(&self.0, subject);
            match self.0.get_mut(at) {
                Some((named, sum)) if *named == subject => sum.exchange(minus, plus),
                _ => {
                    let mut part = Move::default();
                    part.exchange(minus, plus);
                    self.0.insert(at, (subject, part));
                }
            }
        }
    }
}

/// Where this subject is, or belongs. There are too few for anything but looking at each.
fn place<T>(sorted: &[(Subject, T)], subject: Subject) -> usize {
    let before = sorted.iter().take_while(|(named, _)| *named < subject);
    before.count()
}

fn usage_of(charged: Option<Charged>) -> Usage {
    charged.map_or(Usage::ZERO, |charged| charged.usage)
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
    use crate::inode::InodeId;
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

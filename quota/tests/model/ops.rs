//! The steps of a history. Arguments are small; indices count modulo what exists.

use proptest::option;
use proptest::prelude::*;
use quota::{Bytes, Inodes, Owner, QuotaType, Scope, Setting, Subject, Usage};

/// Owners are made of these ids.
pub(crate) const IDS: u32 = 3;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Asks for several amounts at once; `counted` is whether a refusal counts.
    Reserve {
        wants: Vec<(Owner, Usage)>,
        exempt: bool,
        counted: bool,
    },
    /// Settles a promise: an inode of this owner now has this usage.
    Settle {
        promise: usize,
        inode: usize,
        after: Option<(Owner, Usage)>,
    },
    /// Keeps a part of a promise, as percentage of each amount.
    SettlePart {
        promise: usize,
        percent: u64,
    },
    Merge {
        promise: usize,
        other: usize,
    },
    Cancel {
        promise: usize,
    },
    /// An inode changed by itself.
    Record {
        inode: usize,
        after: Option<(Owner, Usage)>,
    },
    SetLimits {
        subject: Subject,
        soft: [Setting<u64>; 2],
        hard: [Setting<u64>; 2],
    },
    SetDeadlines {
        subject: Subject,
        deadlines: [Option<Option<i64>>; 2],
    },
    SetGrace {
        scope: Scope,
        periods: [Option<u64>; 2],
    },
    SetEnforced {
        scope: Scope,
        on: bool,
    },
    SetUgidLimit(u32),
    /// Replaces the totals by wrong ones and back, or leaves them.
    Repair {
        inode: usize,
    },
    Wait(i64),
    Commit,
    /// Commits, closes, opens.
    Reopen,
    /// The process dies; what was not committed is lost.
    Crash,
    /// The n-th call of the store from now on fails, before or after it took effect.
    FailStore {
        nth: u64,
        late: bool,
    },
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let after = || option::weighted(0.8, (owner(), inode_usage()));
    let index = || 0..8usize;
    prop_oneof![
        12 => (proptest::collection::vec((owner(), usage()), 1..3), any::<bool>(), any::<bool>())
            .prop_map(|(wants, exempt, counted)| Op::Reserve { wants, exempt, counted }),
        8 => (index(), index(), after())
            .prop_map(|(promise, inode, after)| Op::Settle { promise, inode, after }),
        2 => (index(), 0..101u64)
            .prop_map(|(promise, percent)| Op::SettlePart { promise, percent }),
        1 => (index(), index()).prop_map(|(promise, other)| Op::Merge { promise, other }),
        3 => index().prop_map(|promise| Op::Cancel { promise }),
        8 => (index(), after()).prop_map(|(inode, after)| Op::Record { inode, after }),
        6 => (subject(), [setting(), setting()], [setting(), setting()])
            .prop_map(|(subject, soft, hard)| Op::SetLimits { subject, soft, hard }),
        2 => (subject(), [deadline(), deadline()])
            .prop_map(|(subject, deadlines)| Op::SetDeadlines { subject, deadlines }),
        2 => (scope(), [option::of(0..60u64), option::of(0..60u64)])
            .prop_map(|(scope, periods)| Op::SetGrace { scope, periods }),
        2 => (scope(), any::<bool>()).prop_map(|(scope, on)| Op::SetEnforced { scope, on }),
        1 => (0..3u32).prop_map(Op::SetUgidLimit),
        1 => index().prop_map(|inode| Op::Repair { inode }),
        5 => (0..30i64).prop_map(Op::Wait),
        3 => Just(Op::Commit),
        2 => Just(Op::Reopen),
        2 => Just(Op::Crash),
        3 => (1..6u64, any::<bool>()).prop_map(|(nth, late)| Op::FailStore { nth, late }),
    ]
}

fn owner() -> impl Strategy<Value = Owner> {
    (0..IDS, 0..IDS).prop_map(|(uid, gid)| Owner::new(uid, gid))
}

fn usage() -> impl Strategy<Value = Usage> {
    (0..40u64, 0..3u64)
        .prop_map(|(space, inodes)| Usage::new(Bytes::new(space), Inodes::new(inodes)))
}

fn inode_usage() -> impl Strategy<Value = Usage> {
    (0..60u64).prop_map(|space| Usage::inode(Bytes::new(space)))
}

fn setting() -> impl Strategy<Value = Setting<u64>> {
    prop_oneof![
        2 => Just(Setting::Keep),
        1 => Just(Setting::Unlimited),
        3 => (0..120u64).prop_map(Setting::To),
        2 => (0..5u64).prop_map(Setting::To),
    ]
}

fn deadline() -> impl Strategy<Value = Option<Option<i64>>> {
    option::of(option::of(0..200i64))
}

fn scope() -> impl Strategy<Value = Scope> {
    proptest::sample::select(Scope::ALL.to_vec())
}

fn subject() -> impl Strategy<Value = Subject> {
    proptest::sample::select(subjects())
}

/// Every account that a history can touch.
pub(crate) fn subjects() -> Vec<Subject> {
    let kinds = QuotaType::ALL.into_iter();
    let second = kinds.flat_map(|kind| (0..IDS).map(move |id| kind.subject(id)));
    [Subject::Ve].into_iter().chain(second).collect()
}

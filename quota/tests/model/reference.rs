//! The naive ledger: every account in one map, every rule written out, nothing clever.

use std::collections::BTreeMap;

use quota::{Owner, QuotaType, Scope, Subject};

pub(crate) const RESOURCES: [usize; 2] = [0, 1];
pub(crate) type Two = [u64; 2];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) used: Two,
    pub(crate) reserved: Two,
    pub(crate) peak: Two,
    pub(crate) refused: Two,
    pub(crate) soft: [Option<u64>; 2],
    pub(crate) hard: [Option<u64>; 2],
    pub(crate) deadline: [Option<i64>; 2],
}

impl Plain {
    /// What survives: all but promises.
    fn stored(&self) -> Self {
        Self {
            reserved: [0, 0],
            ..self.clone()
        }
    }

    pub(crate) fn is_worth_storing(&self) -> bool {
        let limited = RESOURCES.iter().any(|&r| {
            self.soft[r].is_some() || self.hard[r].is_some() || self.deadline[r].is_some()
        });
        self.used != [0, 0] || limited
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) grace: BTreeMap<Scope, Two>,
    pub(crate) enforced: BTreeMap<Scope, bool>,
    pub(crate) ugid_limit: u32,
}

/// Who refused, for want of what, and whether because of the hard limit.
pub(crate) type Refusal = (Subject, usize, bool);

#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) accounts: BTreeMap<Subject, Plain>,
    pub(crate) settings: Settings,
    /// As of the last commit.
    stored: (BTreeMap<Subject, Plain>, Settings),
    pub(crate) now: i64,
}

impl Reference {
    pub(crate) fn new(now: i64, grace: u64) -> Self {
        let settings = Settings {
            grace: Scope::ALL.map(|scope| (scope, [grace, grace])).into(),
            enforced: Scope::ALL.map(|scope| (scope, true)).into(),
            ugid_limit: u32::MAX,
        };
        let accounts = BTreeMap::from([(Subject::Ve, Plain::default())]);
        Self {
            stored: (accounts.clone(), settings.clone()),
            accounts,
            settings,
            now,
        }
    }

    pub(crate) fn account(&self, subject: Subject) -> Plain {
        self.accounts.get(&subject).cloned().unwrap_or_default()
    }

    pub(crate) fn account_mut(&mut self, subject: Subject) -> &mut Plain {
        self.accounts.entry(subject).or_default()
    }

    /// The refusal of these amounts, if there is one; `first_only` is a caller that passes the second level.
    pub(crate) fn refusal(&self, wants: &[(Subject, Two)], first_only: bool) -> Option<Refusal> {
        for &(subject, want) in wants {
            let account = self.account(subject);
            let passes = first_only && subject != Subject::Ve;
            if passes || !self.settings.enforced[&Scope::of(subject)] {
                continue;
            }
            for r in RESOURCES {
                let total = account.used[r] + account.reserved[r] + want[r];
                if want[r] == 0 {
                    continue;
                }
                if account.hard[r].is_some_and(|hard| total > hard) {
                    return Some((subject, r, true));
                }
                let over = account.soft[r].is_some_and(|soft| total > soft);
                if over && account.deadline[r].is_some_and(|end| self.now >= end) {
                    return Some((subject, r, false));
                }
            }
        }
        None
    }

    pub(crate) fn promise(&mut self, wants: &[(Subject, Two)]) {
        for &(subject, want) in wants {
            let account = self.account_mut(subject);
            RESOURCES
                .iter()
                .for_each(|&r| account.reserved[r] += want[r]);
            self.follow(subject);
        }
    }

    /// Gives promises back and replaces what an inode is charged with, as one step.
    pub(crate) fn apply(
        &mut self,
        back: &[(Subject, Two)],
        before: Option<(Owner, Two)>,
        after: Option<(Owner, Two)>,
    ) {
        let start = self.accounts.clone();
        let mut concerned = Vec::new();
        for &(subject, amount) in back {
            let account = self.account_mut(subject);
            RESOURCES
                .iter()
                .for_each(|&r| account.reserved[r] -= amount[r]);
            concerned.push(subject);
        }
        if before != after {
            // First what comes, then what goes, and the peak at the end: no step in between counts.
            if let Some((owner, amount)) = after {
                for subject in accounts_of(owner) {
                    let account = self.account_mut(subject);
                    RESOURCES.iter().for_each(|&r| account.used[r] += amount[r]);
                    concerned.push(subject);
                }
            }
            if let Some((owner, amount)) = before {
                for subject in accounts_of(owner) {
                    let account = self.account_mut(subject);
                    RESOURCES.iter().for_each(|&r| account.used[r] -= amount[r]);
                    concerned.push(subject);
                }
            }
        }
        for subject in concerned {
            let account = self.account_mut(subject);
            let was = start.get(&subject).cloned().unwrap_or_default();
            if (was.used, was.reserved) == (account.used, account.reserved) {
                continue;
            }
            RESOURCES
                .iter()
                .for_each(|&r| account.peak[r] = account.peak[r].max(account.used[r]));
            self.follow(subject);
        }
    }

    /// The timer runs exactly while charges and promises are above the soft limit; it starts only while enforced.
    pub(crate) fn follow(&mut self, subject: Subject) {
        let scope = Scope::of(subject);
        let (on, grace, now) = (
            self.settings.enforced[&scope],
            self.settings.grace[&scope],
            self.now,
        );
        let account = self.account_mut(subject);
        for r in RESOURCES {
            let over =
                account.soft[r].is_some_and(|soft| account.used[r] + account.reserved[r] > soft);
            if !over {
                account.deadline[r] = None;
            } else if on && account.deadline[r].is_none() {
                account.deadline[r] = Some(now + i64::try_from(grace[r]).unwrap());
            }
        }
    }

    pub(crate) fn commit(&mut self) {
        let stored = self
            .accounts
            .iter()
            .map(|(&subject, account)| (subject, account.stored()));
        self.stored = (stored.collect(), self.settings.clone());
    }

    /// Back to the last commit.
    pub(crate) fn crash(&mut self) {
        let (accounts, settings) = self.stored.clone();
        let worth = |(subject, account): &(Subject, Plain)| {
            *subject == Subject::Ve || account.is_worth_storing()
        };
        self.accounts = accounts.into_iter().filter(worth).collect();
        self.settings = settings;
        for account in self.accounts.values_mut() {
            for r in RESOURCES {
                // The timer of a promise ends with it.
                let over = account.soft[r].is_some_and(|soft| account.used[r] > soft);
                account.deadline[r] = account.deadline[r].filter(|_| over);
            }
        }
        self.stored = (self.accounts.clone(), self.settings.clone());
    }
}

pub(crate) fn accounts_of(owner: Owner) -> [Subject; 3] {
    [
        Subject::Ve,
        QuotaType::User.subject(owner.uid.get()),
        QuotaType::Group.subject(owner.gid.get()),
    ]
}

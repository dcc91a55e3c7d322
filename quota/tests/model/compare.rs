//! The comparison after every step: accounts, lists, settings, and the sums of both levels.

use std::collections::BTreeMap;

use quota::{Account, QuotaType, Resource, Scope, Subject, Tally, Timestamp, Usage};

use super::driver::{Driver, two};
use super::ops::{IDS, subjects};
use super::reference::Plain;

impl Driver {
    pub(crate) fn compare(&mut self, place: &str) {
        let mut lists: BTreeMap<Scope, Vec<Subject>> = BTreeMap::new();
        for subject in subjects() {
            let account = self.engine.account(subject).unwrap();
            let seen = plain(&account);
            let expected = self.reference.account_mut(subject);
            // An account that is not stored may forget its peak and its refusals, at any time.
            let fresh = Plain {
                reserved: seen.reserved,
                ..Plain::default()
            };
            if subject != Subject::Ve && !expected.is_worth_storing() && seen == fresh {
                (expected.peak, expected.refused) = ([0, 0], [0, 0]);
            }
            assert_eq!(seen, *expected, "{place}: {subject}");
            let listed = !account.usage.is_zero() || !account.limits.is_unlimited();
            if listed {
                lists.entry(Scope::of(subject)).or_default().push(subject);
            }
        }
        self.compare_lists(&lists, place);
        self.compare_settings(place);
        let tally = self.engine.tally().unwrap();
        let sum = |usages: Vec<Usage>| usages.into_iter().fold(Usage::ZERO, Usage::saturating_add);
        assert_eq!(
            tally.ve,
            sum(tally.users.values().copied().collect()),
            "{place}: users"
        );
        assert_eq!(
            tally.ve,
            sum(tally.groups.values().copied().collect()),
            "{place}: groups"
        );
        let mut recount = Tally::default();
        self.inodes
            .iter()
            .flatten()
            .for_each(|&(owner, usage)| recount.add(owner, usage));
        assert_eq!(tally.differences(&recount), [], "{place}: recount");
    }

    fn compare_lists(&self, lists: &BTreeMap<Scope, Vec<Subject>>, place: &str) {
        for kind in QuotaType::ALL {
            let expected = lists.get(&Scope::from(kind)).cloned().unwrap_or_default();
            let accounts = self.engine.accounts(kind).unwrap();
            let listed: Vec<_> = accounts.iter().map(|account| account.subject).collect();
            assert_eq!(listed, expected, "{place}: list");
            for id in 0..=IDS {
                let next = accounts
                    .iter()
                    .find(|account| account.subject >= kind.subject(id));
                let found = self.engine.next_account(kind, id).unwrap();
                assert_eq!(found.as_ref(), next, "{place}: next {id}");
            }
        }
    }

    fn compare_settings(&self, place: &str) {
        let info = self.engine.info();
        let settings = &self.reference.settings;
        for scope in Scope::ALL {
            let grace = info.grace_periods(scope);
            let grace = [grace.space.get(), grace.inodes.get()];
            assert_eq!(grace, settings.grace[&scope], "{place}: {scope}");
            assert_eq!(
                info.is_enforced(scope),
                settings.enforced[&scope],
                "{place}: {scope}"
            );
        }
        assert_eq!(info.ugid_limit, settings.ugid_limit, "{place}");
    }
}

fn plain(account: &Account) -> Plain {
    Plain {
        used: two(account.usage),
        reserved: two(account.reserved),
        peak: two(account.peak),
        refused: [account.refused.space, account.refused.inodes],
        soft: Resource::ALL.map(|resource| account.limits.get(resource).soft),
        hard: Resource::ALL.map(|resource| account.limits.get(resource).hard),
        deadline: Resource::ALL.map(|resource| account.deadlines.get(resource).map(Timestamp::get)),
    }
}

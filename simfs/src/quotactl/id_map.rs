//! Ids as a user namespace names them, and as the VE's filesystem sees them.
//!
//! # Source
//! user_namespaces(7), "User and group ID mappings".

use std::num::ParseIntError;

/// Ids that follow each other on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First id inside the namespace.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// Number of ids, at least one.
    pub count: u32,
}

impl Extent {
    /// Where an id of the first list stands in the second.
    fn translate(id: u32, from: u32, to: u32, count: u32) -> Option<u32> {
        let offset = id.checked_sub(from)?;
        (offset < count).then(|| to.checked_add(offset)).flatten()
    }

    /// The id outside, if this extent has the one inside.
    pub fn to_outside(self, id: u32) -> Option<u32> {
        Self::translate(id, self.inside, self.outside, self.count)
    }

    /// The id inside, if this extent has the one outside.
    pub fn to_inside(self, id: u32) -> Option<u32> {
        Self::translate(id, self.outside, self.inside, self.count)
    }

    /// What both have outside, with the ids inside of either.
    fn as_named_in(self, other: Self) -> Option<Self> {
        // No kernel writes a map that goes beyond the last id.
        let end = |extent: Self| (u64::from(extent.outside) + u64::from(extent.count)).min(1 << 32);
        let first = self.outside.max(other.outside);
        let count = end(self).min(end(other)).checked_sub(first.into())?;
        Some(Self {
            inside: self.to_inside(first)?,
            outside: other.to_inside(first)?,
            count: u32::try_from(count).ok()?,
        })
    }

    /// The id outside of the first id inside that is not below `from`.
    pub fn first_outside_from(self, from: u32) -> Option<u32> {
        self.to_outside(from.max(self.inside))
    }
}

/// `uid_map` or `gid_map` of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    /// In the order of the ids inside; they do not overlap.
    extents: Vec<Extent>,
}

impl IdMap {
    /// The map of the initial user namespace.
    pub fn identity() -> Self {
        Self {
            extents: vec![Extent {
                inside: 0,
                outside: 0,
                count: u32::MAX,
            }],
        }
    }

    /// The same ids inside, with what another namespace calls them in the place of what they are outside; without those
    /// that it has no name for.
    #[must_use]
    pub fn as_named_in(&self, other: &Self) -> Self {
        let pairs = self
            .extents
            .iter()
            .flat_map(|one| other.extents.iter().map(move |two| (one, two)));
        let mut extents: Vec<_> = pairs
            .filter_map(|(one, two)| one.as_named_in(*two))
            .collect();
        extents.sort_by_key(|extent| extent.inside);
        Self { extents }
    }

    /// Reads the text of `/proc/PID/uid_map`.
    ///
    /// # Errors
    /// The first number that is none.
    pub fn parse(text: &str) -> Result<Self, ParseIntError> {
        let mut extents = Vec::new();
        for line in text.lines() {
            let mut numbers = line.split_ascii_whitespace();
            let mut next = || numbers.next().unwrap_or_default().parse::<u32>();
            extents.push(Extent {
                inside: next()?,
                outside: next()?,
                count: next()?,
            });
        }
        extents.sort_by_key(|extent: &Extent| extent.inside);
        Ok(Self { extents })
    }

    /// In the order of the ids inside.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// What the id inside is outside; `None` if it has no meaning there.
    pub fn to_outside(&self, id: u32) -> Option<u32> {
        self.extents.iter().find_map(|extent| extent.to_outside(id))
    }

    /// What the id outside is called inside; `None` if it has no name there.
    pub fn to_inside(&self, id: u32) -> Option<u32> {
        self.extents.iter().find_map(|extent| extent.to_inside(id))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_map_reads_as_the_kernel_writes_it() {
        let text = "      1000     200000        10\n         0     100000      1000\n";
        let map = IdMap::parse(text).unwrap();
        assert_eq!(map.to_outside(0), Some(100_000));
        assert_eq!(map.to_outside(999), Some(100_999));
        assert_eq!(map.to_outside(1009), Some(200_009));
        assert_eq!(map.to_outside(1010), None);
        assert_eq!(map.to_inside(200_000), Some(1000));
        assert_eq!(map.to_inside(0), None);
        let inside: Vec<_> = map.extents().iter().map(|extent| extent.inside).collect();
        assert_eq!(inside, [0, 1000]);
    }

    #[test]
    fn the_initial_namespace_names_all_but_the_last_id() {
        // user_namespaces(7): 4294967295 is (uid_t) -1, "no user".
        let map = IdMap::parse("         0          0 4294967295\n").unwrap();
        assert_eq!(map, IdMap::identity());
        assert_eq!(map.to_outside(u32::MAX - 1), Some(u32::MAX - 1));
        assert_eq!(map.to_outside(u32::MAX), None);
    }

    #[test]
    fn an_unwritten_map_names_nobody() {
        assert_eq!(IdMap::parse("").unwrap().to_inside(0), None);
        assert!(IdMap::parse("1 2").is_err());
        assert!(IdMap::parse("0 -1 5").is_err());
    }

    #[test]
    fn a_nested_namespace_is_seen_through_the_one_around_it() {
        let ve = IdMap::parse("0 100000 1000\n1000 500000 64536").unwrap();
        // What a user of the VE made: ids 900 to 1099 of the VE, in the other order, and one of the host's that the VE lacks.
        let nested = IdMap::parse("0 500000 100\n100 100900 100\n200 5 1").unwrap();
        let seen = nested.as_named_in(&ve);
        assert_eq!(seen, IdMap::parse("0 1000 100\n100 900 100").unwrap());
        let own = ve.as_named_in(&ve);
        assert_eq!(own, IdMap::parse("0 0 1000\n1000 1000 64536").unwrap());
        let all = IdMap::identity();
        assert_eq!(nested.as_named_in(&all), nested);
        assert_eq!(nested.as_named_in(&IdMap::default()), IdMap::default());
    }

    proptest! {
        #[test]
        fn through_another_namespace_an_id_goes_by_its_number_outside(
            a: (u32, u32, u32), b: (u32, u32, u32), id: u32
        ) {
            let [one, two] = [a, b].map(|(inside, outside, count)| Extent { inside, outside, count });
            let [one, two] = [one, two].map(|extent| IdMap { extents: vec![extent] });
            let there = one.to_outside(id).and_then(|outside| two.to_inside(outside));
            prop_assert_eq!(one.as_named_in(&two).to_outside(id), there);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            let _ = IdMap::parse(&text);
        }

        #[test]
        fn translation_is_its_own_inverse(inside: u32, outside: u32, count: u32, id: u32) {
            let map = IdMap { extents: vec![Extent { inside, outside, count }] };
            if let Some(there) = map.to_outside(id) {
                prop_assert_eq!(map.to_inside(there), Some(id));
            }
        }
    }
}

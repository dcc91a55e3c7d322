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

    /// The map of the same ids where they are called outside as inside.
    #[must_use]
    pub fn of_itself(&self) -> Self {
        let same = |extent: &Extent| Extent {
            outside: extent.inside,
            ..*extent
        };
        Self {
            extents: self.extents.iter().map(same).collect(),
        }
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

    proptest! {
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

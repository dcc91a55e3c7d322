//! Who calls: ids, groups, capabilities, and whether that makes an administrator of the VE.

use super::id_map::IdMap;
use crate::sys::task::NamespaceId;

/// `CAP_SYS_ADMIN`, capabilities(7).
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Who may administer the second level from inside the VE. Either way the caller must live in the VE's own user
/// namespace: whoever is root or privileged in a namespace nested below it is nobody here.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum AdminPolicy {
    /// Whoever runs as user 0 of the VE. Container runtimes take `CAP_SYS_ADMIN` from a VE's root by default, and
    /// only the VE's own second level is at stake.
    #[default]
    RootOfVe,
    /// Whoever has `CAP_SYS_ADMIN` in the VE's user namespace, as the kernel asks it on the host.
    SysAdmin,
}

/// The credentials of a thread, from its `status`. Ids are those outside every user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Effective user id.
    pub euid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Effective capabilities.
    pub capabilities: u64,
}

impl Credentials {
    /// Reads the text of `/proc/TID/status`; `None` if a line is missing or unreadable.
    ///
    /// # Source
    /// proc_pid_status(5).
    pub fn parse(status: &str) -> Option<Self> {
        let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        // Real, effective, saved, filesystem.
        let effective = |line: &str| line.split_ascii_whitespace().nth(1)?.parse().ok();
        let groups = line("Groups:")?.split_ascii_whitespace().map(str::parse);
        Some(Self {
            euid: effective(line("Uid:")?)?,
            egid: effective(line("Gid:")?)?,
            groups: groups.collect::<Result<_, _>>().ok()?,
            capabilities: u64::from_str_radix(line("CapEff:")?.trim(), 16).ok()?,
        })
    }
}

/// A thread that calls quotactl(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id as the filesystem sees it.
    pub euid: u32,
    /// Effective group id as the filesystem sees it.
    pub egid: u32,
    /// Supplementary groups as the filesystem sees them.
    pub groups: Vec<u32>,
    /// Names of users for this caller.
    pub uids: IdMap,
    /// Names of groups for this caller.
    pub gids: IdMap,
    /// Whether it administers the VE.
    pub is_admin: bool,
}

impl Caller {
    /// Judges credentials. `home` tells whether the caller's user namespace is the VE's own.
    pub fn new(
        credentials: Credentials,
        uids: IdMap,
        gids: IdMap,
        home: bool,
        policy: AdminPolicy,
    ) -> Self {
        let powerful = match policy {
            AdminPolicy::RootOfVe => uids.to_inside(credentials.euid) == Some(0),
            AdminPolicy::SysAdmin => credentials.capabilities & CAP_SYS_ADMIN != 0,
        };
        let Credentials {
            euid, egid, groups, ..
        } = credentials;
        Self {
            euid,
            egid,
            groups,
            uids,
            gids,
            is_admin: home && powerful,
        }
    }

    /// The same where the filesystem knows ids as the VE's user namespace names them, which has these users and groups.
    /// `None` for whoever has no id there.
    #[must_use]
    pub fn with_ids_of(self, users: &IdMap, groups: &IdMap) -> Option<Self> {
        let held = self.groups.iter();
        Some(Self {
            euid: users.to_inside(self.euid)?,
            egid: groups.to_inside(self.egid)?,
            groups: held.filter_map(|group| groups.to_inside(*group)).collect(),
            uids: self.uids.as_named_in(users),
            gids: self.gids.as_named_in(groups),
            ..self
        })
    }

    /// Whether this group is one of the caller's.
    pub fn is_member(&self, gid: u32) -> bool {
        self.egid == gid || self.groups.contains(&gid)
    }
}

/// Whether a caller lives in the VE's own user namespace; if that was never learnt, nobody does.
pub fn is_home(ve: Option<NamespaceId>, caller: NamespaceId) -> bool {
    ve == Some(caller)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tquota\nUmask:\t0022\nUid:\t1000\t1001\t1002\t1003\n\
        Gid:\t2000\t2001\t2002\t2003\nGroups:\t4 24 27 \nCapInh:\t0\nCapEff:\t0000000000200000\n";

    #[test]
    fn effective_ids_count() {
        let credentials = Credentials::parse(STATUS).unwrap();
        assert_eq!((credentials.euid, credentials.egid), (1001, 2001));
        assert_eq!(credentials.groups, [4, 24, 27]);
        assert_eq!(credentials.capabilities, CAP_SYS_ADMIN);
    }

    #[test]
    fn an_incomplete_status_is_refused() {
        for key in ["Uid", "Gid", "Groups", "CapEff"] {
            assert_eq!(
                Credentials::parse(&STATUS.replace(key, "Xxx")),
                None,
                "{key}"
            );
        }
        assert_eq!(Credentials::parse(&STATUS.replace("1001", "x")), None);
    }

    #[test]
    fn administrators_by_policy() {
        // (euid outside, capabilities, home, administrator by RootOfVe, by SysAdmin); VE root is 100000 outside.
        let rows = [
            (
                "root of the VE without capabilities",
                100_000,
                0,
                true,
                true,
                false,
            ),
            (
                "root of the VE with CAP_SYS_ADMIN",
                100_000,
                CAP_SYS_ADMIN,
                true,
                true,
                true,
            ),
            (
                "a user with CAP_SYS_ADMIN",
                101_000,
                CAP_SYS_ADMIN,
                true,
                false,
                true,
            ),
            ("a user", 101_000, !CAP_SYS_ADMIN, true, false, false),
            (
                "root of the host, unknown in the VE",
                0,
                0,
                true,
                false,
                false,
            ),
            (
                "root of the VE in a nested namespace",
                100_000,
                u64::MAX,
                false,
                false,
                false,
            ),
        ];
        let map = IdMap::parse("0 100000 65536").unwrap();
        for (name, euid, capabilities, home, by_root, by_capability) in rows {
            let credentials = Credentials {
                euid,
                egid: 0,
                groups: vec![],
                capabilities,
            };
            for (policy, expected) in [
                (AdminPolicy::RootOfVe, by_root),
                (AdminPolicy::SysAdmin, by_capability),
            ] {
                let credentials = credentials.clone();
                let caller = Caller::new(credentials, map.clone(), map.clone(), home, policy);
                assert_eq!(caller.is_admin, expected, "{name}, {policy:?}");
            }
        }
    }

    #[test]
    fn own_ids_are_those_inside() {
        let map = IdMap::parse("0 100000 65536").unwrap();
        let credentials = Credentials {
            euid: 100_007,
            egid: 100_008,
            groups: vec![100_009, 5],
            capabilities: 0,
        };
        let policy = AdminPolicy::RootOfVe;
        let caller = Caller::new(credentials, map.clone(), map.clone(), true, policy);
        let own = caller.clone().with_ids_of(&map, &map).unwrap();
        assert_eq!((own.euid, own.egid), (7, 8));
        assert_eq!(own.groups, [9]);
        assert_eq!(own.uids.to_outside(7), Some(7));
        assert_eq!(own.uids.to_outside(65_536), None, "it has no name inside");
        assert!(own.is_member(9) && !own.is_member(5));
        // The same user as root of a namespace of its own.
        let nested = IdMap::parse("0 100007 1").unwrap();
        let caller = Caller {
            uids: nested.clone(),
            gids: nested,
            ..caller
        };
        let own = caller.clone().with_ids_of(&map, &map).unwrap();
        assert_eq!((own.euid, own.uids.to_outside(0)), (7, Some(7)));
        assert_eq!(own.gids.to_outside(0), Some(7));
        let other = IdMap::parse("0 200000 65536").unwrap();
        assert_eq!(caller.with_ids_of(&other, &other), None);
    }

    #[test]
    fn an_unknown_namespace_is_nobodys_home() {
        let id = NamespaceId::new(4, 4_026_531_837);
        assert!(is_home(Some(id), id));
        assert!(!is_home(None, id));
        assert!(!is_home(Some(NamespaceId::new(4, 1)), id));
    }
}

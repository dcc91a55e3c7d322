//! Whose account: the VE itself, one of its users, one of its groups.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u32);

        impl $name {
            /// Wraps a plain number.
            pub const fn new(id: u32) -> Self {
                Self(id)
            }

            /// The plain number.
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// The number of a VE (container), 1 to 2147483644; 0 is the host.
    VeId
}
id! {
    /// A user id as the private area stores it.
    Uid
}
id! {
    /// A group id as the private area stores it.
    Gid
}

/// Whose account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The VE as a whole: the first level.
    Ve,
    /// One user of the VE: second level.
    User(Uid),
    /// One group of the VE: second level.
    Group(Gid),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ve => f.write_str("VE"),
            Self::User(uid) => write!(f, "user {uid}"),
            Self::Group(gid) => write!(f, "group {gid}"),
        }
    }
}

/// The kinds of second-level account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaType {
    /// Accounts by owner.
    User,
    /// Accounts by group.
    Group,
}

impl QuotaType {
    /// Both, users first.
    pub const ALL: [Self; 2] = [Self::User, Self::Group];

    /// The account of this kind with this id.
    pub const fn subject(self, id: u32) -> Subject {
        match self {
            Self::User => Subject::User(Uid::new(id)),
            Self::Group => Subject::Group(Gid::new(id)),
        }
    }
}

/// Who owns an inode: the two second-level accounts that it is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// `st_uid`.
    pub uid: Uid,
    /// `st_gid`.
    pub gid: Gid,
}

impl Owner {
    /// The owner with these ids.
    pub const fn new(uid: u32, gid: u32) -> Self {
        Self {
            uid: Uid::new(uid),
            gid: Gid::new(gid),
        }
    }
}

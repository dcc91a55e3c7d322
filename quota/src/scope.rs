//! The three groups of accounts that share grace periods and a switch: the VE, all users, all groups.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::subject::{QuotaType, Subject};

/// One of the three groups of accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The VE's own account: the first level.
    Ve,
    /// The accounts of all users.
    Users,
    /// The accounts of all groups.
    Groups,
}

impl Scope {
    /// All three, the VE first.
    pub const ALL: [Self; 3] = [Self::Ve, Self::Users, Self::Groups];

    /// The scope of one account.
    pub const fn of(subject: Subject) -> Self {
        match subject {
            Subject::Ve => Self::Ve,
            Subject::User(_) => Self::Users,
            Subject::Group(_) => Self::Groups,
        }
    }
}

impl From<QuotaType> for Scope {
    fn from(kind: QuotaType) -> Self {
        match kind {
            QuotaType::User => Self::Users,
            QuotaType::Group => Self::Groups,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ve => "VE",
            Self::Users => "users",
            Self::Groups => "groups",
        })
    }
}

/// One value for each scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PerScope<T> {
    /// Of the VE.
    pub ve: T,
    /// Of all users.
    pub users: T,
    /// Of all groups.
    pub groups: T,
}

impl<T: Copy> PerScope<T> {
    /// The same value for all three.
    pub const fn all(value: T) -> Self {
        Self {
            ve: value,
            users: value,
            groups: value,
        }
    }

    /// The value of one scope.
    pub const fn get(&self, scope: Scope) -> T {
        match scope {
            Scope::Ve => self.ve,
            Scope::Users => self.users,
            Scope::Groups => self.groups,
        }
    }

    /// Replaces the value of one scope.
    pub fn set(&mut self, scope: Scope, value: T) {
        match scope {
            Scope::Ve => self.ve = value,
            Scope::Users => self.users = value,
            Scope::Groups => self.groups = value,
        }
    }
}

impl<T> From<[T; 3]> for PerScope<T> {
    fn from([ve, users, groups]: [T; 3]) -> Self {
        Self { ve, users, groups }
    }
}

impl<T> From<PerScope<T>> for [T; 3] {
    fn from(values: PerScope<T>) -> Self {
        [values.ve, values.users, values.groups]
    }
}

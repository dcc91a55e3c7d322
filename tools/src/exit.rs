//! The exit codes, documented once, and the error that carries one to `main`.

use std::fmt;
use std::process::ExitCode;

/// How `vzquota` ends.
///
/// # Source
/// vzquota `include/common.h`, vzquota(8). Where the original names the kernel's quota, read "the mount"; where it
/// names the quota file, read "the quota store".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VzquotaExit {
    /// 0: done.
    Ok,
    /// 1: a system call failed.
    System,
    /// 2: the command line makes no sense.
    Usage,
    /// 3: the running mount refused or did not answer.
    Mount,
    /// 4: the quota store is damaged or failing.
    Store,
    /// 5: not while the VE is mounted.
    Running,
    /// 6: only while the VE is mounted.
    NotRunning,
    /// 7: somebody else holds the quota store.
    Locked,
    /// 8: the private area crosses a mount point.
    CrossesMount,
    /// 9: the second level is off (`stat -t`; the report was printed).
    SecondLevelOff,
    /// 10: the stored figures are out of date (`show`; the report was printed).
    Dirty,
    /// 11: the VE has no quota record.
    NoRecord,
    /// 12: reserved.
    Internal,
    /// 13: the private area cannot be used.
    NoPrivate,
}

impl VzquotaExit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::System => 1,
            Self::Usage => 2,
            Self::Mount => 3,
            Self::Store => 4,
            Self::Running => 5,
            Self::NotRunning => 6,
            Self::Locked => 7,
            Self::CrossesMount => 8,
            Self::SecondLevelOff => 9,
            Self::Dirty => 10,
            Self::NoRecord => 11,
            Self::Internal => 12,
            Self::NoPrivate => 13,
        }
    }
}

/// How `simfs` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimfsExit {
    /// 0: done; `check`: the totals were right.
    Ok,
    /// 1: failed. `check --repair`: the totals were wrong and are right now.
    Failed,
    /// 2: the command line makes no sense.
    Usage,
    /// 4: `check`: the totals are wrong.
    Differs,
    /// 8: `check`: could not be done.
    CheckFailed,
}

impl SimfsExit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Differs => 4,
            Self::CheckFailed => 8,
        }
    }
}

/// How `mount.simfs` ends: what mount(8) expects of its helpers.
///
/// # Source
/// mount(8), "EXIT STATUS".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountHelperExit {
    /// 0: mounted.
    Ok,
    /// 1: wrong call, or not permitted.
    Usage,
    /// 2: out of memory, descriptors or loop devices, or another system error.
    System,
    /// 32: the mount failed.
    Failed,
}

impl MountHelperExit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 1,
            Self::System => 2,
            Self::Failed => 32,
        }
    }
}

/// How `vzctl`, `vzlist` and `vzpkg` end.
///
/// # Source
/// vzctl(8), "EXIT STATUS"; vzctl `include/vzerror.h`. Where the original names an OpenVZ kernel, read "the container
/// runtime".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VzctlExit {
    /// 0: done.
    Ok,
    /// 1: a resource limit could not be set.
    Limit,
    /// 3: a system call or program failed.
    System,
    /// 5: there is no usable container runtime.
    NoRuntime,
    /// 9: another command works on the VE.
    Locked,
    /// 12: not permitted.
    Denied,
    /// 14: a configuration file is missing or wrong.
    Config,
    /// 20: the command line makes no sense.
    Usage,
    /// 21: a value makes no sense.
    Value,
    /// 29: no template was named.
    NoTemplateNamed,
    /// 31: the VE does not run.
    NotRunning,
    /// 32: the VE runs.
    Running,
    /// 33: the VE could not be stopped.
    Stop,
    /// 40: the VE is not mounted.
    NotMounted,
    /// 41: the VE is mounted.
    Mounted,
    /// 43: there is no private area.
    NoPrivate,
    /// 44: there is a private area already.
    PrivateExists,
    /// 46: not enough disk space, or more files than the limits allow.
    NoSpace,
    /// 47: the VE has no program to start.
    BrokenVe,
    /// 48: the private area could not be made.
    Private,
    /// 50: the VE could not be mounted.
    Mount,
    /// 51: the VE could not be unmounted.
    Unmount,
    /// 52: the VE could not be removed.
    Destroy,
    /// 60: quota could not be switched on.
    QuotaOn,
    /// 61: the quota record could not be made.
    QuotaInit,
    /// 62: limits could not be set.
    SetLimit,
    /// 65: limits of users and groups could not be set up.
    SecondLevel,
    /// 66: quota could not be switched off.
    QuotaOff,
    /// 79: an action script failed.
    Script,
    /// 91: the template was not found.
    NoTemplate,
    /// 131: the name belongs to another VE.
    NameTaken,
}

impl VzctlExit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Limit => 1,
            Self::System => 3,
            Self::NoRuntime => 5,
            Self::Locked => 9,
            Self::Denied => 12,
            Self::Config => 14,
            Self::Usage => 20,
            Self::Value => 21,
            Self::NoTemplateNamed => 29,
            Self::NotRunning => 31,
            Self::Running => 32,
            Self::Stop => 33,
            Self::NotMounted => 40,
            Self::Mounted => 41,
            Self::NoPrivate => 43,
            Self::PrivateExists => 44,
            Self::NoSpace => 46,
            Self::BrokenVe => 47,
            Self::Private => 48,
            Self::Mount => 50,
            Self::Unmount => 51,
            Self::Destroy => 52,
            Self::QuotaOn => 60,
            Self::QuotaInit => 61,
            Self::SetLimit => 62,
            Self::SecondLevel => 65,
            Self::QuotaOff => 66,
            Self::Script => 79,
            Self::NoTemplate => 91,
            Self::NameTaken => 131,
        }
    }
}

macro_rules! exit_code {
    ($($name:ident),*) => {$(
        impl From<$name> for ExitCode {
            fn from(exit: $name) -> Self {
                Self::from(exit.code())
            }
        }
    )*};
}
exit_code!(VzquotaExit, SimfsExit, MountHelperExit, VzctlExit);

/// Why a command ends early: the exit code, and one line that names the value and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure<E> {
    /// What scripts see.
    pub exit: E,
    /// What people see.
    pub message: String,
}

impl<E> Failure<E> {
    /// Ends with this code and message.
    pub fn new(exit: E, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    /// The same failure, said of something: `about: message`.
    #[must_use]
    pub fn about(self, about: impl fmt::Display) -> Self {
        Self {
            message: format!("{about}: {}", self.message),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vzquota_codes_are_those_of_the_manual() {
        use VzquotaExit as X;
        let table = [
            (X::Ok, 0),
            (X::System, 1),
            (X::Usage, 2),
            (X::Mount, 3),
            (X::Store, 4),
            (X::Running, 5),
            (X::NotRunning, 6),
            (X::Locked, 7),
            (X::CrossesMount, 8),
            (X::SecondLevelOff, 9),
            (X::Dirty, 10),
            (X::NoRecord, 11),
            (X::Internal, 12),
            (X::NoPrivate, 13),
        ];
        for (exit, code) in table {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }
}

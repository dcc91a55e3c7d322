//! The exit codes, documented once, and the error that carries one to `main`.

use std::fmt;
use std::process::ExitCode;

/// An enum of exit codes, each with its number and what it means.
macro_rules! exits {
    ($(#[$about:meta])* $name:ident { $($variant:ident = $code:literal $meaning:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {$(
            #[doc = concat!(stringify!($code), ": ", $meaning, ".")]
            $variant,
        )*}

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The number.
            pub const fn code(self) -> u8 {
                match self {
                    $(Self::$variant => $code,)*
                }
            }
        }

        impl Exit for $name {
            fn row(self) -> (u8, &'static str) {
                match self {
                    $(Self::$variant => ($code, $meaning),)*
                }
            }
        }

        impl From<$name> for ExitCode {
            fn from(exit: $name) -> Self {
                Self::from(exit.code())
            }
        }
    };
}

/// An exit code that says what it means: what `--help` and the manual pages show.
pub trait Exit: Copy {
    /// The number, and what it means.
    fn row(self) -> (u8, &'static str);
}

/// The codes as the last paragraph of `--help`.
pub fn help(exits: &[impl Exit]) -> String {
    let rows: Vec<String> = exits
        .iter()
        .map(|exit| {
            let (code, meaning) = exit.row();
            format!("{code} {meaning}")
        })
        .collect();
    format!("Exit codes: {}.", rows.join("; "))
}

exits! {
    /// How `vzquota` ends.
    ///
    /// # Source
    /// vzquota `include/common.h`, vzquota(8). Where the original names the kernel's quota, read "the mount"; where it
    /// names the quota file, read "the quota store".
    VzquotaExit {
        Ok = 0 "done",
        System = 1 "a system call failed",
        Usage = 2 "the command line makes no sense",
        Mount = 3 "the running mount refused or did not answer",
        Store = 4 "the quota store is damaged or failing",
        Running = 5 "not while the VE is mounted",
        NotRunning = 6 "only while the VE is mounted",
        Locked = 7 "somebody else holds the quota store",
        CrossesMount = 8 "the private area crosses a mount point",
        SecondLevelOff = 9 "stat -t: the second level is off; the report was printed",
        Dirty = 10 "show: the stored figures are out of date; the report was printed",
        NoRecord = 11 "the VE has no quota record",
        Internal = 12 "reserved",
        NoPrivate = 13 "the private area cannot be used",
    }
}

exits! {
    /// How `simfs` ends.
    SimfsExit {
        Ok = 0 "done; check: the totals are right",
        Failed = 1 "failed; check --repair: the totals were wrong and are right now",
        Usage = 2 "the command line makes no sense",
        Differs = 4 "check: the totals are wrong",
        CheckFailed = 8 "check: it could not be done",
    }
}

exits! {
    /// How `mount.simfs` ends: what mount(8) expects of its helpers.
    ///
    /// # Source
    /// mount(8), "EXIT STATUS".
    MountHelperExit {
        Ok = 0 "mounted",
        Usage = 1 "wrong call, or not permitted",
        System = 2 "out of memory or descriptors, or another system error",
        Failed = 32 "the mount failed",
    }
}

exits! {
    /// How `vzlist` ends.
    ///
    /// # Source
    /// vzctl `src/vzlist.c` for the first two; the others are those of `vzctl`.
    VzlistExit {
        Ok = 0 "done",
        NotFound = 1 "a VE that was named does not exist",
        System = 3 "a system call failed",
        Denied = 12 "not permitted",
        Config = 14 "a configuration file is missing or wrong",
        Usage = 20 "the command line makes no sense",
        Value = 21 "a value makes no sense",
    }
}

exits! {
    /// How `vzctl` and `vzpkg` end.
    ///
    /// # Source
    /// vzctl(8), "EXIT STATUS"; vzctl `include/vzerror.h`. Where the original names an OpenVZ kernel, read "the container
    /// runtime".
    VzctlExit {
        Ok = 0 "done",
        Limit = 1 "a resource limit could not be set",
        System = 3 "a system call or program failed",
        NoRuntime = 5 "there is no usable container runtime",
        Locked = 9 "another command works on the VE",
        Denied = 12 "not permitted",
        Config = 14 "a configuration file is missing or wrong",
        Usage = 20 "the command line makes no sense",
        Value = 21 "a value makes no sense",
        NoTemplateNamed = 29 "no template was named",
        NotRunning = 31 "the VE does not run, or what is to be set needs --save",
        Running = 32 "the VE runs",
        Stop = 33 "the VE could not be stopped",
        NotMounted = 40 "the VE is not mounted",
        Mounted = 41 "the VE is mounted",
        NoPrivate = 43 "there is no private area",
        PrivateExists = 44 "there is a private area already",
        NoSpace = 46 "not enough disk space, or more files than the limits allow",
        BrokenVe = 47 "the VE has no program to start",
        Private = 48 "the private area could not be made",
        Mount = 50 "the VE could not be mounted",
        Unmount = 51 "the VE could not be unmounted",
        Destroy = 52 "the VE could not be removed",
        QuotaOn = 60 "quota could not be switched on",
        QuotaInit = 61 "the quota record could not be made",
        SetLimit = 62 "limits could not be set",
        SecondLevel = 65 "limits of users and groups could not be set up",
        QuotaOff = 66 "quota could not be switched off",
        Script = 79 "an action script failed",
        NoTemplate = 91 "the template was not found",
        NameTaken = 131 "the name belongs to another VE",
    }
}

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

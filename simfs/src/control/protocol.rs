//! What a running VE can be asked, and what it answers.
//!
//! One request is answered by one reply; only [`Request::Check`] sends [`Reply::Progress`] frames before it. The
//! messages are plain data: a value that means nothing to an older or newer program fails to decode and becomes
//! [`ErrorKind::Malformed`], never a panic. How messages become bytes is [`super::frame`]'s business.

use std::path::PathBuf;

use quota::store::copy::AccountCopy;
use quota::{
    Account, Difference, GracePeriod, Inodes, LimitsChange, QuotaType, Scope, Subject, Timestamp,
    VeId, VeInfo,
};
use serde::{Deserialize, Serialize};

use crate::sys::task::DeviceNumber;

/// Most accounts in one [`Reply::Accounts`]; a larger [`Request::Accounts::max`] is cut to this.
pub const ACCOUNTS_PER_PAGE: usize = 4096;

/// Accounts in one [`Request::SetAccounts`], so that it fits into a frame.
pub const ACCOUNTS_PER_ORDER: usize = 128;

/// Most differences listed in one [`CheckReport`]; the rest is counted in [`CheckReport::omitted`].
pub const DIFFERENCES_PER_REPORT: usize = 4096;

/// A question or an order to a running VE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// What is mounted, by whom, since when; answered by [`Reply::Status`].
    Status,
    /// What the record says of the VE as a whole; answered by [`Reply::Info`].
    Info,
    /// One account, zeros for an id that has none; answered by [`Reply::Account`].
    Account(Subject),
    /// Accounts in the order of their ids; answered by [`Reply::Accounts`].
    Accounts {
        /// Users or groups.
        kind: QuotaType,
        /// The smallest id wanted.
        from: u32,
        /// How many at most, see [`ACCOUNTS_PER_PAGE`].
        max: usize,
    },
    /// Changes limits; durable and in force at [`Reply::Done`].
    SetLimits {
        /// Whose.
        subject: Subject,
        /// To what.
        change: LimitsChange,
    },
    /// Gives accounts exactly these limits, and moves running timers to the deadlines given; all of it or nothing, in one
    /// commit. At most [`ACCOUNTS_PER_ORDER`].
    SetAccounts(Vec<AccountCopy>),
    /// Moves or stops running deadlines; the outer `None` leaves one as it is.
    SetDeadlines {
        /// Whose.
        subject: Subject,
        /// The deadline for space.
        #[serde(default, with = "kept_or_set")]
        space: Option<Option<Timestamp>>,
        /// The deadline for inodes.
        #[serde(default, with = "kept_or_set")]
        inodes: Option<Option<Timestamp>>,
    },
    /// Changes grace periods; `None` leaves one as it is.
    SetGracePeriods {
        /// Of the VE, of all users, or of all groups.
        scope: Scope,
        /// For space.
        space: Option<GracePeriod>,
        /// For inodes.
        inodes: Option<GracePeriod>,
    },
    /// Switches enforcement; accounting goes on in any case.
    SetEnforced {
        /// Of the VE, of all users, or of all groups.
        scope: Scope,
        /// Whether limits are enforced from now on.
        on: bool,
    },
    /// Stores the number of user and group ids that the administrator expects; not enforced.
    SetUgidLimit(u32),
    /// Stores another path of the private area; takes effect at the next mount.
    SetPrivate(PathBuf),
    /// Writes all totals; durable at [`Reply::Done`].
    Commit,
    /// Recounts the private area; answered by progress and [`Reply::Checked`].
    Check {
        /// Whether the totals are replaced by what was counted.
        repair: bool,
    },
    /// Stops the recount after a crash, or has it go on.
    Recount {
        /// Whether it is to go on.
        go_on: bool,
    },
    /// Unmounts; [`Reply::Done`] is sent when the mount is gone and the totals are durable, then the daemon ends.
    Stop {
        /// Detach at once, although files are in use, and end when the last of them is closed.
        lazy: bool,
    },
    /// Has another program take over: the one that [`crate::keeper::upgrade_link`] names. Where that begins, the connection
    /// ends without an answer, and what came of it is in [`VeStatus::upgrade`].
    Upgrade,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The order is carried out.
    Done {
        /// Whether anything was different before.
        changed: bool,
    },
    /// To [`Request::Status`].
    Status(Box<VeStatus>),
    /// To [`Request::Info`].
    Info(VeInfo),
    /// To [`Request::Account`].
    Account(Account),
    /// To [`Request::Accounts`].
    Accounts {
        /// Those that have usage or limits, sorted by id.
        accounts: Vec<Account>,
        /// Where to go on; `None` when these were the last.
        next: Option<u32>,
    },
    /// How far a long request is; more frames follow.
    Progress(Progress),
    /// To [`Request::Check`].
    Checked(CheckReport),
    /// The request was not carried out, and nothing changed.
    Error(RequestError),
}

/// How far a walk over the private area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Inodes looked at.
    pub done: Inodes,
    /// Inodes expected; an estimate.
    pub total_estimate: Inodes,
}

/// One running VE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VeStatus {
    /// Its number.
    pub ve: VeId,
    /// What it is doing.
    pub state: VeState,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The directory that is served.
    pub private: PathBuf,
    /// The daemon's process id.
    pub pid: u32,
    /// The process that keeps the mount when the daemon dies, if there is one.
    pub keeper_pid: Option<u32>,
    /// When the mount was made.
    pub since: Timestamp,
    /// Whether the VE has a quota record at all (`--no-quota` mounts have none).
    pub quota: bool,
    /// Device number of the mount (`st_dev` of its root), major and minor.
    pub device: DeviceNumber,
    /// The VE's account; zeros without a quota record.
    pub account: Account,
    /// How far a recovery or check is.
    pub progress: Option<Progress>,
    /// Inodes that the kernel holds references to.
    pub nodes: u64,
    /// Open files and directories.
    pub handles: u64,
    /// Promises that could not be kept, in words.
    pub degraded: Vec<String>,
    /// The program that serves the VE.
    #[serde(default)]
    pub program: Option<PathBuf>,
    /// How many daemons ended without being asked, each followed by a successor.
    #[serde(default)]
    pub restarts: u64,
    /// How the last of them ended.
    #[serde(default)]
    pub last_death: Option<String>,
    /// The last attempt to have another program take over.
    #[serde(default)]
    pub upgrade: Option<Upgrade>,
}

/// An attempt to have another program take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// Counts up from 1 while the mount lives.
    pub attempt: u32,
    /// What came of it.
    pub outcome: UpgradeOutcome,
}

/// What came of an attempt to have another program take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeOutcome {
    /// It was started a moment ago.
    Starting,
    /// It serves.
    Running,
    /// It could not, for this reason; the program before it serves.
    Reverted(String),
}

/// What a running VE is doing beside serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VeState {
    /// Nothing else.
    Mounted,
    /// Correcting totals after a power loss.
    Recovering,
    /// Recounting on request.
    Checking,
    /// Unmounting.
    Stopping,
}

/// The outcome of a recount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Whether the totals were right.
    pub equal: bool,
    /// Whether they are now, because they were replaced.
    pub repaired: bool,
    /// Where they were not, see [`DIFFERENCES_PER_REPORT`].
    pub differences: Vec<Difference>,
    /// How many differences are not listed.
    pub omitted: u64,
    /// Inodes counted.
    pub inodes_seen: Inodes,
}

impl CheckReport {
    /// The report on these differences, of which only the first are listed.
    pub fn new(repaired: bool, mut differences: Vec<Difference>, inodes_seen: Inodes) -> Self {
        let equal = differences.is_empty();
        let all = differences.len();
        differences.truncate(DIFFERENCES_PER_REPORT);
        let omitted = u64::try_from(all.saturating_sub(differences.len())).unwrap_or(u64::MAX);
        Self {
            equal,
            repaired,
            differences,
            omitted,
            inodes_seen,
        }
    }
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// For programs.
    pub kind: ErrorKind,
    /// For people: one line that names the value and the remedy.
    pub message: String,
}

impl RequestError {
    /// An error of this kind with this message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// The sorts of [`RequestError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// A value is not acceptable (a soft limit above the hard one, ...).
    Invalid,
    /// The mount is in use, or another long request runs.
    Busy,
    /// Unmounted here, but another mount namespace, or an open file, has it still: the daemon serves until that ends.
    Held,
    /// The mount is gone and its daemon about to end: the request can be carried out without it then.
    Ending,
    /// The VE has no quota record.
    NoRecord,
    /// This program cannot do that.
    Unsupported,
    /// The quota store refuses: damaged, full, or failing.
    Store,
    /// A system call failed.
    System,
    /// The request could not be understood.
    Malformed,
}

/// `Option<Option<T>>` in JSON: `null` is "keep", `[]` is "none", `[x]` is "x".
mod kept_or_set {
    use quota::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Kept = Option<Option<Timestamp>>;

    pub(super) fn serialize<S: Serializer>(value: &Kept, to: S) -> Result<S::Ok, S::Error> {
        value
            .map(|inner| inner.map_or_else(Vec::new, |time| vec![time]))
            .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Kept, D::Error> {
        let list = Option::<Vec<Timestamp>>::deserialize(from)?;
        Ok(list.map(|times| times.first().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quota::{Bytes, Deadlines, Limit, Limits, Setting, Uid};

    #[test]
    fn unchanged_none_and_some_stay_apart_on_the_wire() {
        for space in [None, Some(None), Some(Some(Timestamp::new(5)))] {
            for inodes in [None, Some(None), Some(Some(Timestamp::new(-1)))] {
                let request = Request::SetDeadlines {
                    subject: Subject::User(Uid::new(7)),
                    space,
                    inodes,
                };
                let text = serde_json::to_string(&request).unwrap();
                assert_eq!(
                    serde_json::from_str::<Request>(&text).unwrap(),
                    request,
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn the_largest_order_on_accounts_fits_into_a_frame() {
        let account = AccountCopy {
            subject: Subject::User(Uid::new(u32::MAX)),
            limits: Limits {
                space: Limit::new(Some(Bytes::new(u64::MAX)), Some(Bytes::new(u64::MAX))),
                inodes: Limit::new(Some(Inodes::new(u64::MAX)), Some(Inodes::new(u64::MAX))),
            },
            deadlines: Deadlines {
                space: Some(Timestamp::new(i64::MIN)),
                inodes: Some(Timestamp::new(i64::MIN)),
            },
        };
        let request = Request::SetAccounts(vec![account; ACCOUNTS_PER_ORDER]);
        let text = serde_json::to_string(&request).unwrap();
        let max = usize::try_from(crate::control::frame::MAX_REQUEST).unwrap();
        assert!(text.len() < max, "{} bytes", text.len());
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    }

    #[test]
    fn unlimited_is_not_zero_on_the_wire() {
        for hard in [
            Setting::Keep,
            Setting::Unlimited,
            Setting::To(quota::Bytes::ZERO),
        ] {
            let change = LimitsChange {
                space_hard: hard,
                ..LimitsChange::default()
            };
            let request = Request::SetLimits {
                subject: Subject::Ve,
                change,
            };
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(
                serde_json::from_str::<Request>(&text).unwrap(),
                request,
                "{text}"
            );
        }
    }

    #[test]
    fn a_report_lists_a_bounded_number_of_differences() {
        let difference = |id| Difference {
            subject: Subject::User(Uid::new(id)),
            recorded: quota::Usage::ZERO,
            counted: quota::Usage::ZERO,
        };
        let report = CheckReport::new(false, (0..5000).map(difference).collect(), Inodes::ZERO);
        assert_eq!(
            (report.equal, report.differences.len(), report.omitted),
            (false, 4096, 904)
        );
        assert!(CheckReport::new(false, Vec::new(), Inodes::ZERO).equal);
    }
}

//! What each command of quotactl(2) answers: pure over the caller, the arguments and the second level's state.
//!
//! A call is judged in two steps, in the kernel's order: [`authorize`] says who may ask what, before any of the
//! caller's data is read; [`carry_out`] does it. Switching quota off ends enforcement only: accounts can be read and
//! limits set as before, as on a filesystem that keeps quota itself.
//!
//! # Source
//! Linux `fs/quota/quota.c`, `do_quotactl` and `check_quotactl_permission`.

use quota::{GracePeriod, GracePeriods, LimitsChange, QuotaType};

use super::abi::command::{CallType, Command, CommandWord};
use super::abi::generic::{DiskQuota, IIF_ALL, IIF_BGRACE, IIF_FLAGS, IIF_IGRACE, QuotaInfo};
use super::abi::xfs::{
    FS_DQ_BHARD, FS_DQ_BIGTIME, FS_DQ_BSOFT, FS_DQ_BTIMER, FS_DQ_IHARD, FS_DQ_ISOFT, FS_DQ_ITIMER,
    FS_DQ_RTBTIMER, GROUPS_ACCOUNTED, GROUPS_ENFORCED, QuotaState, USERS_ACCOUNTED, USERS_ENFORCED,
    XfsQuota,
};
use super::abi::{Input, Output};
use super::caller::Caller;
use super::convert;
use super::id_map::IdMap;
use super::refusal::Refusal;
use super::second_level::{Account, DeadlinesChange, GraceChange, SecondLevel, SecondLevelError};

/// `QFMT_VFS_V1`
const FORMAT_VFSV1: u32 = 4;
/// `DQF_ROOT_SQUASH`: the one flag that the kernel lets through, for a format that nobody has any more.
const DQF_SETINFO_MASK: u32 = 1;
/// The number that is no id, in any user namespace.
const NOBODY: u32 = u32::MAX;

/// A call that its caller may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permitted {
    /// What to do.
    pub command: Command,
    /// For users, groups or projects.
    pub kind: CallType,
    /// For whom, as the caller names it.
    pub id: u32,
}

/// Whether anybody may give this command.
pub const fn is_open_to_all(command: Command) -> bool {
    matches!(
        command,
        Command::GetFormat
            | Command::GetInfo
            | Command::Sync
            | Command::XfsState
            | Command::XfsStateVersioned
            | Command::XfsSync
    )
}

/// Judges type, permission and command. `caller` is asked for only where the answer depends on it.
///
/// # Errors
/// `Invalid` for unknown types and commands, `NotPermitted`, and those of `caller`.
pub fn authorize(
    word: CommandWord,
    id: u32,
    caller: impl FnOnce() -> Result<Caller, Refusal>,
) -> Result<(Permitted, Option<Caller>), Refusal> {
    let kind = word.kind.ok_or(Refusal::Invalid)?;
    if let Some(command) = word.command.filter(|command| is_open_to_all(*command)) {
        return Ok((Permitted { command, kind, id }, None));
    }
    let caller = caller()?;
    let owns = match word.command {
        Some(Command::GetQuota | Command::XfsGetQuota) => owns_account(&caller, kind, id),
        _ => false,
    };
    if !caller.is_admin && !owns {
        return Err(Refusal::NotPermitted);
    }
    // Only whoever may do everything learns which commands there are.
    let command = word.command.ok_or(Refusal::Invalid)?;
    Ok((Permitted { command, kind, id }, Some(caller)))
}

/// Does what was permitted. `caller` is the one that [`authorize`] looked at.
///
/// # Errors
/// Those of the command; `Fault` if the record cannot be read or written.
pub fn carry_out(
    call: Permitted,
    caller: Option<&Caller>,
    input: &Input,
    level: &dyn SecondLevel,
) -> Result<Output, Refusal> {
    let Permitted { command, kind, id } = call;
    let CallType::Known(kind) = kind else {
        return without_projects(command, id, input, level);
    };
    let names = caller.map(|caller| names(caller, kind));
    match (command, names, input) {
        (Command::Sync, ..) => level.sync().map_err(fault).map(|()| Output::None),
        (Command::XfsSync, ..) => Ok(Output::None),
        // Also while off: otherwise quotaon(8) does not find the filesystem again.
        (Command::GetFormat, ..) => Ok(Output::Format(FORMAT_VFSV1)),
        (Command::GetInfo, ..) => Ok(Output::Info(convert::quota_info(level.grace_periods(kind)))),
        (Command::XfsState, ..) => Ok(Output::XfsState(state(level.grace_periods(kind), level))),
        (Command::XfsStateVersioned, _, Input::Version(QuotaState::VERSION)) => Ok(
            Output::XfsStateVersioned(state(level.grace_periods(kind), level)),
        ),
        (Command::QuotaOn, ..) => switch(kind, true, level),
        (Command::QuotaOff, ..) => switch(kind, false, level),
        (Command::XfsQuotaOn, _, Input::XfsFlags(flags)) => xfs_switch(*flags, true, level),
        (Command::XfsQuotaOff, _, Input::XfsFlags(flags)) => xfs_switch(*flags, false, level),
        (Command::XfsRemove, ..) => Err(Refusal::NotSupported),
        (Command::SetInfo, _, Input::Info(info)) => set_info(kind, info, level),
        (Command::GetQuota | Command::XfsGetQuota, Some(names), _) => {
            let account = account(kind, id, names, level)?;
            Ok(show(command, kind, id, &account))
        }
        (Command::GetNextQuota | Command::XfsGetNextQuota, Some(names), _) => {
            let (name, account) = next_account(kind, id, names, level)?;
            Ok(show(command, kind, name, &account))
        }
        (Command::SetQuota, Some(names), Input::Quota(quota)) => {
            set_quota(kind, outside(names, id)?, quota, level)
        }
        (Command::XfsSetLimits, Some(names), Input::XfsQuota(quota)) => {
            xfs_set(kind, id, outside(names, id)?, quota, level)
        }
        _ => Err(Refusal::Invalid),
    }
}

/// The same for projects, a type that the kernel knows and that is never on here.
///
/// # Source
/// As an ext4 without the feature `project` answers.
fn without_projects(
    command: Command,
    id: u32,
    input: &Input,
    level: &dyn SecondLevel,
) -> Result<Output, Refusal> {
    let none = GracePeriods::both(GracePeriod::new(0));
    match (command, input) {
        (Command::Sync, _) => level.sync().map_err(fault).map(|()| Output::None),
        (Command::XfsSync, _) => Ok(Output::None),
        (Command::XfsState, _) => Ok(Output::XfsState(state(none, level))),
        (Command::XfsStateVersioned, Input::Version(QuotaState::VERSION)) => {
            Ok(Output::XfsStateVersioned(state(none, level)))
        }
        (Command::XfsQuotaOn, Input::XfsFlags(flags)) => xfs_switch(*flags, true, level),
        (Command::XfsQuotaOff, Input::XfsFlags(flags)) => xfs_switch(*flags, false, level),
        (Command::QuotaOff, _) => Err(Refusal::AlreadySo),
        (Command::XfsRemove, _) => Err(Refusal::NotSupported),
        (Command::QuotaOn | Command::XfsStateVersioned, _) => Err(Refusal::Invalid),
        (Command::GetFormat | Command::GetInfo | Command::SetInfo, _) => Err(Refusal::QuotaOff),
        _ if id == NOBODY => Err(Refusal::Invalid),
        _ => Err(Refusal::QuotaOff),
    }
}

fn owns_account(caller: &Caller, kind: CallType, id: u32) -> bool {
    match kind {
        CallType::Known(QuotaType::User) => caller.uids.to_outside(id) == Some(caller.euid),
        CallType::Known(QuotaType::Group) => caller
            .gids
            .to_outside(id)
            .is_some_and(|gid| caller.is_member(gid)),
        CallType::Project => false,
    }
}

const fn names(caller: &Caller, kind: QuotaType) -> &IdMap {
    match kind {
        QuotaType::User => &caller.uids,
        QuotaType::Group => &caller.gids,
    }
}

fn outside(names: &IdMap, id: u32) -> Result<u32, Refusal> {
    names.to_outside(id).ok_or(Refusal::Invalid)
}

fn account(
    kind: QuotaType,
    id: u32,
    names: &IdMap,
    level: &dyn SecondLevel,
) -> Result<Account, Refusal> {
    level.account(kind, outside(names, id)?).map_err(fault)
}

/// The next account in the order of the caller's names; ids that it has no name for are passed over.
fn next_account(
    kind: QuotaType,
    from: u32,
    names: &IdMap,
    level: &dyn SecondLevel,
) -> Result<(u32, Account), Refusal> {
    if from == NOBODY {
        return Err(Refusal::Invalid);
    }
    for extent in names.extents() {
        let Some(start) = extent.first_outside_from(from) else {
            continue;
        };
        let Some(account) = level.next_account(kind, start).map_err(fault)? else {
            continue;
        };
        if let Some(name) = extent.to_inside(account.id) {
            return Ok((name, account));
        }
    }
    Err(Refusal::NoMoreAccounts)
}

fn show(command: Command, kind: QuotaType, name: u32, account: &Account) -> Output {
    match command {
        Command::GetQuota => Output::Quota(convert::disk_quota(account)),
        Command::GetNextQuota => Output::NextQuota(convert::disk_quota(account), name),
        _ => Output::XfsQuota(convert::xfs_quota(kind, name, account)),
    }
}

fn set_quota(
    kind: QuotaType,
    id: u32,
    quota: &DiskQuota,
    level: &dyn SecondLevel,
) -> Result<Output, Refusal> {
    let (limits, deadlines) = convert::generic_change(quota)?;
    set_account(kind, id, limits, deadlines, level)
}

/// Limits first: they start and stop timers, and a deadline counts only while a timer runs.
fn set_account(
    kind: QuotaType,
    id: u32,
    limits: LimitsChange,
    deadlines: DeadlinesChange,
    level: &dyn SecondLevel,
) -> Result<Output, Refusal> {
    if !limits.is_empty() {
        level.set_limits(kind, id, &limits).map_err(fault)?;
    }
    if deadlines != DeadlinesChange::default() {
        level.set_deadlines(kind, id, deadlines).map_err(fault)?;
    }
    Ok(Output::None)
}

fn xfs_set(
    kind: QuotaType,
    name: u32,
    id: u32,
    quota: &XfsQuota,
    level: &dyn SecondLevel,
) -> Result<Output, Refusal> {
    const TIMERS: u16 = FS_DQ_BTIMER | FS_DQ_ITIMER | FS_DQ_RTBTIMER;
    const LIMITS: u16 = FS_DQ_ISOFT | FS_DQ_IHARD | FS_DQ_BSOFT | FS_DQ_BHARD;
    if quota.fields & !(TIMERS | LIMITS | FS_DQ_BIGTIME) != 0 {
        return Err(Refusal::Invalid);
    }
    let (limits, mut deadlines) = convert::xfs_change(quota)?;
    if name == 0 && quota.fields & TIMERS != 0 {
        set_grace(kind, convert::xfs_grace_change(quota)?, level)?;
        deadlines = DeadlinesChange::default();
    }
    set_account(kind, id, limits, deadlines, level)
}

fn set_info(kind: QuotaType, info: &QuotaInfo, level: &dyn SecondLevel) -> Result<Output, Refusal> {
    let bad_flags = info.valid & IIF_FLAGS != 0 && info.flags & !DQF_SETINFO_MASK != 0;
    let squash = info.valid & IIF_FLAGS != 0 && info.flags & DQF_SETINFO_MASK != 0;
    if info.valid & !IIF_ALL != 0 || bad_flags || squash {
        return Err(Refusal::Invalid);
    }
    let period =
        |bit: u32, seconds: u64| (info.valid & bit != 0).then_some(GracePeriod::new(seconds));
    let change = GraceChange {
        space: period(IIF_BGRACE, info.space_grace),
        inodes: period(IIF_IGRACE, info.inodes_grace),
    };
    set_grace(kind, change, level)
}

fn set_grace(
    kind: QuotaType,
    change: GraceChange,
    level: &dyn SecondLevel,
) -> Result<Output, Refusal> {
    if change != GraceChange::default() {
        level.set_grace_periods(kind, change).map_err(fault)?;
    }
    Ok(Output::None)
}

fn state(grace: GracePeriods, level: &dyn SecondLevel) -> QuotaState {
    let on = |kind, flag| if level.is_enforced(kind) { flag } else { 0 };
    // A period beyond 32 bits is never reached either way.
    let seconds = |period: GracePeriod| {
        u32::try_from(period.get())
            .unwrap_or(u32::MAX)
            .min(i32::MAX.unsigned_abs())
    };
    QuotaState {
        flags: USERS_ACCOUNTED
            | GROUPS_ACCOUNTED
            | on(QuotaType::User, USERS_ENFORCED)
            | on(QuotaType::Group, GROUPS_ENFORCED),
        space_grace: seconds(grace.space),
        inodes_grace: seconds(grace.inodes),
    }
}

/// `Q_QUOTAON` and `Q_QUOTAOFF`.
///
/// # Source
/// Linux `fs/ext4/super.c`, `ext4_quota_on`: without quota there is nothing to switch on.
fn switch(kind: QuotaType, on: bool, level: &dyn SecondLevel) -> Result<Output, Refusal> {
    if on && !level.is_offered() {
        return Err(Refusal::Invalid);
    }
    if level.is_enforced(kind) == on {
        return Err(Refusal::AlreadySo);
    }
    level.set_enforced(kind, on).map_err(fault)?;
    Ok(Output::None)
}

/// `Q_XQUOTAON` and `Q_XQUOTAOFF`: flags name the types. Accounting cannot be switched.
///
/// # Source
/// Linux `fs/quota/dquot.c`, `dquot_quota_enable` and `dquot_quota_disable`.
fn xfs_switch(flags: u32, on: bool, level: &dyn SecondLevel) -> Result<Output, Refusal> {
    const ACCOUNTED: u32 = 1 | 4 | 0x10;
    let asked = |flag: u16| flags & u32::from(flag) != 0;
    if !on && flags & ACCOUNTED != 0 {
        return Err(Refusal::CannotSwitch);
    }
    let all = [
        (QuotaType::User, USERS_ENFORCED),
        (QuotaType::Group, GROUPS_ENFORCED),
    ];
    let mut kinds = all
        .into_iter()
        .filter(|(_, flag)| asked(*flag))
        .map(|(kind, _)| kind);
    let known = ACCOUNTED | u32::from(USERS_ENFORCED) | u32::from(GROUPS_ENFORCED);
    if flags & !known != 0 || flags & !ACCOUNTED == 0 {
        return Err(Refusal::Invalid);
    }
    // As `quota_enable` in fs/quota/quota.c for a filesystem that has no such call.
    if on && !level.is_offered() {
        return Err(Refusal::NotSupported);
    }
    // On: all of them must be off. Off: it is enough that one is on.
    let so = |kind: QuotaType| level.is_enforced(kind) == on;
    let refused = if on {
        kinds.clone().any(so)
    } else {
        kinds.clone().all(so)
    };
    if refused {
        return Err(Refusal::AlreadySo);
    }
    kinds
        .try_for_each(|kind| level.set_enforced(kind, on))
        .map_err(fault)?;
    Ok(Output::None)
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn fault(error: SecondLevelError) -> Refusal {
    tracing::error!(%error, "quotactl: not carried out");
    Refusal::Fault
}

//! Between accounts and the structures of the interface.
//!
//! Sizes shown are rounded up. Zero is "no limit" at this border: a limit of nothing at all, which the interface
//! cannot name, is shown as the smallest one it can.
//!
//! # Source
//! Linux `fs/quota/quota.c`, `stoqb`, `copy_to_if_dqblk`, `copy_to_xfs_dqblk`; quotactl(2).

use quota::{
    Blocks, Bytes, GracePeriod, GracePeriods, Inodes, LimitsChange, QuotaType, Sectors, Setting,
    Timestamp,
};

use super::abi::generic::{
    DQF_SYS_FILE, DiskQuota, IIF_ALL, QIF_ALL, QIF_BLIMITS, QIF_BTIME, QIF_ILIMITS, QIF_ITIME,
    QuotaInfo,
};
use super::abi::xfs::{
    FS_DQ_BHARD, FS_DQ_BIGTIME, FS_DQ_BSOFT, FS_DQ_BTIMER, FS_DQ_IHARD, FS_DQ_ISOFT, FS_DQ_ITIMER,
    XfsQuota,
};
use super::refusal::Refusal;
use super::second_level::{Account, DeadlinesChange, GraceChange};

/// Largest limit of space or inodes, as in Linux.
const LIMIT_MAX: u64 = i64::MAX.unsigned_abs();

/// An account as `Q_GETQUOTA` shows it.
pub fn disk_quota(account: &Account) -> DiskQuota {
    let kib = |limit: Option<Bytes>| shown(limit.map(|bytes| Blocks::ceil_from(bytes).get()));
    let inodes = |limit: Option<Inodes>| shown(limit.map(Inodes::get));
    let time = |deadline: Option<Timestamp>| {
        deadline.map_or(0, |deadline| u64::try_from(deadline.get()).unwrap_or(0))
    };
    DiskQuota {
        space_hard_kib: kib(account.limits.space.hard),
        space_soft_kib: kib(account.limits.space.soft),
        space_bytes: account.usage.space.get(),
        inodes_hard: inodes(account.limits.inodes.hard),
        inodes_soft: inodes(account.limits.inodes.soft),
        inodes: account.usage.inodes.get(),
        space_deadline: time(account.deadlines.space),
        inodes_deadline: time(account.deadlines.inodes),
        valid: QIF_ALL,
    }
}

/// An account as `Q_XGETQUOTA` shows it under this name.
pub fn xfs_quota(kind: QuotaType, id: u32, account: &Account) -> XfsQuota {
    let sectors = |bytes: Bytes| bytes.get().div_ceil(Sectors::SIZE);
    let space = |limit: Option<Bytes>| shown(limit.map(sectors));
    let inodes = |limit: Option<Inodes>| shown(limit.map(Inodes::get));
    let seconds = |deadline: Option<Timestamp>| deadline.map_or(0, Timestamp::get);
    let times = [
        seconds(account.deadlines.space),
        seconds(account.deadlines.inodes),
    ];
    let big = times.iter().any(|&time| i32::try_from(time).is_err());
    let timer = |time: i64| {
        let [a, b, c, d, e, ..] = time.to_le_bytes();
        (u32::from_le_bytes([a, b, c, d]), if big { e } else { 0 })
    };
    let [space_time, inodes_time] = times;
    XfsQuota {
        flags: match kind {
            QuotaType::User => 1,
            QuotaType::Group => 4,
        },
        fields: if big { FS_DQ_BIGTIME } else { 0 },
        id,
        space_hard_sectors: space(account.limits.space.hard),
        space_soft_sectors: space(account.limits.space.soft),
        inodes_hard: inodes(account.limits.inodes.hard),
        inodes_soft: inodes(account.limits.inodes.soft),
        space_sectors: sectors(account.usage.space),
        inodes: account.usage.inodes.get(),
        inodes_timer: timer(inodes_time),
        space_timer: timer(space_time),
    }
}

/// Grace periods as `Q_GETINFO` shows them. The flag tells the tools that there are no quota files.
pub fn quota_info(grace: GracePeriods) -> QuotaInfo {
    QuotaInfo {
        space_grace: grace.space.get(),
        inodes_grace: grace.inodes.get(),
        flags: DQF_SYS_FILE,
        valid: IIF_ALL,
    }
}

/// What `Q_SETQUOTA` asks for. Usage is never taken from a caller, whatever bits are set.
///
/// # Errors
/// A limit or a time that cannot be stored.
pub fn generic_change(quota: &DiskQuota) -> Result<(LimitsChange, DeadlinesChange), Refusal> {
    let mut limits = LimitsChange::default();
    let kib = |kib: u64| space_setting(Blocks::new(kib).checked_bytes());
    if quota.valid & QIF_BLIMITS != 0 {
        limits.space_soft = kib(quota.space_soft_kib)?;
        limits.space_hard = kib(quota.space_hard_kib)?;
    }
    if quota.valid & QIF_ILIMITS != 0 {
        limits.inodes_soft = inodes_setting(quota.inodes_soft)?;
        limits.inodes_hard = inodes_setting(quota.inodes_hard)?;
    }
    let time = |bit: u32, seconds: u64| {
        if quota.valid & bit == 0 {
            return Ok(None);
        }
        i64::try_from(seconds)
            .map(|time| Some(deadline(time)))
            .map_err(|_| Refusal::OutOfRange)
    };
    let deadlines = DeadlinesChange {
        space: time(QIF_BTIME, quota.space_deadline)?,
        inodes: time(QIF_ITIME, quota.inodes_deadline)?,
    };
    Ok((limits, deadlines))
}

/// What `Q_XSETQLIM` asks for, for one account.
///
/// # Errors
/// A limit that cannot be stored.
pub fn xfs_change(quota: &XfsQuota) -> Result<(LimitsChange, DeadlinesChange), Refusal> {
    let asked = |bit: u16| quota.fields & bit != 0;
    let mut limits = LimitsChange::default();
    let sectors = |count: u64| space_setting(count.checked_mul(Sectors::SIZE).map(Bytes::new));
    if asked(FS_DQ_BSOFT) {
        limits.space_soft = sectors(quota.space_soft_sectors)?;
    }
    if asked(FS_DQ_BHARD) {
        limits.space_hard = sectors(quota.space_hard_sectors)?;
    }
    if asked(FS_DQ_ISOFT) {
        limits.inodes_soft = inodes_setting(quota.inodes_soft)?;
    }
    if asked(FS_DQ_IHARD) {
        limits.inodes_hard = inodes_setting(quota.inodes_hard)?;
    }
    let time = |bit: u16, timer| asked(bit).then(|| deadline(xfs_seconds(quota.fields, timer)));
    let deadlines = DeadlinesChange {
        space: time(FS_DQ_BTIMER, quota.space_timer),
        inodes: time(FS_DQ_ITIMER, quota.inodes_timer),
    };
    Ok((limits, deadlines))
}

/// What `Q_XSETQLIM` asks for in the timers of id 0: grace periods.
///
/// # Errors
/// A negative length of time.
pub fn xfs_grace_change(quota: &XfsQuota) -> Result<GraceChange, Refusal> {
    let period = |bit: u16, timer| {
        if quota.fields & bit == 0 {
            return Ok(None);
        }
        let seconds = u64::try_from(xfs_seconds(quota.fields, timer));
        seconds
            .map(|seconds| Some(GracePeriod::new(seconds)))
            .map_err(|_| Refusal::Invalid)
    };
    Ok(GraceChange {
        space: period(FS_DQ_BTIMER, quota.space_timer)?,
        inodes: period(FS_DQ_ITIMER, quota.inodes_timer)?,
    })
}

/// A limit as shown, where zero means none.
fn shown(limit: Option<u64>) -> u64 {
    limit.map_or(0, |limit| limit.max(1))
}

/// A moment as given, where zero stops the timer.
fn deadline(seconds: i64) -> Option<Timestamp> {
    (seconds != 0).then(|| Timestamp::new(seconds))
}

fn space_setting(limit: Option<Bytes>) -> Result<Setting<Bytes>, Refusal> {
    match limit {
        Some(Bytes::ZERO) => Ok(Setting::Unlimited),
        Some(limit) if limit.get() <= LIMIT_MAX => Ok(Setting::To(limit)),
        _ => Err(Refusal::OutOfRange),
    }
}

fn inodes_setting(limit: u64) -> Result<Setting<Inodes>, Refusal> {
    match limit {
        0 => Ok(Setting::Unlimited),
        limit if limit <= LIMIT_MAX => Ok(Setting::To(Inodes::new(limit))),
        _ => Err(Refusal::OutOfRange),
    }
}

/// A timer of XFS: signed, with 32 or 40 bits.
fn xfs_seconds(fields: u16, (low, high): (u32, u8)) -> i64 {
    if fields & FS_DQ_BIGTIME == 0 {
        return i64::from(low.cast_signed());
    }
    (i64::from(high.cast_signed()) << 32) | i64::from(low)
}

#[cfg(test)]
mod tests {
    use quota::{Deadlines, Limit, Limits, Usage};

    use super::*;

    fn account() -> Account {
        Account {
            id: 7,
            usage: Usage::new(Bytes::new(1025), Inodes::new(3)),
            limits: Limits {
                space: Limit::new(Some(Bytes::new(1024)), Some(Bytes::new(2049))),
                inodes: Limit::new(None, Some(Inodes::ZERO)),
            },
            deadlines: Deadlines {
                space: Some(Timestamp::new(5)),
                inodes: None,
            },
        }
    }

    #[test]
    fn sizes_are_shown_in_their_units_rounded_up() {
        let quota = disk_quota(&account());
        assert_eq!((quota.space_soft_kib, quota.space_hard_kib), (1, 3));
        assert_eq!(quota.space_bytes, 1025);
        let xfs = xfs_quota(QuotaType::Group, 9, &account());
        assert_eq!((xfs.space_soft_sectors, xfs.space_hard_sectors), (2, 5));
        assert_eq!((xfs.space_sectors, xfs.flags, xfs.id), (3, 4, 9));
    }

    #[test]
    fn no_limit_is_zero_and_a_limit_of_nothing_is_not() {
        let quota = disk_quota(&account());
        assert_eq!((quota.inodes_soft, quota.inodes_hard), (0, 1));
        assert_eq!((quota.space_deadline, quota.inodes_deadline), (5, 0));
        assert_eq!(quota.valid, 0x3f);
    }

    #[test]
    fn limits_that_do_not_fit_are_refused() {
        // Linux fs/quota/dquot.c, do_set_dqblk: ERANGE above the largest limit.
        let kib = |kib| DiskQuota {
            space_hard_kib: kib,
            valid: QIF_BLIMITS,
            ..Default::default()
        };
        assert_eq!(generic_change(&kib(1 << 53)), Err(Refusal::OutOfRange));
        assert_eq!(generic_change(&kib(u64::MAX)), Err(Refusal::OutOfRange));
        assert!(generic_change(&kib((1 << 53) - 1)).is_ok());
        let inodes = DiskQuota {
            inodes_soft: 1 << 63,
            valid: QIF_ILIMITS,
            ..Default::default()
        };
        assert_eq!(generic_change(&inodes), Err(Refusal::OutOfRange));
        let sectors = XfsQuota {
            space_soft_sectors: 1 << 55,
            fields: FS_DQ_BSOFT,
            ..Default::default()
        };
        assert_eq!(xfs_change(&sectors), Err(Refusal::OutOfRange));
    }

    #[test]
    fn timers_of_xfs_have_a_sign_and_forty_bits() {
        assert_eq!(xfs_seconds(0, (u32::MAX, 7)), -1);
        assert_eq!(xfs_seconds(FS_DQ_BIGTIME, (5, 1)), (1 << 32) + 5);
        assert_eq!(xfs_seconds(FS_DQ_BIGTIME, (u32::MAX, 0xff)), -1);
        let late = 1_i64 << 33;
        let mut account = account();
        account.deadlines.inodes = Some(Timestamp::new(late));
        let xfs = xfs_quota(QuotaType::User, 1, &account);
        assert_eq!(xfs.fields, FS_DQ_BIGTIME);
        assert_eq!(xfs_seconds(xfs.fields, xfs.inodes_timer), late);
        assert_eq!(xfs_seconds(xfs.fields, xfs.space_timer), 5);
    }
}

//! Limits, periods and deadlines that are set.

use std::sync::Arc;

use quota::store::memory::MemoryStore;
use quota::{
    Bytes, Engine, Environment, GracePeriods, Inodes, Limit, Limits, ManualClock, Owner, Setup,
    Timestamp, Usage, VeId,
};
use simfs::quotactl::abi::command::Command;
use simfs::quotactl::abi::generic::{DiskQuota, QuotaInfo};
use simfs::quotactl::abi::xfs::XfsQuota;
use simfs::quotactl::abi::{Input, Output};
use simfs::quotactl::refusal::Refusal;

use super::{Fake, USER, admin, ask, level};

/// quotactl(2): only the fields named by the valid bits are set.
#[test]
fn setquota_sets_what_is_valid() {
    let given = DiskQuota {
        space_hard_kib: 10,
        space_soft_kib: 0,
        space_bytes: 77,
        inodes_hard: 12,
        inodes_soft: 11,
        inodes: 99,
        ..DiskQuota::default()
    };
    let before = level().state().users[&5].limits;
    let space = Limit::new(None, Some(Bytes::new(10_240)));
    let inodes = Limit::new(Some(Inodes::new(11)), Some(Inodes::new(12)));
    let rows = [
        ("nothing", 0, before),
        ("usage alone", 2 | 8, before),
        ("space", 1, Limits { space, ..before }),
        ("inodes", 4, Limits { inodes, ..before }),
        ("setquota(8)", 5, Limits { space, inodes }),
    ];
    for (name, valid, limits) in rows {
        let level = level();
        let input = Input::Quota(DiskQuota { valid, ..given });
        assert_eq!(
            ask(&level, &admin(), (Command::SetQuota, USER, 5), input),
            Ok(Output::None)
        );
        let account = level.state().users[&5];
        assert_eq!(account.limits, limits, "{name}");
        assert_eq!(
            account.usage,
            Usage::new(Bytes::new(3072), Inodes::new(30)),
            "{name}"
        );
    }
}

/// User 5 over soft limits of 2 KiB and 20 inodes in the engine itself.
fn engine() -> Engine {
    let mut setup = Setup::new(VeId::new(101), "/vz/private/101");
    let usage = Usage::new(Bytes::new(3072), Inodes::new(30));
    setup.usage.add(Owner::new(5, 50), usage);
    setup.usage.add(Owner::new(1000, 50), usage);
    let clock = ManualClock::default();
    clock.set(Timestamp::new(1_000_000));
    let environment = Environment {
        clock: Arc::new(clock),
        ..Environment::default()
    };
    let engine = Engine::create(Arc::new(MemoryStore::new()), environment, setup).unwrap();
    let soft = DiskQuota {
        space_soft_kib: 2,
        inodes_soft: 20,
        valid: 5,
        ..DiskQuota::default()
    };
    ask(
        &engine,
        &admin(),
        (Command::SetQuota, USER, 5),
        Input::Quota(soft),
    )
    .unwrap();
    engine
}

/// Linux fs/quota/dquot.c, do_set_dqblk: a timer runs only above the soft limit.
#[test]
fn deadlines_count_above_the_soft_limit() {
    let times = |valid| DiskQuota {
        space_deadline: 2_000_000,
        inodes_deadline: 3_000_000,
        space_soft_kib: 3,
        inodes_soft: 30,
        valid,
        ..DiskQuota::default()
    };
    // Timers started when the limits were set, a week before their end.
    let week = 1_604_800;
    let rows = [
        ("both", 5, 0x30, (2_000_000, 3_000_000)),
        ("space alone", 5, 0x10, (2_000_000, week)),
        ("nothing", 5, 0, (week, week)),
        ("account without limits", 1000, 0x30, (0, 0)),
        (
            "new limit of inodes reached exactly",
            5,
            0x34,
            (2_000_000, 0),
        ),
        (
            "new limit of space reached exactly",
            5,
            0x31,
            (0, 3_000_000),
        ),
    ];
    for (name, id, valid, expected) in rows {
        let engine = engine();
        let input = Input::Quota(times(valid));
        assert_eq!(
            ask(&engine, &admin(), (Command::SetQuota, USER, id), input),
            Ok(Output::None)
        );
        let answer = ask(
            &engine,
            &admin(),
            (Command::GetQuota, USER, id),
            Input::None,
        );
        let Ok(Output::Quota(quota)) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(
            (quota.space_deadline, quota.inodes_deadline),
            expected,
            "{name}"
        );
    }
    let level = level();
    let endless = DiskQuota {
        space_deadline: u64::MAX,
        valid: 0x10,
        ..DiskQuota::default()
    };
    let answer = ask(
        &level,
        &admin(),
        (Command::SetQuota, USER, 5),
        Input::Quota(endless),
    );
    assert_eq!(answer, Err(Refusal::OutOfRange));
}

/// Linux fs/quota/quota.c, quota_setinfo; fs/quota/dquot.c, dquot_set_dqinfo.
#[test]
fn setinfo() {
    let invalid = Err(Refusal::Invalid);
    let rows = [
        ("space", 1, 0, Ok((60, 604_800))),
        ("inodes", 2, 0, Ok((604_800, 70))),
        ("both", 3, 0x1_0000, Ok((60, 70))),
        ("both and no flags", 7, 0, Ok((60, 70))),
        ("root squash", 7, 1, invalid),
        ("other flags", 4, 0x1_0000, invalid),
        ("unknown field", 8, 0, invalid),
    ];
    for (name, valid, flags, expected) in rows {
        let level = level();
        let info = QuotaInfo {
            space_grace: 60,
            inodes_grace: 70,
            flags,
            valid,
        };
        let answer = ask(
            &level,
            &admin(),
            (Command::SetInfo, USER, 0),
            Input::Info(info),
        );
        let grace = level.state().grace[0];
        let found = answer.map(|_| (grace.space.get(), grace.inodes.get()));
        assert_eq!(found, expected, "{name}");
        assert_eq!(
            level.state().grace[1],
            GracePeriods::default(),
            "groups are not touched"
        );
    }
}

/// As xfs_quota calls it; Linux fs/quota/quota.c, quota_setxquota.
#[test]
fn xsetqlim() {
    let given = XfsQuota {
        space_hard_sectors: 8,
        space_soft_sectors: 6,
        inodes_hard: 5,
        inodes_soft: 4,
        space_timer: (60, 0),
        inodes_timer: (70, 0),
        ..XfsQuota::default()
    };
    let give = |level: &Fake, id, fields| {
        let input = Input::XfsQuota(XfsQuota { fields, ..given });
        ask(level, &admin(), (Command::XfsSetLimits, USER, id), input)
    };
    let level = level();
    assert_eq!(give(&level, 1000, 0xc), Ok(Output::None));
    let space = Limit::new(Some(Bytes::new(3072)), Some(Bytes::new(4096)));
    let limits = level.state().users[&1000].limits;
    assert_eq!(
        limits,
        Limits {
            space,
            inodes: Limit::UNLIMITED
        },
        "512-byte units"
    );
    assert_eq!(give(&level, 1000, 0x1), Ok(Output::None));
    let soft = level.state().users[&1000].limits.inodes;
    assert_eq!(soft, Limit::new(Some(Inodes::new(4)), None));
    // Timers of id 0 are the grace periods of all.
    assert_eq!(give(&level, 0, 0x1c0), Ok(Output::None));
    let grace = level.state().grace[0];
    assert_eq!((grace.space.get(), grace.inodes.get()), (60, 70));
    // Timers of another id are its deadlines.
    assert_eq!(give(&level, 5, 0xc0), Ok(Output::None));
    assert_eq!(
        level.state().users[&5].deadlines.space,
        Some(Timestamp::new(60))
    );
    // Real-time limits and warnings do not exist here.
    for fields in [0x10, 0x200, 0x1000] {
        assert_eq!(give(&level, 5, fields), Err(Refusal::Invalid));
    }
}

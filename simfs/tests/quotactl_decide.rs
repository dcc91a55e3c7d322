//! The rules of quotactl(2), one row each: who may, what it answers, what it changes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests state what they expect"
)]

#[path = "support/second_level.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod second_level;

use std::sync::Arc;

use quota::store::memory::MemoryStore;
use quota::{
    Bytes, Engine, Environment, GracePeriod, GracePeriods, Inodes, Limit, Limits, ManualClock,
    Owner, Setup, Timestamp, Usage, VeId,
};
use simfs::quotactl::abi::command::{Command, CommandWord};
use simfs::quotactl::abi::generic::{DiskQuota, QuotaInfo};
use simfs::quotactl::abi::xfs::XfsQuota;
use simfs::quotactl::abi::{Input, Output};
use simfs::quotactl::caller::Caller;
use simfs::quotactl::decide::{authorize, carry_out};
use simfs::quotactl::id_map::IdMap;
use simfs::quotactl::refusal::Refusal;
use simfs::quotactl::second_level::SecondLevel;

use second_level::Fake;

const USER: u32 = 0;
const GROUP: u32 = 1;
const PROJECT: u32 = 2;

fn admin() -> Caller {
    let map = IdMap::identity();
    Caller {
        euid: 0,
        egid: 0,
        groups: vec![],
        uids: map.clone(),
        gids: map,
        is_admin: true,
    }
}

fn user() -> Caller {
    Caller {
        euid: 1000,
        egid: 100,
        groups: vec![50],
        is_admin: false,
        ..admin()
    }
}

/// Users 5 (over its soft limits), 1000, 70000; group 50.
fn level() -> Fake {
    let usage = Usage::new(Bytes::new(3072), Inodes::new(30));
    let limits = Limits {
        space: Limit::new(Some(Bytes::new(2048)), Some(Bytes::new(4096))),
        inodes: Limit::new(Some(Inodes::new(20)), None),
    };
    Fake::default()
        .with_user(5, usage, limits)
        .with_user(1000, usage, Limits::UNLIMITED)
        .with_user(70_000, usage, Limits::UNLIMITED)
        .with_group(50, usage, limits)
}

fn word(number: u32, kind: u32) -> CommandWord {
    CommandWord::split(number << 8 | kind)
}

fn ask(
    level: &dyn SecondLevel,
    caller: &Caller,
    (command, kind, id): (Command, u32, u32),
    input: Input,
) -> Result<Output, Refusal> {
    let word = word(command.number(), kind);
    let (permitted, judged) = authorize(word, id, || Ok(caller.clone()))?;
    carry_out(permitted, judged.as_ref(), &input, level)
}

/// Some input that a command accepts.
fn fitting(command: Command) -> Input {
    match command {
        Command::SetQuota => Input::Quota(DiskQuota::default()),
        Command::SetInfo => Input::Info(QuotaInfo::default()),
        Command::XfsSetLimits => Input::XfsQuota(XfsQuota::default()),
        Command::XfsQuotaOn | Command::XfsQuotaOff | Command::XfsRemove => Input::XfsFlags(2),
        Command::XfsStateVersioned => Input::Version(1),
        _ => Input::None,
    }
}

/// Linux fs/quota/quota.c, check_quotactl_permission.
#[test]
fn who_may_what() {
    let open = [
        Command::GetFormat,
        Command::GetInfo,
        Command::Sync,
        Command::XfsState,
        Command::XfsStateVersioned,
        Command::XfsSync,
    ];
    let own = [Command::GetQuota, Command::XfsGetQuota];
    // (type, id, whether it is the user's own)
    let ids = [
        (USER, 1000, true),
        (USER, 1001, false),
        (USER, 0, false),
        (USER, 50, false),
        (GROUP, 100, true),
        (GROUP, 50, true),
        (GROUP, 51, false),
        (GROUP, 1000, false),
    ];
    for command in Command::ALL {
        for (kind, id, owned) in ids {
            let word = word(command.number(), kind);
            let may = open.contains(&command) || own.contains(&command) && owned;
            let judged = authorize(word, id, || Ok(user()));
            assert_eq!(judged.is_ok(), may, "user: {command:?} {kind} {id}");
            if !may {
                assert_eq!(judged.unwrap_err(), Refusal::NotPermitted);
            }
            assert!(
                authorize(word, id, || Ok(admin())).is_ok(),
                "admin: {command:?}"
            );
        }
    }
}

#[test]
fn order_of_the_checks() {
    let unknown = 0x0080_000a;
    let rows = [
        // quotactl_block comes first, then s_quota_types, then permission, then the switch over commands.
        (
            "project before permission",
            word(0x0080_0009, PROJECT),
            user(),
            Refusal::Invalid,
        ),
        (
            "project, open command",
            word(0x0080_0005, PROJECT),
            admin(),
            Refusal::Invalid,
        ),
        (
            "permission before unknown",
            word(unknown, USER),
            user(),
            Refusal::NotPermitted,
        ),
        ("unknown", word(unknown, USER), admin(), Refusal::Invalid),
        (
            "type beyond all",
            word(0x0080_0005, 3),
            admin(),
            Refusal::Invalid,
        ),
    ];
    for (name, word, caller, refusal) in rows {
        assert_eq!(
            authorize(word, 1, || Ok(caller)).unwrap_err(),
            refusal,
            "{name}"
        );
    }
    // Open commands never look at the caller.
    assert!(authorize(word(0x0080_0005, USER), 0, || Err(Refusal::Fault)).is_ok());
}

#[test]
fn a_fault_of_the_record_is_an_error_of_input_and_output() {
    let level = level();
    level.0.lock().unwrap().broken = true;
    let limits = DiskQuota {
        space_hard_kib: 1,
        valid: 1,
        ..DiskQuota::default()
    };
    let rows = [
        (Command::Sync, Input::None),
        (Command::GetQuota, Input::None),
        (Command::GetNextQuota, Input::None),
        (Command::SetQuota, Input::Quota(limits)),
        (Command::QuotaOff, Input::None),
    ];
    for (command, input) in rows {
        let answer = ask(&level, &admin(), (command, USER, 5), input);
        assert_eq!(answer, Err(Refusal::Fault), "{command:?}");
    }
}

/// Linux fs/quota/quota.c, quota_getinfo; the flag selects the tools' format without files.
#[test]
fn getinfo_answers_on_and_off() {
    for on in [true, false] {
        let level = level();
        level.0.lock().unwrap().enforced = [on; 2];
        let answer = ask(&level, &user(), (Command::GetInfo, GROUP, 0), Input::None);
        let week = 604_800;
        let info = QuotaInfo {
            space_grace: week,
            inodes_grace: week,
            flags: 0x1_0000,
            valid: 7,
        };
        assert_eq!(answer, Ok(Output::Info(info)));
        let format = ask(&level, &user(), (Command::GetFormat, USER, 0), Input::None);
        assert_eq!(
            format,
            if on {
                Ok(Output::Format(4))
            } else {
                Err(Refusal::QuotaOff)
            }
        );
        assert!(ask(&level, &admin(), (Command::GetQuota, USER, 5), Input::None).is_ok());
        let set = fitting(Command::SetQuota);
        assert!(ask(&level, &admin(), (Command::SetQuota, USER, 5), set).is_ok());
    }
}

/// Linux fs/quota/dquot.c, dquot_quota_enable and dquot_quota_disable: EEXIST if already so.
#[test]
fn switches() {
    let level = level();
    let give = |command, kind| ask(&level, &admin(), (command, kind, 2), Input::None);
    assert_eq!(give(Command::QuotaOn, USER), Err(Refusal::AlreadySo));
    assert_eq!(give(Command::QuotaOff, USER), Ok(Output::None));
    assert_eq!(level.state().enforced, [false, true]);
    assert_eq!(give(Command::QuotaOff, USER), Err(Refusal::AlreadySo));
    assert_eq!(give(Command::QuotaOn, USER), Ok(Output::None));
    assert_eq!(level.state().enforced, [true, true]);
}

/// A VE without a second level switches none on; what is on may be switched off.
#[test]
fn what_is_not_offered_is_not_switched_on() {
    let level = level();
    level.0.lock().unwrap().offered = false;
    let give = |command, input| ask(&level, &admin(), (command, USER, 2), input);
    let flags = Input::XfsFlags(2);
    assert_eq!(give(Command::QuotaOff, Input::None), Ok(Output::None));
    assert_eq!(give(Command::QuotaOn, Input::None), Err(Refusal::Invalid));
    assert_eq!(give(Command::XfsQuotaOn, flags), Err(Refusal::NotSupported));
    assert_eq!(level.state().enforced, [false, true]);
    assert!(give(Command::GetQuota, Input::None).is_ok());
}

/// The same by flags: Linux fs/quota/quota.c, quota_setxstate.
#[test]
fn switches_of_xfs() {
    use Command::{XfsQuotaOff, XfsQuotaOn};
    let invalid = Err(Refusal::Invalid);
    let so = Err(Refusal::AlreadySo);
    let rows = [
        ("off users", XfsQuotaOff, [true, true], 2, Ok([false, true])),
        (
            "off both",
            XfsQuotaOff,
            [true, true],
            10,
            Ok([false, false]),
        ),
        (
            "off both, one is",
            XfsQuotaOff,
            [false, true],
            10,
            Ok([false, false]),
        ),
        ("off, is off", XfsQuotaOff, [false, true], 2, so),
        (
            "off accounting",
            XfsQuotaOff,
            [true, true],
            3,
            Err(Refusal::CannotSwitch),
        ),
        ("off nothing", XfsQuotaOff, [true, true], 0, invalid),
        (
            "on users and accounting",
            XfsQuotaOn,
            [false, false],
            3,
            Ok([true, false]),
        ),
        ("on both", XfsQuotaOn, [false, false], 10, Ok([true, true])),
        ("on both, one is", XfsQuotaOn, [true, false], 10, so),
        (
            "on accounting alone",
            XfsQuotaOn,
            [false, false],
            5,
            invalid,
        ),
        ("on projects", XfsQuotaOn, [false, false], 0x20, invalid),
    ];
    for (name, command, before, flags, expected) in rows {
        let level = level();
        level.0.lock().unwrap().enforced = before;
        let answer = ask(&level, &admin(), (command, USER, 0), Input::XfsFlags(flags));
        assert_eq!(answer.map(|_| level.state().enforced), expected, "{name}");
        if expected.is_err() {
            assert_eq!(level.state().enforced, before, "{name}");
        }
    }
}

#[test]
fn states_of_xfs() {
    let level = level();
    level.0.lock().unwrap().enforced = [true, false];
    level.0.lock().unwrap().grace[1] = GracePeriods {
        space: GracePeriod::new(7),
        inodes: GracePeriod::new(u64::MAX),
    };
    let state = ask(&level, &user(), (Command::XfsState, GROUP, 0), Input::None).unwrap();
    let Output::XfsState(state) = state else {
        panic!("{state:?}")
    };
    // 1 and 4: accounted; 2: users enforced.
    assert_eq!((state.flags, state.space_grace), (7, 7));
    assert_eq!(state.inodes_grace, 0x7fff_ffff, "signed in the structure");
    let versioned = (Command::XfsStateVersioned, USER, 0);
    assert!(ask(&level, &user(), versioned, Input::Version(1)).is_ok());
    for version in [0, 2, 255] {
        let answer = ask(&level, &user(), versioned, Input::Version(version));
        assert_eq!(answer, Err(Refusal::Invalid));
    }
    let removal = ask(
        &level,
        &admin(),
        (Command::XfsRemove, USER, 0),
        Input::XfsFlags(2),
    );
    assert_eq!(removal, Err(Refusal::NotSupported));
}

#[test]
fn getnextquota_walks_all_ids_and_ends() {
    let level = level();
    let mut seen = Vec::new();
    let mut from = 0;
    let end = loop {
        match ask(
            &level,
            &admin(),
            (Command::GetNextQuota, USER, from),
            Input::None,
        ) {
            Ok(Output::NextQuota(quota, id)) => {
                assert_eq!(quota.space_bytes, 3072);
                seen.push(id);
                from = id + 1;
            }
            other => break other,
        }
    };
    assert_eq!(seen, [5, 1000, 70_000]);
    assert_eq!(end, Err(Refusal::NoMoreAccounts));
    assert_eq!(Refusal::NoMoreAccounts.errno(), libc::ENOENT);
}

#[test]
fn ids_are_the_callers_names() {
    // Inside 0..10 is outside 70000.., inside 100..110 is outside 0..10; 1000 has no name.
    let map = IdMap::parse("100 0 10\n0 70000 10\n").unwrap();
    let root = Caller {
        euid: 70_000,
        uids: map.clone(),
        gids: map,
        ..admin()
    };
    let level = level();
    let get = |id| ask(&level, &root, (Command::GetQuota, USER, id), Input::None);
    assert!(matches!(get(0), Ok(Output::Quota(quota)) if quota.space_bytes == 3072));
    assert!(matches!(get(105), Ok(Output::Quota(quota)) if quota.space_hard_kib == 4));
    assert_eq!(get(1000), Err(Refusal::Invalid));
    let next = |id| match ask(
        &level,
        &root,
        (Command::GetNextQuota, USER, id),
        Input::None,
    ) {
        Ok(Output::NextQuota(_, id)) => Some(id),
        _ => None,
    };
    // In the order of names, not of ids outside.
    assert_eq!((next(0), next(1), next(106)), (Some(0), Some(105), None));
    let limits = DiskQuota {
        inodes_hard: 9,
        valid: 4,
        ..DiskQuota::default()
    };
    let set = |id| {
        ask(
            &level,
            &root,
            (Command::SetQuota, USER, id),
            Input::Quota(limits),
        )
    };
    assert_eq!(set(99), Err(Refusal::Invalid));
    assert_eq!(set(1), Ok(Output::None));
    assert_eq!(
        level.state().users[&70_001].limits.inodes.hard,
        Some(Inodes::new(9))
    );
    // Own account: by the name of the effective id, not by the number outside.
    let user = Caller {
        is_admin: false,
        ..root.clone()
    };
    assert!(ask(&level, &user, (Command::GetQuota, USER, 0), Input::None).is_ok());
    let foreign = ask(
        &level,
        &user,
        (Command::GetQuota, USER, 70_000),
        Input::None,
    );
    assert_eq!(foreign, Err(Refusal::NotPermitted));
}

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

#[test]
fn sync_commits() {
    let level = level();
    assert_eq!(
        ask(&level, &user(), (Command::Sync, USER, 0), Input::None),
        Ok(Output::None)
    );
    assert_eq!(level.state().syncs, 1);
    assert_eq!(
        ask(&level, &user(), (Command::XfsSync, USER, 0), Input::None),
        Ok(Output::None)
    );
}

#[test]
fn groups_have_their_own_accounts() {
    let level = level();
    let answer = ask(
        &level,
        &user(),
        (Command::XfsGetQuota, GROUP, 50),
        Input::None,
    )
    .unwrap();
    let Output::XfsQuota(quota) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (quota.id, quota.flags, quota.space_hard_sectors),
        (50, 4, 8)
    );
    let switch = ask(&level, &admin(), (Command::QuotaOff, GROUP, 0), Input::None);
    assert_eq!(switch, Ok(Output::None));
    assert_eq!(level.state().enforced, [true, false]);
}

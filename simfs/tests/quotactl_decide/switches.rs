//! Switching on and off, and what is told of it.

use quota::{GracePeriod, GracePeriods};
use simfs::quotactl::abi::command::Command;
use simfs::quotactl::abi::generic::QuotaInfo;
use simfs::quotactl::abi::{Input, Output};
use simfs::quotactl::refusal::Refusal;

use super::{GROUP, USER, admin, ask, fitting, level, user};

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
        assert_eq!(format, Ok(Output::Format(4)));
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

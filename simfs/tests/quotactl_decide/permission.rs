//! Who may ask what, in the order of the kernel's checks.

use simfs::quotactl::abi::Input;
use simfs::quotactl::abi::command::Command;
use simfs::quotactl::decide::authorize;
use simfs::quotactl::refusal::Refusal;

use super::{GROUP, PROJECT, USER, admin, ask, fitting, level, user, word};

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
        (PROJECT, 1000, false),
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
        // The type comes first, then permission, then the switch over commands.
        (
            "type beyond all, and not permitted",
            word(0x0080_0009, 3),
            user(),
            Refusal::Invalid,
        ),
        (
            "project, not permitted",
            word(0x0080_0009, PROJECT),
            user(),
            Refusal::NotPermitted,
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

/// Projects are known and never on. As an ext4 without the feature `project` answers (Linux 6.1, asked by quotactl(2) itself).
#[test]
fn projects_are_off() {
    use Refusal::{AlreadySo, CannotSwitch, Invalid, NotSupported, QuotaOff};
    for command in Command::ALL {
        let expected = match command {
            Command::Sync | Command::XfsSync | Command::XfsState | Command::XfsStateVersioned => {
                None
            }
            Command::QuotaOn | Command::XfsQuotaOn => Some(Invalid),
            Command::QuotaOff => Some(AlreadySo),
            Command::XfsQuotaOff => Some(CannotSwitch),
            Command::XfsRemove => Some(NotSupported),
            _ => Some(QuotaOff),
        };
        let input = match command {
            Command::XfsQuotaOn | Command::XfsQuotaOff => Input::XfsFlags(1),
            command => fitting(command),
        };
        let level = level();
        let answer = ask(&level, &admin(), (command, PROJECT, 5), input);
        assert_eq!(answer.err(), expected, "{command:?}");
        assert_eq!(level.state().enforced, [true, true], "{command:?}");
    }
    // Nobody's number comes before.
    for command in [Command::GetQuota, Command::SetQuota, Command::GetNextQuota] {
        for kind in [USER, GROUP, PROJECT] {
            let (level, input) = (level(), fitting(command));
            let answer = ask(&level, &admin(), (command, kind, u32::MAX), input);
            assert_eq!(answer, Err(Invalid), "{command:?} {kind}");
        }
    }
}

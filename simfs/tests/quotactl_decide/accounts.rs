//! What is told of accounts, by which names.

use quota::Inodes;
use simfs::quotactl::abi::command::Command;
use simfs::quotactl::abi::generic::DiskQuota;
use simfs::quotactl::abi::{Input, Output};
use simfs::quotactl::caller::Caller;
use simfs::quotactl::id_map::IdMap;
use simfs::quotactl::refusal::Refusal;

use super::{GROUP, USER, admin, ask, level, user};

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

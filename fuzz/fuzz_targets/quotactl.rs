//! quotactl(2) as any guest may call it: registers, caller and data are the input.
//!
//! Beyond "no panic": what is refused changes nothing, limits that were set are shown as they were set, and no call moves usage.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use quota::{Engine, QuotaType};
use simfs::quotactl::abi::call::{Call, synced};
use simfs::quotactl::abi::command::Command;
use simfs::quotactl::abi::generic::{DiskQuota, QIF_BLIMITS, QIF_ILIMITS};
use simfs::quotactl::abi::{Input, Layout, Output};
use simfs::quotactl::caller::{AdminPolicy, Caller, Credentials};
use simfs::quotactl::decide::{self, Permitted};
use simfs::quotactl::id_map::IdMap;
use simfs::sys::seccomp::Notification;

#[derive(Arbitrary, Debug)]
struct Case<'a> {
    status: &'a str,
    uid_map: &'a str,
    calls: Vec<Asked>,
}

#[derive(Arbitrary, Debug)]
struct Asked {
    arch: Arch,
    number: Number,
    word: Word,
    target: u64,
    id: Id,
    data: [u8; 112],
    who: Who,
}

#[derive(Arbitrary, Debug)]
enum Arch {
    Native,
    I386,
    Arm,
    Other(u32),
}

#[derive(Arbitrary, Debug)]
enum Number {
    ByPath,
    ByDescriptor,
    Other(i32),
}

#[derive(Arbitrary, Debug)]
enum Word {
    Known { command: u8, kind: u8 },
    Any(u64),
}

#[derive(Arbitrary, Debug)]
enum Id {
    Named,
    Any(u32),
}

#[derive(Arbitrary, Debug)]
enum Who {
    Admin,
    User {
        euid: u32,
        egid: u32,
        groups: Vec<u32>,
    },
    Mapped {
        inside: u32,
        outside: u32,
        count: u32,
        home: bool,
    },
}

impl Asked {
    fn notification(&self) -> Notification {
        let arch = match self.arch {
            Arch::Native => 0xC000_003E,
            Arch::I386 => 0x4000_0003,
            Arch::Arm => 0xC000_00B7,
            Arch::Other(arch) => arch,
        };
        let number = match (&self.number, &self.arch) {
            (Number::ByPath, Arch::I386) => 131,
            (Number::ByPath, Arch::Arm) => 60,
            (Number::ByPath, _) => 179,
            (Number::ByDescriptor, _) => 443,
            (Number::Other(number), _) => *number,
        };
        let word = match self.word {
            Word::Known { command, kind } => {
                let index = usize::from(command) % Command::ALL.len();
                u64::from(Command::ALL[index].number()) << 8 | u64::from(kind % 4)
            }
            Word::Any(word) => word,
        };
        let id = match self.id {
            Id::Named => 1000,
            Id::Any(id) => u64::from(id),
        };
        let args = match self.number {
            Number::ByDescriptor => [self.target, word, id, 1, 0, 0],
            _ => [word, self.target, id, 1, 0, 0],
        };
        Notification {
            cookie: 1,
            tid: 1,
            number,
            arch,
            args,
        }
    }

    fn caller(&self) -> Option<Caller> {
        let all = IdMap::identity();
        let (credentials, map, home) = match &self.who {
            Who::Admin => (credentials(0, 0, &[]), all, true),
            Who::User { euid, egid, groups } => (credentials(*euid, *egid, groups), all, true),
            Who::Mapped {
                inside,
                outside,
                count,
                home,
            } => {
                let map = IdMap::parse(&format!("{inside} {outside} {count}")).expect("numbers");
                (credentials(*outside, *outside, &[]), map, *home)
            }
        };
        Some(Caller::new(
            credentials,
            map.clone(),
            map,
            home,
            AdminPolicy::RootOfVe,
        ))
    }
}

fn credentials(euid: u32, egid: u32, groups: &[u32]) -> Credentials {
    Credentials {
        euid,
        egid,
        groups: groups.to_vec(),
        capabilities: 0,
    }
}

fn answer(asked: &Asked, engine: &Engine) -> Option<()> {
    let notification = asked.notification();
    let _any = synced(&notification);
    let call = Call::read(&notification)?;
    let caller = asked.caller()?;
    let judged = decide::authorize(call.word, call.id, || Ok(caller.clone()));
    let (permitted, seen) = judged.ok()?;
    let size = Input::size(permitted.command, call.layout);
    let input = Input::decode(permitted.command, asked.data.get(..size)?).expect("enough bytes");
    let before = (!permitted.command.changes_state()).then(|| state(engine));
    let output = decide::carry_out(permitted, seen.as_ref(), &input, engine);
    if let Some(before) = before {
        assert_eq!(state(engine), before, "{permitted:?} changed something");
    }
    let output = output.ok()?;
    check_length(&output, call.layout);
    if let (Input::Quota(set), Some(caller)) = (input, seen) {
        shown_as_set(permitted, &caller, &set, engine);
    }
    Some(())
}

fn state(engine: &Engine) -> String {
    let accounts = |kind| engine.accounts(kind).expect("accounts");
    format!(
        "{:?} {:?} {:?}",
        engine.info(),
        accounts(QuotaType::User),
        accounts(QuotaType::Group)
    )
}

fn check_length(output: &Output, layout: Layout) {
    let length = output.encode(layout).len();
    assert!(length <= 160, "{length} bytes for {output:?}");
}

/// Limits that `Q_SETQUOTA` took are those that `Q_GETQUOTA` shows.
fn shown_as_set(permitted: Permitted, caller: &Caller, set: &DiskQuota, engine: &Engine) {
    let ask = Permitted {
        command: Command::GetQuota,
        ..permitted
    };
    let shown = decide::carry_out(ask, Some(caller), &Input::None, engine);
    let Ok(Output::Quota(shown)) = shown else {
        panic!("{shown:?} after {set:?}");
    };
    if set.valid & QIF_BLIMITS != 0 {
        assert_eq!(
            (shown.space_hard_kib, shown.space_soft_kib),
            (set.space_hard_kib, set.space_soft_kib)
        );
    }
    if set.valid & QIF_ILIMITS != 0 {
        assert_eq!(
            (shown.inodes_hard, shown.inodes_soft),
            (set.inodes_hard, set.inodes_soft)
        );
    }
}

fuzz_target!(|case: Case<'_>| {
    let _any = Credentials::parse(case.status);
    if let Ok(map) = IdMap::parse(case.uid_map) {
        for id in [0, 1000, u32::MAX] {
            let _any = (map.to_inside(id), map.to_outside(id));
        }
    }
    let engine = simfs_fuzz::engine();
    for asked in &case.calls {
        let _answer = answer(asked, &engine);
    }
    simfs_fuzz::assert_usage_unmoved(&engine);
});

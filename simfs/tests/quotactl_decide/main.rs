//! The rules of quotactl(2), one row each: who may, what it answers, what it changes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests state what they expect"
)]

#[path = "../support/second_level.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod second_level;

mod accounts;
mod limits;
mod permission;
mod switches;

use quota::{Bytes, Inodes, Limit, Limits, Usage};
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

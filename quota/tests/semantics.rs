//! The rules of limits and grace as tables: one row per rule, with its source.
//!
//! Every row runs for both resources, and on each level it is about. The other accounts have no limits, so whatever is
//! refused is refused by the account under test. Times are seconds after the start.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests state what they expect"
)]

use quota::{DenyReason, Owner, Resource, Subject};

use Levels::{Both, First, Second};
use Step::{
    Cancel, Deadline, Enforce, Events, Give, Grace, Hold, Late, LimitsTo, MoveDeadline, Peak,
    Refusals, Refused, Reopen, Room, Settle, Take, TakeExempt, Used, Wait,
};
use bench::Bench;

#[path = "semantics/bench.rs"]
mod bench;
#[path = "semantics/levels.rs"]
mod levels;

const START: i64 = 1_000_000;
const OWNER: Owner = Owner::new(7, 8);
const HARD: DenyReason = DenyReason::HardLimit;
const EXPIRED: DenyReason = DenyReason::GraceExpired;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Reserves and settles exactly this.
    Take(u64),
    /// The same for a caller that passes the second level.
    TakeExempt(u64),
    /// A request for this is refused, and nothing changes but the refusal counter.
    Refused(u64, DenyReason),
    /// Reserves this and keeps the promise.
    Hold(u64),
    /// Settles the oldest promise with this much.
    Settle(u64),
    /// Drops the oldest promise.
    Cancel,
    /// Frees this.
    Give(u64),
    /// Grows by this without asking.
    Late(u64),
    Wait(i64),
    LimitsTo(Option<u64>, Option<u64>),
    Grace(u64),
    Enforce(bool),
    MoveDeadline(Option<i64>),
    /// Commits, closes, opens.
    Reopen,
    Used(u64),
    Peak(u64),
    Refusals(u64),
    Room(u64),
    Deadline(Option<i64>),
    /// The events since the last time.
    Events(&'static [Seen]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Soft,
    Expired,
    Hard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Levels {
    First,
    Second,
    Both,
}

struct Row {
    rule: &'static str,
    source: &'static str,
    levels: Levels,
    soft: Option<u64>,
    hard: Option<u64>,
    grace: u64,
    steps: &'static [Step],
}

macro_rules! rows {
    ($($rule:literal, $source:literal, $levels:ident, $soft:expr, $hard:expr, $grace:literal =>
        [$($step:expr),* $(,)?];)*) => {
        &[$(Row {
            rule: $rule,
            source: $source,
            levels: $levels,
            soft: $soft,
            hard: $hard,
            grace: $grace,
            steps: &[$($step),*],
        }),*]
    };
}

const ROWS: &[Row] = rows![
    "the hard limit may be reached exactly", "vzdq_ops.c", Both, None, Some(100), 60 =>
        [Take(100), Used(100), Refused(1, HARD)];
    "what is promised counts", "vzdq_ops.c, delayed allocation", Both, None, Some(100), 60 =>
        [Hold(60), Refused(41, HARD), Hold(40), Refused(1, HARD), Cancel, Take(60)];
    "a request for nothing is allowed at the limit", "vzdq_ops.c", Both, Some(0), Some(0), 0 =>
        [Take(0), Refused(1, HARD)];
    "zero means that nothing is allowed", "vzdq_ops.c", Both, None, Some(0), 60 =>
        [Refused(1, HARD), Room(0)];
    "no limit is no limit", "quotactl(2)", Both, None, None, 60 =>
        [Take(1 << 40), Room(u64::MAX - (1 << 40))];
    "amounts do not wrap, not even without limits", "own", First, None, None, 60 =>
        [Take(10), Refused(u64::MAX - 5, HARD), Used(10)];
    "the soft limit may be reached exactly, no timer", "vzdq_ops.c", Both, Some(50), Some(100), 60 =>
        [Take(50), Deadline(None), Events(&[])];
    "passing the soft limit starts the timer", "vzdq_ops.c", Both, Some(50), Some(100), 60 =>
        [Wait(5), Take(51), Deadline(Some(65)), Events(&[Seen::Soft])];
    "above soft, before the deadline, up to hard", "vzdq_ops.c", Both, Some(50), Some(100), 60 =>
        [Take(51), Wait(59), Take(49), Refused(1, HARD), Deadline(Some(60))];
    "at the deadline the soft limit is hard", "vzdq_ops.c", Both, Some(50), Some(100), 60 =>
        [Take(51), Wait(60), Refused(1, EXPIRED), Room(0)];
    "the hard limit is looked at first", "vzdq_ops.c", Both, Some(50), Some(100), 60 =>
        [Take(51), Wait(60), Refused(50, HARD), Refused(49, EXPIRED)];
    "grace zero: the request that crosses passes", "vzdq_ops.c", Both, Some(50), Some(100), 0 =>
        [Take(60), Refused(1, EXPIRED), Used(60)];
    "a timer stops below the soft limit", "dquot.c", Both, Some(50), Some(100), 60 =>
        [Take(60), Give(20), Deadline(None), Wait(100), Take(20), Deadline(Some(160))];
    "a timer stops at the soft limit", "dquot.c; OpenVZ only below", Both, Some(50), Some(100), 60 =>
        [Take(60), Give(10), Deadline(None)];
    "a timer runs on while above", "dquot.c", Both, Some(50), Some(100), 60 =>
        [Take(60), Wait(10), Give(5), Take(5), Deadline(Some(60))];
    "a promise starts the timer, its end stops it", "own", Both, Some(50), Some(100), 60 =>
        [Hold(60), Deadline(Some(60)), Cancel, Deadline(None), Events(&[])];
    "a promise that settles below soft", "own", Both, Some(50), Some(100), 60 =>
        [Hold(60), Settle(40), Deadline(None), Used(40), Events(&[])];
    "settling more than promised cannot fail", "own", Both, None, Some(100), 60 =>
        [Hold(60), Settle(120), Used(120), Refused(1, HARD)];
    "what happened starts the timer, too", "dquot.c, DQUOT_SPACE_NOFAIL", Both, Some(50), Some(100), 60 =>
        [Late(120), Used(120), Deadline(Some(60)), Refused(1, HARD)];
    "a refusal starts no timer", "own; OpenVZ keeps it", Both, Some(50), Some(100), 60 =>
        [Refused(101, HARD), Deadline(None), Refusals(1)];
    "raising soft above usage stops the timer", "own; OpenVZ keeps it", Both, Some(50), Some(100), 60 =>
        [Take(60), Wait(90), LimitsTo(Some(80), Some(100)), Deadline(None), Take(30), Deadline(Some(150))];
    "lowering soft below usage starts it at once", "quotaon.c, setlimit", Both, Some(50), Some(100), 60 =>
        [Take(40), Wait(3), LimitsTo(Some(30), Some(100)), Deadline(Some(63))];
    "still above: the timer is kept", "quotaon.c", Both, Some(50), Some(100), 60 =>
        [Take(60), Wait(3), LimitsTo(Some(40), Some(90)), Deadline(Some(60))];
    "no soft limit any more: no timer", "dquot.c, do_set_dqblk", Both, Some(50), Some(100), 60 =>
        [Take(60), LimitsTo(None, Some(100)), Deadline(None)];
    "hard below usage deletes nothing, grants nothing", "vzquota(8)", Both, None, Some(100), 60 =>
        [Take(90), LimitsTo(None, Some(50)), Used(90), Refused(1, HARD), Give(50), Take(10), Refused(1, HARD)];
    "a raised limit is in force at once", "vzquota(8)", Both, None, Some(100), 60 =>
        [Take(100), Refused(1, HARD), LimitsTo(None, Some(101)), Take(1)];
    "a new period moves a running deadline", "own; OpenVZ keeps it", Both, Some(50), Some(100), 60 =>
        [Wait(1), Take(60), Deadline(Some(61)), Grace(10), Deadline(Some(11)), Wait(10), Refused(1, EXPIRED)];
    "a new period starts nothing", "own", Both, Some(50), Some(100), 60 =>
        [Take(50), Grace(10), Deadline(None), Take(1), Deadline(Some(10))];
    "an explicit deadline counts above soft", "setquota(8) -T", Both, Some(50), Some(100), 60 =>
        [Take(60), MoveDeadline(Some(500)), Deadline(Some(500)), Wait(499), Take(1), Wait(1), Refused(1, EXPIRED)];
    "an explicit deadline means nothing below", "do_set_dqblk", Both, Some(50), Some(100), 60 =>
        [Take(50), MoveDeadline(Some(500)), Deadline(None)];
    "a stopped timer starts anew", "do_set_dqblk", Both, Some(50), Some(100), 60 =>
        [Take(60), Wait(99), MoveDeadline(None), Deadline(None), Take(1), Deadline(Some(159))];
    "a stopped timer starts anew when something is freed, too", "do_set_dqblk", Both, Some(50), Some(100), 60 =>
        [Take(60), Wait(99), MoveDeadline(None), Give(1), Deadline(Some(159))];
    "so does that of a promise, of which nothing was reported", "do_set_dqblk", Both, Some(50), Some(100), 60 =>
        [Take(40), Hold(20), Wait(9), MoveDeadline(None), Deadline(None), Give(1), Deadline(Some(69)), Cancel, Deadline(None)];
    "deadlines survive a restart", "own; OpenVZ re-injects", Both, Some(50), Some(100), 60 =>
        [Take(60), Wait(30), Reopen, Deadline(Some(60)), Used(60), Peak(60), Wait(30), Refused(1, EXPIRED)];
    "switched off: counted, not refused, no timer", "vzquota(8) off", Both, Some(50), Some(100), 60 =>
        [Enforce(false), Take(150), Used(150), Deadline(None), Events(&[]), Room(u64::MAX - 150)];
    "limits stay while off", "own; OpenVZ loses them", Both, Some(50), Some(100), 60 =>
        [Enforce(false), Take(60), Enforce(true), Refused(41, HARD), Take(40)];
    "switching on starts missing timers", "quotaon.c", Both, Some(50), Some(100), 60 =>
        [Enforce(false), Take(60), Wait(9), Enforce(true), Deadline(Some(69))];
    "switching on keeps a running timer", "quotaon.c", Both, Some(50), Some(100), 60 =>
        [Take(60), Enforce(false), Wait(99), Enforce(true), Deadline(Some(60)), Refused(1, EXPIRED)];
    "the peak is the most ever charged", "proc(5), user_beancounters", Both, None, Some(100), 60 =>
        [Take(70), Give(50), Take(10), Peak(70), Hold(70), Cancel, Peak(70)];
    "the peak survives a restart that finds less", "proc(5), user_beancounters", Both, None, Some(100), 60 =>
        [Take(70), Give(50), Reopen, Used(20), Peak(70)];
    "every refusal is counted", "proc(5), user_beancounters", Both, None, Some(10), 60 =>
        [Refused(11, HARD), Refused(12, HARD), Refusals(2), Reopen, Refusals(2)];
    "hard reached is reported once", "vzdq_ops.c", Both, None, Some(100), 60 =>
        [Take(100), Refused(1, HARD), Refused(1, HARD), Events(&[Seen::Hard])];
    "hard reached again after usage fell", "own", Both, None, Some(100), 60 =>
        [Take(100), Refused(1, HARD), Give(1), Take(1), Refused(1, HARD), Events(&[Seen::Hard, Seen::Hard])];
    "hard reached again after limits changed", "vzdq_ops.c", Both, None, Some(100), 60 =>
        [Take(100), Refused(1, HARD), LimitsTo(None, Some(99)), Refused(1, HARD), Events(&[Seen::Hard, Seen::Hard])];
    "soft exceeded once per crossing", "vzdq_ops.c", Both, Some(50), Some(100), 60 =>
        [Take(60), Take(10), Events(&[Seen::Soft]), Give(30), Take(30), Events(&[Seen::Soft])];
    "grace expired is reported once", "vzdq_ops.c", Both, Some(50), Some(100), 0 =>
        [Take(60), Refused(1, EXPIRED), Refused(1, EXPIRED), Events(&[Seen::Soft, Seen::Expired])];
    "room ends at the hard limit", "own", Both, Some(50), Some(100), 60 =>
        [Take(10), Room(90), Hold(5), Room(85)];
    "nobody is exempt at the first level", "vzdq_ops.c", First, None, Some(10), 60 =>
        [TakeExempt(10), Refused(1, HARD)];
    "CAP_SYS_RESOURCE passes the second level", "dquot.c, ignore_hardlimit", Second, None, Some(10), 60 =>
        [TakeExempt(11), Used(11), Refusals(0), Refused(1, HARD)];
    "a caller that passes starts timers", "dquot.c", Second, Some(5), Some(10), 60 =>
        [TakeExempt(11), Deadline(Some(60))];
    "hard below soft is accepted, hard decides", "setquota(8)", Second, Some(50), Some(10), 60 =>
        [Take(10), Refused(1, HARD)];
];

#[test]
fn every_rule_holds_on_its_levels_for_both_resources() {
    for row in ROWS {
        assert!(!row.source.is_empty());
        for subject in subjects(row.levels) {
            for resource in Resource::ALL {
                Bench::new(row, subject, resource).run();
            }
        }
    }
}

fn subjects(levels: Levels) -> Vec<Subject> {
    let second = [Subject::User(OWNER.uid), Subject::Group(OWNER.gid)];
    match levels {
        First => vec![Subject::Ve],
        Second => second.to_vec(),
        Both => [Subject::Ve].into_iter().chain(second).collect(),
    }
}

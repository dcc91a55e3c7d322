//! What the programs print: tables, the `-b` lines, grace columns, JSON values.
//!
//! Space is shown in KiB, rounded up; JSON has bytes. No limit is `unlimited` on the first level and 0 on the
//! second, as typed there.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use quota::{Account, Blocks, Bytes, GracePeriods, Limits, Resource, Subject, Timestamp, Usage};
use serde::Serialize;

use crate::names::Names;

/// What `-b` shows for "no limit" on the first level: the largest number that the old tools can hold.
const BATCH_UNLIMITED: u64 = i64::MAX.unsigned_abs();

/// Writes to standard output; a reader that has seen enough is no error.
///
/// # Errors
/// Anything else that goes wrong with the output.
pub fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Writes one line to standard error, whatever the message holds.
pub fn complain(message: &str) {
    let line: String = message
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    let _nobody_listens = writeln!(io::stderr().lock(), "{line}");
}

/// A value as indented JSON with a closing line feed.
///
/// # Errors
/// A value that JSON cannot hold.
pub fn json<T: Serialize>(value: &T) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// The column of the time left: empty while the soft limit is not passed, `none` when the time is over.
///
/// # Source
/// vzquota `src/stat.c`: `HH:MM` below two days, else whole days.
pub fn grace_left(deadline: Option<Timestamp>, now: Timestamp) -> String {
    const TWO_DAYS: i64 = 2 * 86_400;
    let Some(deadline) = deadline else {
        return String::new();
    };
    let left = deadline.get().saturating_sub(now.get());
    if left <= 0 {
        "none".into()
    } else if left > TWO_DAYS {
        format!("{}days", left.saturating_add(43_200) / 86_400)
    } else {
        let minutes = left.saturating_add(59) / 60;
        format!("{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// A length of time in the largest unit that divides it.
pub fn period(seconds: u64) -> String {
    match seconds {
        0 => "0".into(),
        days if days % 86_400 == 0 => format!("{}days", days / 86_400),
        minutes if minutes % 60 == 0 => format!("{:02}:{:02}", minutes / 3600, minutes / 60 % 60),
        rest => format!("{rest}s"),
    }
}

/// One resource of one account, in the units of the table.
struct Row {
    resource: &'static str,
    used: u64,
    soft: Option<u64>,
    hard: Option<u64>,
    deadline: Option<Timestamp>,
    grace: u64,
    over: bool,
}

/// Both rows of an account.
fn rows(account: &Account, grace: &GracePeriods) -> [Row; 2] {
    Resource::ALL.map(|resource| {
        let used = account.usage.get(resource);
        let limit = account.limits.get(resource);
        let shown = |amount: u64| match resource {
            Resource::Space => Blocks::ceil_from(Bytes::new(amount)).get(),
            Resource::Inodes => amount,
        };
        Row {
            resource: match resource {
                Resource::Space => "1k-blocks",
                Resource::Inodes => "inodes",
            },
            used: shown(used),
            soft: limit.soft.map(shown),
            hard: limit.hard.map(shown),
            deadline: account.deadlines.get(resource),
            grace: grace.get(resource).get(),
            over: [limit.soft, limit.hard]
                .into_iter()
                .flatten()
                .any(|limit| used > limit),
        }
    })
}

/// The first-level table.
pub fn first_level(account: &Account, grace: &GracePeriods, now: Timestamp) -> String {
    let mut text = format!(
        "{:>11}{:>16} {:>15}{:>16}{:>10}\n",
        "resource", "usage", "softlimit", "hardlimit", "grace"
    );
    let limit =
        |limit: Option<u64>| limit.map_or_else(|| "unlimited".into(), |value| value.to_string());
    for row in rows(account, grace) {
        let line = format!(
            "{:>11}{:>16}{}{:>15}{:>16}{:>10}",
            row.resource,
            row.used,
            if row.over { '*' } else { ' ' },
            limit(row.soft),
            limit(row.hard),
            grace_left(row.deadline, now),
        );
        let _infallible = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The machine form: `usage soft hard deadline grace`, blocks of 1 KiB and then inodes.
pub fn batch(account: &Account, grace: &GracePeriods) -> String {
    let mut text = String::new();
    for row in rows(account, grace) {
        let unlimited = match account.subject {
            Subject::Ve => BATCH_UNLIMITED,
            Subject::User(_) | Subject::Group(_) => 0,
        };
        let _infallible = writeln!(
            text,
            "{} {} {} {} {}",
            row.used,
            row.soft.unwrap_or(unlimited),
            row.hard.unwrap_or(unlimited),
            row.deadline.map_or(0, Timestamp::get),
            row.grace,
        );
    }
    text
}

/// The head of the second-level table.
pub fn second_level_head() -> String {
    format!(
        "{:<11}{:<5}{:>10}{:>16} {:>15}{:>16}{:>10}{:>8}  {}\n",
        "ID", "type", "resource", "usage", "softlimit", "hardlimit", "grace", "status", "name"
    )
}

/// The two rows of one user or group.
pub fn second_level(
    account: &Account,
    grace: &GracePeriods,
    names: &Names,
    now: Timestamp,
) -> String {
    let mut text = String::new();
    let Some((kind, id)) = kind_and_id(account.subject) else {
        return text;
    };
    let name = names.name(kind, id).unwrap_or("");
    for row in rows(account, grace) {
        let line = format!(
            "{:<11}{:<5}{:>10}{:>16}{}{:>15}{:>16}{:>10}{:>8}  {}",
            id,
            kind_word(kind),
            row.resource,
            row.used,
            if row.over { '*' } else { ' ' },
            row.soft.unwrap_or(0),
            row.hard.unwrap_or(0),
            grace_left(row.deadline, now),
            "loaded",
            name,
        );
        let _infallible = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// A number and what it counts, in the plural unless it is one.
pub fn counted(number: impl Into<u64>, thing: &str) -> String {
    match number.into() {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

/// `user` or `group`.
pub const fn kind_word(kind: quota::QuotaType) -> &'static str {
    match kind {
        quota::QuotaType::User => "user",
        quota::QuotaType::Group => "group",
    }
}

/// The kind and id of a second-level account.
pub const fn kind_and_id(subject: Subject) -> Option<(quota::QuotaType, u32)> {
    match subject {
        Subject::Ve => None,
        Subject::User(uid) => Some((quota::QuotaType::User, uid.get())),
        Subject::Group(gid) => Some((quota::QuotaType::Group, gid.get())),
    }
}

/// An account in JSON: space in bytes, `null` for no limit and for a timer that does not run.
#[derive(Debug, Serialize)]
pub struct AccountJson {
    used: Usage,
    reserved: Usage,
    peak: Usage,
    refused: RefusedJson,
    limits: Limits,
    deadlines: quota::Deadlines,
}

#[derive(Debug, Serialize)]
struct RefusedJson {
    space: u64,
    inodes: u64,
}

impl From<&Account> for AccountJson {
    fn from(account: &Account) -> Self {
        Self {
            used: account.usage,
            reserved: account.reserved,
            peak: account.peak,
            refused: RefusedJson {
                space: account.refused.space,
                inodes: account.refused.inodes,
            },
            limits: account.limits,
            deadlines: account.deadlines,
        }
    }
}

/// A user or group in JSON.
#[derive(Debug, Serialize)]
pub struct OwnerJson {
    #[serde(rename = "type")]
    kind: &'static str,
    id: u32,
    name: Option<String>,
    #[serde(flatten)]
    account: AccountJson,
}

impl OwnerJson {
    /// The account with its name; `None` for the VE's own.
    pub fn new(account: &Account, names: &Names) -> Option<Self> {
        let (kind, id) = kind_and_id(account.subject)?;
        Some(Self {
            kind: kind_word(kind),
            id,
            name: names.name(kind, id).map(str::to_owned),
            account: account.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quota::{GracePeriod, Inodes, Limit, QuotaType};

    fn account(subject: Subject) -> Account {
        Account {
            usage: Usage::new(Bytes::new(1025), Inodes::new(12)),
            limits: Limits {
                space: Limit::new(Some(Bytes::new(1024)), None),
                inodes: Limit::new(Some(Inodes::new(12)), Some(Inodes::new(20))),
            },
            deadlines: quota::Deadlines {
                space: Some(Timestamp::new(100)),
                inodes: None,
            },
            ..Account::unused(subject)
        }
    }

    fn grace() -> GracePeriods {
        GracePeriods {
            space: GracePeriod::new(60),
            inodes: GracePeriod::WEEK,
        }
    }

    #[test]
    fn the_grace_column_counts_down() {
        let left = |seconds| grace_left(Some(Timestamp::new(seconds)), Timestamp::new(0));
        assert_eq!(grace_left(None, Timestamp::new(0)), "");
        assert_eq!(left(0), "none");
        assert_eq!(left(-5), "none");
        assert_eq!(left(1), "00:01");
        assert_eq!(left(3600), "01:00");
        assert_eq!(left(2 * 86_400), "48:00");
        assert_eq!(left(2 * 86_400 + 1), "2days");
        assert_eq!(left(7 * 86_400), "7days");
    }

    #[test]
    fn the_table_rounds_up_and_marks_what_is_over() {
        let text = first_level(&account(Subject::Ve), &grace(), Timestamp::new(100));
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows[0],
            ["resource", "usage", "softlimit", "hardlimit", "grace"]
        );
        assert_eq!(rows[1], ["1k-blocks", "2*", "1", "unlimited", "none"]);
        assert_eq!(rows[2], ["inodes", "12", "12", "20"]);
    }

    #[test]
    fn the_machine_form_is_two_lines_of_numbers() {
        let text = batch(&account(Subject::Ve), &grace());
        assert_eq!(text, "2 1 9223372036854775807 100 60\n12 12 20 0 604800\n");
        let user = batch(&account(QuotaType::User.subject(5)), &grace());
        assert_eq!(user.lines().next(), Some("2 1 0 100 60"));
    }

    #[test]
    fn json_tells_no_limit_from_zero() {
        let text = json(&AccountJson::from(&account(Subject::Ve))).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["used"]["space"], 1025);
        assert_eq!(value["limits"]["space"]["soft"], 1024);
        assert!(value["limits"]["space"]["hard"].is_null());
    }
}

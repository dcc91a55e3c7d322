//! Limits as typed: read, checked against each other and against usage.

use quota::{Account, GracePeriod, Limit, Limits, LimitsChange, Resource, Setting, Subject};
use simfs_tools::exit::{Failure, VzquotaExit};
use simfs_tools::value::{ValueError, parse_inodes, parse_period, parse_space};

use crate::args::LimitArgs;
use crate::{Context, usage};

/// What the options of `init`, `on` and `setlimit` ask for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) limits: LimitsChange,
    pub(crate) space_grace: Option<GracePeriod>,
    pub(crate) inode_grace: Option<GracePeriod>,
    pub(crate) second_level: Option<bool>,
    pub(crate) ugid_limit: Option<u32>,
}

impl Wanted {
    /// Whether no option was given.
    pub(crate) fn is_empty(&self) -> bool {
        self.limits.is_empty()
            && self.space_grace.is_none()
            && self.inode_grace.is_none()
            && self.second_level.is_none()
            && self.ugid_limit.is_none()
    }
}

/// Reads the options; an error names the flag.
pub(crate) fn wanted(args: &LimitArgs) -> Result<Wanted, Failure<VzquotaExit>> {
    Ok(Wanted {
        limits: LimitsChange {
            space_soft: setting("-b", args.block_soft.as_deref(), parse_space)?,
            space_hard: setting("-B", args.block_hard.as_deref(), parse_space)?,
            inodes_soft: setting("-i", args.inode_soft.as_deref(), parse_inodes)?,
            inodes_hard: setting("-I", args.inode_hard.as_deref(), parse_inodes)?,
        },
        space_grace: given("-e", args.block_grace.as_deref(), parse_period)?,
        inode_grace: given("-n", args.inode_grace.as_deref(), parse_period)?,
        second_level: given("-s", args.second_level.as_deref(), parse_switch)?,
        ugid_limit: given("-u", args.ugid_limit.as_deref(), parse_ugid_limit)?,
    })
}

/// The flags of `init` that are missing.
pub(crate) fn missing(args: &LimitArgs) -> Vec<&'static str> {
    [
        ("-b BSOFT", &args.block_soft),
        ("-B BHARD", &args.block_hard),
        ("-i ISOFT", &args.inode_soft),
        ("-I IHARD", &args.inode_hard),
        ("-e BGRACE", &args.block_grace),
        ("-n IGRACE", &args.inode_grace),
    ]
    .into_iter()
    .filter(|(_, value)| value.is_none())
    .map(|(flag, _)| flag)
    .collect()
}

fn given<T>(
    flag: &str,
    value: Option<&str>,
    parse: impl Fn(&str) -> Result<T, ValueError>,
) -> Result<Option<T>, Failure<VzquotaExit>> {
    value
        .map(parse)
        .transpose()
        .map_err(|error| usage(error).about(flag))
}

fn setting<T>(
    flag: &str,
    value: Option<&str>,
    parse: impl Fn(&str) -> Result<Option<T>, ValueError>,
) -> Result<Setting<T>, Failure<VzquotaExit>> {
    Ok(given(flag, value, parse)?.map_or(Setting::Keep, Setting::exactly))
}

fn parse_switch(value: &str) -> Result<bool, ValueError> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(ValueError::Form {
            value: value.into(),
            wanted: "a switch: give 0 or 1",
        }),
    }
}

fn parse_ugid_limit(value: &str) -> Result<u32, ValueError> {
    let form = || ValueError::Form {
        value: value.into(),
        wanted: "a number of ids: give 0 to 4294967295",
    };
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(form());
    }
    value.parse().map_err(|_| form())
}

/// Refuses a hard limit below its soft one, by the flags that set them.
pub(crate) fn check_order(limits: &Limits) -> Result<(), Failure<VzquotaExit>> {
    let check = |limit: Limit<u64>, (unit, name): (u64, &str), soft: &str, hard: &str| match limit {
        Limit {
            soft: Some(low),
            hard: Some(high),
        } if low > high => Err(usage(format!(
            "the hard limit {}{name} is below the soft limit {}{name}: raise it with {hard}, or lower the other with {soft}",
            high.div_ceil(unit),
            low.div_ceil(unit),
        ))),
        _ => Ok(()),
    };
    check(limits.get(Resource::Space), (1024, " KiB"), "-b", "-B")?;
    check(limits.get(Resource::Inodes), (1, " inodes"), "-i", "-I")
}

/// Warns of limits that are below usage already; they are accepted.
pub(crate) fn warn_below_usage(context: &Context, account: &Account) {
    // Each line names the VE already.
    let whose = match account.subject {
        Subject::Ve => String::new(),
        subject => format!("{subject}: "),
    };
    for (resource, unit, name) in [
        (Resource::Space, 1024, "KiB"),
        (Resource::Inodes, 1, "inodes"),
    ] {
        let used = account.usage.get(resource);
        let limit = account.limits.get(resource);
        for (level, value) in [("soft", limit.soft), ("hard", limit.hard)] {
            if let Some(value) = value.filter(|value| used > *value) {
                context.warn(&format!(
                    "{whose}usage {} {name} is above the {level} limit {} {name}",
                    used.div_ceil(unit),
                    value.div_ceil(unit),
                ));
            }
        }
    }
}

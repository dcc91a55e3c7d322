//! The users and groups of a VE, set from the host.

use quota::{Limit, Limits, LimitsChange, QuotaType, Scope};
use simfs::control::Request;
use simfs_tools::exit::{Failure, VzquotaExit};
use simfs_tools::names::Names;
use simfs_tools::report::{counted, kind_word};
use simfs_tools::value::{parse_inodes, parse_period, parse_space};
use simfs_tools::ve_handle::VeHandle;

use crate::args::SecondLevelArgs;
use crate::limits::warn_below_usage;
use crate::{Context, Outcome, usage, ve_failure};

/// `setlimit2`.
pub(crate) fn setlimit2(context: &Context, args: &SecondLevelArgs) -> Outcome {
    let kind = match (args.user, args.group) {
        (true, false) => QuotaType::User,
        (false, true) => QuotaType::Group,
        _ => {
            return Err(usage(
                "say whose limits: give -u for a user or -g for a group",
            ));
        }
    };
    if args.times {
        set_times(context, kind, &args.values)
    } else {
        set_limits(context, kind, &args.values)
    }
}

fn set_limits(context: &Context, kind: QuotaType, values: &[String]) -> Outcome {
    let [id, block_soft, block_hard, inode_soft, inode_hard] = values else {
        return Err(usage(format!(
            "{} given, 5 needed: ID BSOFT BHARD ISOFT IHARD (0: no limit)",
            counted(u64::try_from(values.len()).unwrap_or(u64::MAX), "value")
        )));
    };
    let space =
        |flag: &str, value: &str| parse_space(value).map_err(|error| usage(error).about(flag));
    let inodes =
        |flag: &str, value: &str| parse_inodes(value).map_err(|error| usage(error).about(flag));
    let limits = Limits {
        space: zero_as_none(space("BSOFT", block_soft)?, space("BHARD", block_hard)?),
        inodes: zero_as_none(inodes("ISOFT", inode_soft)?, inodes("IHARD", inode_hard)?),
    };
    let mut handle = VeHandle::open(&context.paths, context.ve).map_err(ve_failure)?;
    let subject = kind.subject(resolve(&mut handle, kind, id)?);
    let request = Request::SetLimits {
        subject,
        change: LimitsChange::to(limits),
    };
    handle.order(&request).map_err(ve_failure)?;
    warn_off(context, &mut handle, kind)?;
    warn_below_usage(context, &handle.account(subject).map_err(ve_failure)?);
    Ok(VzquotaExit::Ok)
}

/// Zero means no limit on this level.
fn zero_as_none<T: Copy + Ord + Default>(soft: Option<T>, hard: Option<T>) -> Limit<T> {
    Limit::from_zero_as_none(soft.unwrap_or_default(), hard.unwrap_or_default())
}

fn set_times(context: &Context, kind: QuotaType, values: &[String]) -> Outcome {
    let [block, inode] = values else {
        return Err(usage(format!(
            "{} given, 2 needed: BGRACE IGRACE",
            counted(u64::try_from(values.len()).unwrap_or(u64::MAX), "value")
        )));
    };
    let space = parse_period(block).map_err(|error| usage(error).about("BGRACE"))?;
    let inodes = parse_period(inode).map_err(|error| usage(error).about("IGRACE"))?;
    let mut handle = VeHandle::open(&context.paths, context.ve).map_err(ve_failure)?;
    let request = Request::SetGracePeriods {
        scope: kind.into(),
        space: Some(space),
        inodes: Some(inodes),
    };
    handle.order(&request).map_err(ve_failure)?;
    warn_off(context, &mut handle, kind)?;
    Ok(VzquotaExit::Ok)
}

/// An id, or a name that the VE's own files know.
fn resolve(handle: &mut VeHandle, kind: QuotaType, id: &str) -> Result<u32, Failure<VzquotaExit>> {
    let word = kind_word(kind);
    if id.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
        // 4294967295 is (uid_t) -1, "no user" (chown(2)): nothing can belong to it.
        let number = id.parse().ok().filter(|number| *number != u32::MAX);
        return number.ok_or_else(|| {
            usage(format!(
                "'{id}' is not a {word} id: give 0 to 4294967294, or a name"
            ))
        });
    }
    let private = handle.info().map_err(ve_failure)?.private;
    Names::read(&private).id(kind, id).ok_or_else(|| {
        usage(format!(
            "the VE knows no {word} '{id}': give the id as a number"
        ))
    })
}

/// Says that what was set is kept, but not enforced.
fn warn_off(
    context: &Context,
    handle: &mut VeHandle,
    kind: QuotaType,
) -> Result<(), Failure<VzquotaExit>> {
    let info = handle.info().map_err(ve_failure)?;
    if !info.is_enforced(Scope::from(kind)) {
        context.warn(&format!(
            "limits of {}s are not enforced: switch them on with 'vzquota setlimit {} -s 1'",
            kind_word(kind),
            context.ve
        ));
    }
    Ok(())
}

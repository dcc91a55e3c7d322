//! The VE as a whole: record, limits, enforcement.

use std::path::{Path, PathBuf};

use quota::{
    GracePeriod, GracePeriods, Inodes, Limits, LimitsChange, PerScope, Scope, Setup, Subject,
    Tally, VeInfo,
};
use simfs::control::{Client, ClientError, Request};
use simfs::private::PrivateError;
use simfs_tools::ending::is_ending;
use simfs_tools::exit::{Failure, VzquotaExit};
use simfs_tools::progress::Bar;
use simfs_tools::record;
use simfs_tools::recount::{RecountError, recount};
use simfs_tools::ve_handle::{VeError, VeHandle};

use crate::args::{ChangeArgs, InitArgs};
use crate::limits::{Wanted, check_order, missing, wanted, warn_below_usage};
use crate::{Context, Outcome, recount_failure, usage, ve_failure};

/// `init`: checks everything, counts, then writes.
pub(crate) fn init(context: &Context, args: &InitArgs) -> Outcome {
    let wanted = wanted(&args.limits)?;
    let mut absent = missing(&args.limits);
    if args.private.is_none() {
        absent.insert(0, "-p PATH");
    }
    let Some(private) = args.private.as_deref().filter(|_| absent.is_empty()) else {
        return Err(usage(format!(
            "init needs {}: give all of them",
            absent.join(", ")
        )));
    };
    let private = absolute(private)?;
    let limits = wanted.limits.applied_to(Limits::UNLIMITED);
    check_order(&limits)?;
    refuse_mounted(context)?;
    let mut bar = Bar::new(format!("VE {}: counting", context.ve));
    let tally = match recount(&private, Inodes::ZERO, &mut bar) {
        // What is not there yet costs nothing.
        Err(RecountError::Private(PrivateError::Missing { .. })) => Tally::default(),
        counted => counted.map_err(|error| recount_failure(&error))?,
    };
    drop(bar);
    if record::exists(&context.paths, context.ve) {
        context.warn(
            "the quota record that existed is overwritten, with the limits of its users and groups",
        );
    }
    let counted = tally.ve;
    let setup = setup(context, private, limits, &wanted, tally);
    record::replace(&context.paths, setup).map_err(ve_failure)?;
    context.tell(&format!(
        "record made: {} KiB, {} inodes in use",
        counted.space.get().div_ceil(1024),
        counted.inodes
    ));
    let mut handle = VeHandle::open(&context.paths, context.ve).map_err(ve_failure)?;
    warn_below_usage(context, &handle.account(Subject::Ve).map_err(ve_failure)?);
    Ok(VzquotaExit::Ok)
}

/// A new record. The second level is enforced unless switched off: without limits that costs nobody anything.
fn setup(
    context: &Context,
    private: PathBuf,
    limits: Limits,
    wanted: &Wanted,
    usage: Tally,
) -> Setup {
    let second_level = wanted.second_level.unwrap_or(true);
    let own = GracePeriods {
        space: wanted.space_grace.unwrap_or(GracePeriod::WEEK),
        inodes: wanted.inode_grace.unwrap_or(GracePeriod::WEEK),
    };
    Setup {
        ve: context.ve,
        private,
        limits,
        grace: PerScope {
            ve: own,
            ..PerScope::all(GracePeriods::default())
        },
        enforced: PerScope {
            ve: true,
            users: second_level,
            groups: second_level,
        },
        ugid_limit: wanted.ugid_limit.unwrap_or(VeInfo::ANY_UGIDS),
        usage,
    }
}

/// A path that means the same from any directory, and can be stored.
fn absolute(path: &Path) -> Result<PathBuf, Failure<VzquotaExit>> {
    let no_path = |why: String| Failure::new(VzquotaExit::NoPrivate, why);
    let path = std::path::absolute(path)
        .map_err(|error| no_path(format!("-p '{}': {error}", path.display())))?;
    if path.to_str().is_none() {
        return Err(no_path(format!(
            "-p '{}': not UTF-8: give a path that is",
            path.display()
        )));
    }
    Ok(path)
}

/// Refuses what cannot be done under a running VE.
fn refuse_mounted(context: &Context) -> Result<(), Failure<VzquotaExit>> {
    match Client::connect(&context.paths.run_dir(context.ve)) {
        Err(ClientError::NotRunning) => Ok(()),
        Ok(client) => {
            if is_ending(client) {
                return Ok(());
            }
            Err(Failure::new(
                VzquotaExit::Running,
                format!(
                    "the VE is mounted: unmount it first with 'simfs umount {}'",
                    context.ve
                ),
            ))
        }
        Err(error) => Err(ve_failure(VeError::Daemon(error))),
    }
}

/// `on`.
pub(crate) fn on(context: &Context, args: &ChangeArgs) -> Outcome {
    let mut wanted = wanted(&args.limits)?;
    let second_level = wanted.second_level.take().unwrap_or(true);
    let mut handle = VeHandle::open(&context.paths, context.ve).map_err(ve_failure)?;
    apply(context, &mut handle, args.private.as_deref(), &wanted)?;
    enforce(&mut handle, true, second_level)?;
    warn_below_usage(context, &handle.account(Subject::Ve).map_err(ve_failure)?);
    Ok(VzquotaExit::Ok)
}

/// `off`.
pub(crate) fn off(context: &Context) -> Outcome {
    let mut handle = VeHandle::open(&context.paths, context.ve).map_err(ve_failure)?;
    enforce(&mut handle, false, false)?;
    Ok(VzquotaExit::Ok)
}

fn enforce(
    handle: &mut VeHandle,
    first_level: bool,
    second_level: bool,
) -> Result<(), Failure<VzquotaExit>> {
    for (scope, on) in [
        (Scope::Ve, first_level),
        (Scope::Users, second_level),
        (Scope::Groups, second_level),
    ] {
        handle
            .order(&Request::SetEnforced { scope, on })
            .map_err(ve_failure)?;
    }
    Ok(())
}

/// `drop`.
pub(crate) fn drop_record(context: &Context) -> Outcome {
    refuse_mounted(context)?;
    record::remove(&context.paths, context.ve).map_err(ve_failure)?;
    context.tell("record removed");
    Ok(VzquotaExit::Ok)
}

/// `setlimit`.
pub(crate) fn setlimit(context: &Context, args: &ChangeArgs) -> Outcome {
    let wanted = wanted(&args.limits)?;
    if wanted.is_empty() && args.private.is_none() {
        return Err(usage(
            "nothing to set: give at least one of -b -B -i -I -e -n -s -u -p",
        ));
    }
    let mut handle = VeHandle::open(&context.paths, context.ve).map_err(ve_failure)?;
    apply(context, &mut handle, args.private.as_deref(), &wanted)?;
    warn_below_usage(context, &handle.account(Subject::Ve).map_err(ve_failure)?);
    Ok(VzquotaExit::Ok)
}

/// Checks everything that is wanted, then carries it out.
fn apply(
    context: &Context,
    handle: &mut VeHandle,
    private: Option<&Path>,
    wanted: &Wanted,
) -> Result<(), Failure<VzquotaExit>> {
    let private = private.map(absolute).transpose()?;
    let account = handle.account(Subject::Ve).map_err(ve_failure)?;
    check_order(&wanted.limits.applied_to(account.limits))?;
    let is_offered = handle.info().map_err(ve_failure)?.offers_second_level();
    for request in requests(private, wanted, is_offered) {
        let changed = handle.order(&request).map_err(ve_failure)?;
        if !changed {
            context.tell("nothing to change");
        }
    }
    Ok(())
}

/// The orders that make up what is wanted. Offering a second level again also switches it on.
fn requests(private: Option<PathBuf>, wanted: &Wanted, is_offered: bool) -> Vec<Request> {
    let (space, inodes) = (wanted.space_grace, wanted.inode_grace);
    let change: LimitsChange = wanted.limits;
    let limits = (!change.is_empty()).then_some(Request::SetLimits {
        subject: Subject::Ve,
        change,
    });
    let grace = (space.is_some() || inodes.is_some()).then_some(Request::SetGracePeriods {
        scope: Scope::Ve,
        space,
        inodes,
    });
    let is_new = !is_offered && wanted.ugid_limit.is_some_and(|limit| limit > 0);
    let switches = wanted
        .second_level
        .or_else(|| is_new.then_some(true))
        .map(|on| [Scope::Users, Scope::Groups].map(|scope| Request::SetEnforced { scope, on }));
    limits
        .into_iter()
        .chain(grace)
        .chain(switches.into_iter().flatten())
        .chain(wanted.ugid_limit.map(Request::SetUgidLimit))
        .chain(private.map(Request::SetPrivate))
        .collect()
}

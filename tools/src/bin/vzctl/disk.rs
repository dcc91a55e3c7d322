//! Disk limits: from the configuration into the VE's quota record, which alone decides.

use std::path::PathBuf;

use quota::{
    Bytes, GracePeriod, GracePeriods, Inodes, Limit, Limits, LimitsChange, PerScope, Scope, Setup,
    Subject, Tally,
};
use simfs::control::Request;
use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::progress::Bar;
use simfs_tools::record;
use simfs_tools::recount::recount;
use simfs_tools::ve_config::VeConfig;
use simfs_tools::ve_handle::{VeError, VeHandle};

use crate::{Context, Fallible, Outcome, config_failure, program};

/// Limits of a VE for which nothing is configured: those of OpenVZ's samples.
const SPACE_DEFAULT: (u64, u64) = (2 * 1024 * 1024, 2_306_867);
const INODES_DEFAULT: (u64, u64) = (131_072, 144_179);
/// Three days (vzctl `include/quota.h`).
const GRACE_DEFAULT: u64 = 259_200;

type Part = Option<(Option<u64>, Option<u64>)>;

/// What is configured of the VE's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Soft and hard, in KiB.
    space: Part,
    inodes: Part,
    grace: Option<u64>,
    ugid_limit: Option<u32>,
}

impl Wanted {
    pub(crate) fn of(config: &VeConfig) -> Self {
        Self {
            space: config.pair("DISKSPACE"),
            inodes: config.pair("DISKINODES"),
            grace: config.number("QUOTATIME"),
            ugid_limit: config
                .number("QUOTAUGIDLIMIT")
                .and_then(|number| u32::try_from(number).ok()),
        }
    }

    /// The limits of a new record: what is not configured is as in OpenVZ's samples.
    pub(crate) fn limits(&self) -> Limits {
        let some = |(soft, hard)| (Some(soft), Some(hard));
        let space = self.space.unwrap_or(some(SPACE_DEFAULT));
        let inodes = self.inodes.unwrap_or(some(INODES_DEFAULT));
        Limits {
            space: Limit::new(space.0.map(bytes), space.1.map(bytes)),
            inodes: Limit::new(inodes.0.map(Inodes::new), inodes.1.map(Inodes::new)),
        }
    }

    fn grace(&self) -> GracePeriods {
        let period = GracePeriod::new(self.grace.unwrap_or(GRACE_DEFAULT));
        GracePeriods {
            space: period,
            inodes: period,
        }
    }

    /// The orders that bring a record to what is configured; what is not configured stays.
    fn orders(&self) -> Vec<Request> {
        let mut orders = Vec::new();
        let limits = LimitsChange::to(self.limits());
        let mut change = LimitsChange::default();
        if self.space.is_some() {
            (change.space_soft, change.space_hard) = (limits.space_soft, limits.space_hard);
        }
        if self.inodes.is_some() {
            (change.inodes_soft, change.inodes_hard) = (limits.inodes_soft, limits.inodes_hard);
        }
        if !change.is_empty() {
            orders.push(Request::SetLimits {
                subject: Subject::Ve,
                change,
            });
        }
        if let Some(seconds) = self.grace {
            let period = Some(GracePeriod::new(seconds));
            orders.push(Request::SetGracePeriods {
                scope: Scope::Ve,
                space: period,
                inodes: period,
            });
        }
        if let Some(limit) = self.ugid_limit {
            orders.extend(second_level(limit));
        }
        orders
    }

    /// A new record.
    pub(crate) fn setup(&self, context: &Context, private: PathBuf, usage: Tally) -> Setup {
        let ugid_limit = self.ugid_limit.unwrap_or(0);
        Setup {
            ve: context.ve,
            private,
            limits: self.limits(),
            grace: PerScope {
                ve: self.grace(),
                ..PerScope::all(GracePeriods::default())
            },
            enforced: PerScope {
                ve: true,
                users: ugid_limit > 0,
                groups: ugid_limit > 0,
            },
            ugid_limit,
            usage,
        }
    }
}

/// The orders that keep this limit: a number puts the second level in force at once, 0 takes it away at the next start.
fn second_level(ugid_limit: u32) -> Vec<Request> {
    let scopes = [Scope::Users, Scope::Groups].into_iter();
    let switches = scopes
        .filter(|_| ugid_limit > 0)
        .map(|scope| Request::SetEnforced { scope, on: true });
    std::iter::once(Request::SetUgidLimit(ugid_limit))
        .chain(switches)
        .collect()
}

const fn bytes(kib: u64) -> Bytes {
    Bytes::new(kib.saturating_mul(1024))
}

/// Brings the record to what is configured, mounted or not; in force at once.
pub(crate) fn apply(context: &Context, config: &VeConfig) -> Fallible<()> {
    let orders = Wanted::of(config).orders();
    if orders.is_empty() {
        return Ok(());
    }
    let mut handle = VeHandle::open(&context.paths, context.ve).map_err(not_set)?;
    for order in &orders {
        handle.order(order).map_err(|error| match order {
            Request::SetUgidLimit(_) | Request::SetEnforced { .. } => not_set_up(error),
            _ => not_set(error),
        })?;
    }
    Ok(())
}

/// Takes from the configuration whether the VE that is about to start has a second level. One that is configured as it was
/// stays as it was switched, inside or outside.
pub(crate) fn follow_ugid_limit(context: &Context, config: &VeConfig) -> Fallible<()> {
    let Some(limit) = Wanted::of(config).ugid_limit else {
        return Ok(());
    };
    // A record that cannot be opened is for the mount to name.
    let Ok(mut handle) = VeHandle::open(&context.paths, context.ve) else {
        return Ok(());
    };
    if handle.info().map_err(not_set_up)?.ugid_limit == limit {
        return Ok(());
    }
    for order in second_level(limit) {
        handle.order(&order).map_err(not_set_up)?;
    }
    Ok(())
}

fn not_set(error: VeError) -> Failure<VzctlExit> {
    Failure::new(VzctlExit::SetLimit, error.to_string())
}

fn not_set_up(error: VeError) -> Failure<VzctlExit> {
    Failure::new(VzctlExit::SecondLevel, error.to_string())
}

/// Tells of configured limits that are not those in force; nothing is changed.
pub(crate) fn report_difference(context: &Context, config: &VeConfig) {
    let Ok(mut handle) = VeHandle::open(&context.paths, context.ve) else {
        return;
    };
    let Ok(account) = handle.account(Subject::Ve) else {
        return;
    };
    let wanted = Wanted::of(config);
    let limits = wanted.limits();
    for (key, is_set, differs) in [
        (
            "DISKSPACE",
            wanted.space.is_some(),
            limits.space != account.limits.space,
        ),
        (
            "DISKINODES",
            wanted.inodes.is_some(),
            limits.inodes != account.limits.inodes,
        ),
    ] {
        if is_set && differs {
            context.warn(&format!(
                "{key} of the configuration is not the limit in force, which stays: apply it with \
                 'vzctl set {} --applyconfig'",
                context.ve
            ));
        }
    }
}

/// Makes the record of a VE that has none.
pub(crate) fn ensure_record(context: &Context, config: &VeConfig) -> Fallible<()> {
    if record::exists(&context.paths, context.ve) {
        return Ok(());
    }
    init(context, config)
}

/// Counts the private area and makes the record anew.
fn init(context: &Context, config: &VeConfig) -> Fallible<()> {
    let not_made =
        |error: &dyn std::fmt::Display| Failure::new(VzctlExit::QuotaInit, error.to_string());
    let private = context
        .paths
        .private(context.ve)
        .map_err(|error| config_failure(error.into()))?;
    let mut bar = Bar::new(format!("VE {}: counting", context.ve));
    let tally = recount(&private, Inodes::ZERO, &mut bar).map_err(|error| not_made(&error))?;
    let setup = Wanted::of(config).setup(context, private, tally);
    record::replace(&context.paths, setup).map_err(|error| not_made(&error))
}

/// `quotainit`.
pub(crate) fn quotainit(context: &Context) -> Outcome {
    let _lock = context.lock("making the quota record")?;
    if context.must_exist()?.is_mounted {
        return Err(Failure::new(
            VzctlExit::QuotaInit,
            "mounted: unmount it first",
        ));
    }
    init(context, &context.config()?)?;
    Ok(VzctlExit::Ok)
}

/// `quotaon`.
pub(crate) fn quotaon(context: &Context) -> Outcome {
    switch(context, "on", VzctlExit::QuotaOn)
}

/// `quotaoff`.
pub(crate) fn quotaoff(context: &Context) -> Outcome {
    switch(context, "off", VzctlExit::QuotaOff)
}

fn switch(context: &Context, verb: &str, exit: VzctlExit) -> Outcome {
    let _lock = context.lock("switching quota")?;
    let mut command = program::own(context, "vzquota");
    command.args([verb, &context.ve.to_string()]);
    program::run_own(context, &mut command).map_err(|why| Failure::new(exit, why))?;
    Ok(VzctlExit::Ok)
}

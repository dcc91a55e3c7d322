//! `stat` and `show`.

use std::fmt::Write as _;

use quota::{Account, Clock, QuotaType, Scope, Subject, SystemClock, VeInfo};
use serde::Serialize;
use simfs::control::Request;
use simfs_tools::exit::{Failure, VzquotaExit};
use simfs_tools::names::Names;
use simfs_tools::report::{
    AccountJson, OwnerJson, batch, first_level, json, kind_word, period, print, second_level,
    second_level_head,
};
use simfs_tools::ve_handle::VeHandle;

use crate::args::ReportArgs;
use crate::{Context, Outcome, ve_failure};

/// Everything that a report shows.
struct Figures {
    info: VeInfo,
    mounted: bool,
    account: Account,
    owners: Option<Owners>,
}

/// The second level of a report.
struct Owners {
    users: Vec<Account>,
    groups: Vec<Account>,
    names: Names,
}

/// `stat`: as things are now.
pub(crate) fn stat(context: &Context, args: &ReportArgs) -> Outcome {
    let mut handle = VeHandle::open(&context.paths, context.ve).map_err(ve_failure)?;
    report(context, &mut handle, args.second_level)
}

/// `show`: as stored. Of a mounted VE the daemon stores the figures first, since it owns the store.
pub(crate) fn show(context: &Context, args: &ReportArgs) -> Outcome {
    let mut handle = VeHandle::open(&context.paths, context.ve).map_err(ve_failure)?;
    if handle.stored().is_none() {
        handle.order(&Request::Commit).map_err(ve_failure)?;
        context.warn("the VE is mounted: its figures were stored just now");
    }
    report(context, &mut handle, args.second_level)
}

fn report(context: &Context, handle: &mut VeHandle, with_owners: bool) -> Outcome {
    let figures = figures(handle, with_owners)?;
    let text = if context.json {
        json_report(&figures)
    } else if context.batch {
        Ok(batch_report(&figures))
    } else {
        Ok(table_report(&figures))
    };
    text.and_then(|text| print(&text))
        .map_err(|error| Failure::new(VzquotaExit::System, error.to_string()))?;
    let off = !figures.info.is_enforced(Scope::Users) && !figures.info.is_enforced(Scope::Groups);
    Ok(if with_owners && off {
        VzquotaExit::SecondLevelOff
    } else {
        VzquotaExit::Ok
    })
}

fn figures(handle: &mut VeHandle, with_owners: bool) -> Result<Figures, Failure<VzquotaExit>> {
    let info = handle.info().map_err(ve_failure)?;
    let account = handle.account(Subject::Ve).map_err(ve_failure)?;
    let owners = if with_owners {
        Some(Owners {
            users: handle.accounts(QuotaType::User).map_err(ve_failure)?,
            groups: handle.accounts(QuotaType::Group).map_err(ve_failure)?,
            names: Names::read(&info.private),
        })
    } else {
        None
    };
    Ok(Figures {
        info,
        mounted: handle.stored().is_none(),
        account,
        owners,
    })
}

impl Owners {
    fn accounts(&self, kind: QuotaType) -> &[Account] {
        match kind {
            QuotaType::User => &self.users,
            QuotaType::Group => &self.groups,
        }
    }
}

fn batch_report(figures: &Figures) -> String {
    let mut text = batch(&figures.account, &figures.info.grace_periods(Scope::Ve));
    let Some(owners) = &figures.owners else {
        return text;
    };
    for kind in QuotaType::ALL {
        for account in owners.accounts(kind) {
            for line in batch(account, &figures.info.grace_periods(Scope::from(kind))).lines() {
                let _infallible = writeln!(text, "{} {line}", account.subject);
            }
        }
    }
    text
}

fn table_report(figures: &Figures) -> String {
    let now = SystemClock.now();
    let mut text = first_level(
        &figures.account,
        &figures.info.grace_periods(Scope::Ve),
        now,
    );
    if !figures.info.is_enforced(Scope::Ve) {
        let _infallible = writeln!(
            text,
            "The limits are not enforced: 'vzquota on {}'",
            figures.info.ve
        );
    }
    let Some(owners) = &figures.owners else {
        return text;
    };
    text += &second_level_summary(figures, owners);
    text += "\nUser/group objects:\n";
    text += &second_level_head();
    for kind in QuotaType::ALL {
        for account in owners.accounts(kind) {
            text += &second_level(
                account,
                &figures.info.grace_periods(Scope::from(kind)),
                &owners.names,
                now,
            );
        }
    }
    text
}

fn second_level_summary(figures: &Figures, owners: &Owners) -> String {
    let info = &figures.info;
    let on = info.is_enforced(Scope::Users) || info.is_enforced(Scope::Groups);
    let (count, limit) = (owners.users.len() + owners.groups.len(), info.ugid_limit);
    let exceeded = limit != 0 && u32::try_from(count).is_ok_and(|count| count > limit);
    let mut text = format!(
        "User/group quota: {},{}\nUgids: loaded {count}, total {count}, limit {limit}\n\
         Ugid limit was exceeded: {}\n\nUser/group grace times and quotafile flags:\n\
         {:>5} {:>15} {:>15} {:>10}\n",
        if on { "on" } else { "off" },
        if on && figures.mounted {
            "active"
        } else {
            "inactive"
        },
        if exceeded { "yes" } else { "no" },
        "type",
        "block_exp_time",
        "inode_exp_time",
        "dqi_flags",
    );
    for kind in QuotaType::ALL {
        let grace = info.grace_periods(Scope::from(kind));
        let _infallible = writeln!(
            text,
            "{:>5} {:>15} {:>15} {:>10}",
            kind_word(kind),
            period(grace.space.get()),
            period(grace.inodes.get()),
            "0h",
        );
    }
    text
}

/// The report in JSON.
#[derive(Serialize)]
struct ReportJson<'a> {
    veid: u32,
    private: &'a std::path::Path,
    mounted: bool,
    enforced: bool,
    grace_periods: quota::GracePeriods,
    #[serde(flatten)]
    account: AccountJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    second_level: Option<SecondLevelJson>,
}

#[derive(Serialize)]
struct SecondLevelJson {
    ugid_limit: u32,
    users: KindJson,
    groups: KindJson,
}

#[derive(Serialize)]
struct KindJson {
    enforced: bool,
    grace_periods: quota::GracePeriods,
    accounts: Vec<OwnerJson>,
}

fn json_report(figures: &Figures) -> std::io::Result<String> {
    let info = &figures.info;
    let kind_json = |owners: &Owners, kind| KindJson {
        enforced: info.is_enforced(Scope::from(kind)),
        grace_periods: info.grace_periods(Scope::from(kind)),
        accounts: owners
            .accounts(kind)
            .iter()
            .filter_map(|account| OwnerJson::new(account, &owners.names))
            .collect(),
    };
    json(&ReportJson {
        veid: info.ve.get(),
        private: &info.private,
        mounted: figures.mounted,
        enforced: info.is_enforced(Scope::Ve),
        grace_periods: info.grace_periods(Scope::Ve),
        account: (&figures.account).into(),
        second_level: figures.owners.as_ref().map(|owners| SecondLevelJson {
            ugid_limit: info.ugid_limit,
            users: kind_json(owners, QuotaType::User),
            groups: kind_json(owners, QuotaType::Group),
        }),
    })
}

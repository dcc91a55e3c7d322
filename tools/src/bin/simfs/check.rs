//! `simfs check`.

use quota::store::StoreError;
use quota::store::salvage::salvage;
use quota::{Difference, Subject, VeId};
use serde::Serialize;
use simfs::control::{CheckReport, Reply, Request};
use simfs_tools::exit::{Failure, SimfsExit};
use simfs_tools::paths::Paths;
use simfs_tools::progress::Bar;
use simfs_tools::recount::recount;
use simfs_tools::report::{complain, counted, json, kind_and_id, kind_word, print};
use simfs_tools::ve_handle::{VeError, VeHandle};

use crate::args::CheckArgs;
use crate::{Outcome, failed};

pub(crate) fn run(paths: &Paths, ve: VeId, args: &CheckArgs) -> Outcome {
    if args.stop || args.resume {
        return stop_or_resume(paths, ve, args.resume);
    }
    let mut bar = Bar::new(format!("VE {ve}: checking"));
    let (mut handle, mended) = open(paths, ve, args.repair)?;
    let mut report = match ask(&mut handle, args.repair, &mut bar)? {
        Some(report) => report,
        None => count(&handle, args.repair, &mut bar)?,
    };
    if mended {
        (report.equal, report.repaired) = (false, true);
    }
    drop(bar);
    let text = if args.json {
        json_report(ve, &report)
    } else {
        Ok(text_report(ve, &report))
    };
    text.and_then(|text| print(&text)).map_err(unchecked)?;
    Ok(match (report.equal, report.repaired) {
        (true, _) => SimfsExit::Ok,
        (false, true) => SimfsExit::Failed,
        (false, false) => SimfsExit::Differs,
    })
}

/// Stops the recount of a mounted VE after a crash, or has it go on.
fn stop_or_resume(paths: &Paths, ve: VeId, go_on: bool) -> Outcome {
    let mut handle = VeHandle::open(paths, ve).map_err(failed)?;
    if handle.stored().is_some() {
        return Err(failed(
            "not mounted: a recount that is due runs from the next mount on",
        ));
    }
    let _was_otherwise = handle.order(&Request::Recount { go_on }).map_err(failed)?;
    Ok(SimfsExit::Ok)
}

/// The VE's accounts, and whether their store had to be mended for that.
fn open(paths: &Paths, ve: VeId, repair: bool) -> Result<(VeHandle, bool), Failure<SimfsExit>> {
    match readable(paths, ve) {
        Err(VeError::Store { error }) if repair && error.is_damage() => {
            mend(paths, ve).map_err(unchecked)?;
            Ok((VeHandle::open(paths, ve).map_err(unchecked)?, true))
        }
        opened => Ok((opened.map_err(unchecked)?, false)),
    }
}

/// The VE's accounts, each of which can be read.
fn readable(paths: &Paths, ve: VeId) -> Result<VeHandle, VeError> {
    let handle = VeHandle::open(paths, ve)?;
    if let Some(engine) = handle.stored() {
        let _all = engine.tally().map_err(|error| VeError::Store { error })?;
    }
    Ok(handle)
}

/// Saves what is readable of a damaged store, and says what was lost.
pub(crate) fn mend(paths: &Paths, ve: VeId) -> Result<(), StoreError> {
    let report = salvage(&paths.state_dir(ve), ve)?;
    for line in report.lines() {
        complain(&format!("simfs: VE {ve}: {line}"));
    }
    Ok(())
}

/// A failure that leaves open whether the totals are right.
fn unchecked(error: impl ToString) -> Failure<SimfsExit> {
    Failure::new(SimfsExit::CheckFailed, error.to_string())
}

/// A mounted VE is counted by its daemon, which knows what changes meanwhile; nothing if the VE is not, or no longer,
/// mounted.
fn ask(
    handle: &mut VeHandle,
    repair: bool,
    bar: &mut Bar,
) -> Result<Option<CheckReport>, Failure<SimfsExit>> {
    if handle.stored().is_some() {
        return Ok(None);
    }
    let reply = handle.ask_with_progress(&Request::Check { repair }, &mut |progress| {
        bar.show(progress.done.get(), progress.total_estimate.get());
    });
    match reply {
        Ok(Reply::Checked(report)) => Ok(Some(report)),
        Err(_) if handle.stored().is_some() => Ok(None),
        Ok(_) => Err(unchecked(VeError::Unexpected)),
        Err(error) => Err(unchecked(error)),
    }
}

fn count(
    handle: &VeHandle,
    repair: bool,
    bar: &mut Bar,
) -> Result<CheckReport, Failure<SimfsExit>> {
    let engine = handle
        .stored()
        .ok_or_else(|| unchecked(VeError::Unexpected))?;
    let recorded = engine.tally().map_err(unchecked)?;
    let private = engine.info().private;
    let counted = recount(&private, recorded.ve.inodes, bar).map_err(unchecked)?;
    let differences = recorded.differences(&counted);
    let equal = differences.is_empty();
    let repaired = repair && !equal;
    if repaired {
        let _differed = engine.replace_usage(&counted).map_err(unchecked)?;
    }
    Ok(CheckReport::new(repaired, differences, counted.ve.inodes))
}

fn text_report(ve: VeId, report: &CheckReport) -> String {
    let mut text = String::new();
    for difference in &report.differences {
        let (recorded, counted) = (difference.recorded, difference.counted);
        text += &format!(
            "{}: recorded {} KiB, {} inodes; counted {} KiB, {} inodes\n",
            difference.subject,
            recorded.space.get().div_ceil(1024),
            recorded.inodes,
            counted.space.get().div_ceil(1024),
            counted.inodes,
        );
    }
    if report.omitted > 0 {
        text += &format!("and {} more\n", report.omitted);
    }
    let verdict = match (report.equal, report.repaired) {
        (true, _) => "the totals are right",
        (false, true) => "the totals were wrong and are repaired",
        (false, false) => "the totals are wrong: mend them with --repair",
    };
    text + &format!(
        "VE {ve}: {} counted: {verdict}\n",
        counted(report.inodes_seen.get(), "inode")
    )
}

/// The report in JSON.
#[derive(Serialize)]
struct ReportJson {
    veid: u32,
    equal: bool,
    repaired: bool,
    inodes_seen: u64,
    differences: Vec<DifferenceJson>,
    omitted: u64,
}

#[derive(Serialize)]
struct DifferenceJson {
    #[serde(rename = "type")]
    kind: &'static str,
    id: Option<u32>,
    recorded: quota::Usage,
    counted: quota::Usage,
}

impl From<&Difference> for DifferenceJson {
    fn from(difference: &Difference) -> Self {
        let (kind, id) = match difference.subject {
            Subject::Ve => ("ve", None),
            subject => {
                kind_and_id(subject).map_or(("ve", None), |(kind, id)| (kind_word(kind), Some(id)))
            }
        };
        Self {
            kind,
            id,
            recorded: difference.recorded,
            counted: difference.counted,
        }
    }
}

fn json_report(ve: VeId, report: &CheckReport) -> std::io::Result<String> {
    json(&ReportJson {
        veid: ve.get(),
        equal: report.equal,
        repaired: report.repaired,
        inodes_seen: report.inodes_seen.get(),
        differences: report
            .differences
            .iter()
            .map(DifferenceJson::from)
            .collect(),
        omitted: report.omitted,
    })
}

//! `simfs upgrade`: the program that is called takes over from the one that serves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use quota::VeId;
use simfs::control::{Client, ClientError, Request, UpgradeOutcome, VeStatus};
use simfs::keeper::upgrade_link;
use simfs_tools::ending;
use simfs_tools::exit::SimfsExit;
use simfs_tools::paths::Paths;
use simfs_tools::report::{complain, print};
use simfs_tools::value::parse_ve;

use crate::args::UpgradeArgs;
use crate::{Outcome, failed, must_be_known, status, usage};

/// How long a new program may take to prove itself or be replaced by the old one.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn run(paths: &Paths, args: &UpgradeArgs) -> Outcome {
    let program = match &args.program {
        Some(program) => std::path::absolute(program),
        None => std::env::current_exe(),
    };
    let program = program.map_err(failed)?;
    let Some(veid) = &args.veid else {
        return all(paths, &program);
    };
    let ve = parse_ve(veid).map_err(usage)?;
    must_be_known(paths, ve)
        .and_then(|()| upgrade(paths, ve, &program).map_err(failed))
        .map_err(|failure| failure.about(format_args!("VE {ve}")))?;
    say(ve, &program)?;
    Ok(SimfsExit::Ok)
}

/// One after the other; a failure does not keep the rest from their turn.
fn all(paths: &Paths, program: &Path) -> Outcome {
    let mut exit = SimfsExit::Ok;
    for ve in status::known(paths) {
        match upgrade(paths, ve, program) {
            Ok(()) => say(ve, program)?,
            Err(Failed::NotMounted) => {}
            Err(why) => {
                complain(&format!("simfs: VE {ve}: {why}"));
                exit = SimfsExit::Failed;
            }
        }
    }
    Ok(exit)
}

fn say(ve: VeId, program: &Path) -> Result<(), crate::Failure<SimfsExit>> {
    print(&format!("VE {ve}: served by {} now\n", program.display())).map_err(failed)
}

/// Why a VE is served as before.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("not mounted, so there is nothing to replace")]
    NotMounted,
    #[error(transparent)]
    Client(ClientError),
    #[error("{}: {error}", program.display())]
    Refused {
        program: PathBuf,
        error: ClientError,
    },
    #[error("{}: {error}", link.display())]
    Link { link: PathBuf, error: io::Error },
    #[error("{} could not take over ({reason}); the VE is served on as before", program.display())]
    Reverted { program: PathBuf, reason: String },
    #[error("the daemon answered something else: it differs in version")]
    Unexpected,
    #[error("whether the new program serves could not be found out in {} s: see 'simfs status' and the VE's log", PATIENCE.as_secs())]
    Unknown,
    #[error(
        "the daemon ended before it handed over (see the VE's log) and another of the same program serves: try again"
    )]
    Died,
    #[error("the mount has ended meanwhile: see the VE's log")]
    Gone,
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotRunning => Self::NotMounted,
            error => Self::Client(error),
        }
    }
}

fn upgrade(paths: &Paths, ve: VeId, program: &Path) -> Result<(), Failed> {
    let run_dir = paths.run_dir(ve);
    let before = ending::status(&run_dir)?;
    let link = name_program(paths, ve, program)?;
    let ordered =
        Client::connect(&run_dir).and_then(|mut client| client.request(&Request::Upgrade));
    // Taken away by the keeper, if it came so far.
    let _may_be_gone = fs::remove_file(link);
    match ordered {
        Ok(_) => return Err(Failed::Unexpected),
        Err(error @ (ClientError::Refused(_) | ClientError::TimedOut)) => {
            let program = program.to_owned();
            return Err(Failed::Refused { program, error });
        }
        // The daemon has handed over; its sockets stay.
        Err(_) => {}
    }
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match ending::status(&run_dir) {
            Err(ClientError::NotRunning) => return Err(Failed::Gone),
            // One that ends while it is asked is followed by another.
            Err(_) => {}
            Ok(status) if attempt(&status) == attempt(&before) => {
                if status.pid != before.pid {
                    return Err(Failed::Died);
                }
            }
            Ok(status) => match status.upgrade.map(|upgrade| upgrade.outcome) {
                Some(UpgradeOutcome::Running) => return Ok(()),
                Some(UpgradeOutcome::Reverted(reason)) => {
                    let program = program.to_owned();
                    return Err(Failed::Reverted { program, reason });
                }
                Some(UpgradeOutcome::Starting) | None => {}
            },
        }
        thread::sleep(PAUSE);
    }
    Err(Failed::Unknown)
}

/// Tells the keeper which program; see [`upgrade_link`].
fn name_program(paths: &Paths, ve: VeId, program: &Path) -> Result<PathBuf, Failed> {
    let run_dir = fs::canonicalize(paths.run_dir(ve)).map_err(|_| Failed::NotMounted)?;
    let link = upgrade_link(&run_dir);
    let _left_behind = fs::remove_file(&link);
    match std::os::unix::fs::symlink(program, &link) {
        Ok(()) => Ok(link),
        Err(error) => Err(Failed::Link { link, error }),
    }
}

fn attempt(status: &VeStatus) -> u32 {
    status.upgrade.as_ref().map_or(0, |upgrade| upgrade.attempt)
}

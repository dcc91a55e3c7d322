//! `simfs mount`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use quota::VeId;
use quota::store::StoreError;
use quota::store::copy::settings;
use rustix::io::Errno;
use simfs::control::{Client, ClientError};
use simfs::mount::MountOptions;
use simfs_tools::ending::is_ending;
use simfs_tools::exit::{Failure, SimfsExit};
use simfs_tools::paths::Paths;
use simfs_tools::ve_handle::{VeError, open_stored};
use thiserror::Error;

use crate::args::MountArgs;
use crate::check::mend;
use crate::start::{Plan, start};
use crate::{Outcome, failed, umount, usage};

pub(crate) fn run(paths: &Paths, ve: VeId, args: &MountArgs) -> Outcome {
    let request = MountRequest {
        ve,
        mountpoint: args.mountpoint.as_deref(),
        private: args.private.as_deref(),
        options: MountOptions::parse(&args.options.join(",")).map_err(usage)?,
        foreground: args.foreground,
        quota: !args.no_quota,
    };
    let plan = plan(paths, &request).map_err(|refusal| match refusal {
        Refusal::NoRecord(_) => failed(format!(
            "{refusal}, or mount without limits with --no-quota"
        )),
        Refusal::Other(_) => failed(refusal),
    })?;
    if args.no_quota {
        distrust(paths, ve)?;
    }
    start(plan).map_err(failed)?;
    Ok(SimfsExit::Ok)
}

/// What a mount without limits changes is not counted: if the VE has a record, its next mount is to count anew.
fn distrust(paths: &Paths, ve: VeId) -> Result<(), Failure<SimfsExit>> {
    match open_stored(paths, ve) {
        Ok(engine) => engine.totals_are_doubtful().map_err(failed),
        // A record that cannot be read is mended, and the VE counted, before it is of use again.
        Err(VeError::NoRecord { .. } | VeError::Store { .. }) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// A mount as asked for; what is absent is found in the record and the configuration.
pub(crate) struct MountRequest<'a> {
    pub(crate) ve: VeId,
    pub(crate) mountpoint: Option<&'a Path>,
    pub(crate) private: Option<&'a Path>,
    pub(crate) options: MountOptions,
    pub(crate) foreground: bool,
    pub(crate) quota: bool,
}

/// Why nothing is mounted, in one line with the remedy.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    /// The VE has no quota record.
    #[error(transparent)]
    NoRecord(VeError),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

/// Checks what can be checked beforehand, and finds what was not said.
pub(crate) fn plan(paths: &Paths, request: &MountRequest<'_>) -> Result<Plan, Refusal> {
    let ve = request.ve;
    match Client::connect(&paths.run_dir(ve)) {
        Err(ClientError::NotRunning) => {
            // What a keeper that was killed could not take away.
            umount::take_dead_away(paths, ve).map_err(|failure| failure.message)?;
        }
        Ok(client) => {
            if !is_ending(client) {
                return Err(Refusal::Other(format!(
                    "already mounted: see 'simfs status {ve}', or 'simfs umount {ve}'"
                )));
            }
        }
        Err(error) => return Err(Refusal::Other(error.to_string())),
    }
    let private = match recorded_private(paths, ve) {
        Ok(recorded) if request.quota => private(paths, request, Some(recorded))?,
        Ok(recorded) if request.private.is_none() => {
            directory(&recorded, "private area").map(|()| recorded)?
        }
        Err(refusal) if request.quota => return Err(refusal),
        _ => private(paths, request, None)?,
    };
    let mountpoint = mountpoint(paths, request)?;
    Ok(Plan {
        ve,
        private,
        mountpoint,
        state_dir: paths.state_dir(ve),
        run_dir: paths.run_dir(ve),
        options: request.options.clone(),
        foreground: request.foreground,
        quota: request.quota,
    })
}

/// The private area that the record's totals belong to, from the readable copy beside the store, else from the store. The
/// store itself is the daemon's: it compares again.
fn recorded_private(paths: &Paths, ve: VeId) -> Result<PathBuf, Refusal> {
    match settings(&paths.state_dir(ve)) {
        Ok(Some(copy)) => Ok(copy.private.into()),
        Ok(None) | Err(StoreError::Damaged { .. }) => match open_stored(paths, ve) {
            Ok(engine) => Ok(engine.info().private),
            // Both are damaged: the daemon has nothing to start with before they are mended.
            Err(VeError::Store { error }) if error.is_damage() => mended_private(paths, ve),
            Err(error @ VeError::NoRecord { .. }) => Err(Refusal::NoRecord(error)),
            Err(error) => Err(Refusal::Other(error.to_string())),
        },
        Err(error) => Err(Refusal::Other(error.to_string())),
    }
}

/// The private area in what can be saved of a damaged store.
fn mended_private(paths: &Paths, ve: VeId) -> Result<PathBuf, Refusal> {
    mend(paths, ve).map_err(|error| Refusal::Other(error.to_string()))?;
    let engine = open_stored(paths, ve).map_err(|error| Refusal::Other(error.to_string()))?;
    Ok(engine.info().private)
}

/// The private area to serve; not another one than the totals belong to.
fn private(
    paths: &Paths,
    request: &MountRequest<'_>,
    recorded: Option<PathBuf>,
) -> Result<PathBuf, String> {
    let path = match (request.private, &recorded) {
        (Some(given), _) => absolute(given)?,
        (None, Some(recorded)) => recorded.clone(),
        (None, None) => paths
            .private(request.ve)
            .map_err(|error| error.to_string())?,
    };
    directory(&path, "private area")?;
    if let Some(recorded) = &recorded
        && !is_same(&path, recorded)
    {
        return Err(format!(
            "the quota record is that of {}, not of {}: move it with 'vzquota setlimit {} -p {1}'",
            recorded.display(),
            path.display(),
            request.ve
        ));
    }
    Ok(recorded.unwrap_or(path))
}

fn is_same(path: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|data| (data.dev(), data.ino()));
    path == other || identity(path).is_some_and(|here| identity(other) == Some(here))
}

/// Where to mount. The configured place is made if absent, another must be there.
fn mountpoint(paths: &Paths, request: &MountRequest<'_>) -> Result<PathBuf, String> {
    let path = match request.mountpoint {
        Some(given) => absolute(given)?,
        None => {
            let root = paths.root(request.ve).map_err(|error| error.to_string())?;
            if root
                .metadata()
                .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            {
                fs::create_dir_all(&root).map_err(|error| said_of(&root, &error))?;
            }
            root
        }
    };
    match path.metadata() {
        Err(error) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => Err(format!(
            "mountpoint {}: a mount whose daemon is dead is there: take it away with 'simfs umount {}'",
            path.display(),
            request.ve
        )),
        _ => directory(&path, "mountpoint").map(|()| path),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| said_of(path, &error))
}

fn directory(path: &Path, what: &str) -> Result<(), String> {
    match path.metadata() {
        Ok(data) if data.is_dir() => Ok(()),
        Ok(_) => Err(format!("{what} {}: not a directory", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
            "{what} {}: does not exist: make it first",
            path.display()
        )),
        Err(error) => Err(format!("{what} {}", said_of(path, &error))),
    }
}

fn said_of(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

//! One running VE: private area, quota engine, mount, control socket; the order in which they start and stop.
//!
//! Processes: the caller of [`start`] forks the keeper ([`crate::keeper`]), which forks the daemon. The daemon opens
//! everything that can fail, has the keeper mount, and reports through a pipe that the mount answers; only then
//! does [`start`] return. A daemon that ends without being asked is followed by a [`successor`](succeed).
//!
//! Stop order: the mount goes first (no request can come any more), then the service for quota tools, then the control
//! socket, then the housekeeper; then late changes are settled, and the last commit ends it.

mod accounts;
mod daemon;
mod events;
mod recovery;
mod saved;
mod service;
mod successor;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quota::{EngineError, VeId};

use crate::decoy;
use crate::keeper::{self, Keeper, Link, Program};
use crate::mount::{MountOptionError, MountOptions};
use crate::oci;
use crate::private::PrivateError;
use crate::resources;
use crate::sys::fork::{self, Forked};
use crate::sys::inherited::Inherited;
use crate::sys::{exec, fuse_dev};

pub use successor::succeed;

/// The accounts of a mount without a record, in the run directory.
const ACCOUNTS: &str = "accounts";
/// The file in the run directory that says where the VE is mounted.
pub const MOUNTPOINT_NOTE: &str = "mountpoint";

/// What it means that only the daemon is left.
const KEEPER_IS_GONE: &str = "the keeper is gone, so the mount ends with its daemon and no program can take over: unmount and \
     mount again when it suits";

/// What is to be mounted, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The VE.
    pub ve: VeId,
    /// The directory with the VE's files.
    pub private: PathBuf,
    /// Where they appear.
    pub mountpoint: PathBuf,
    /// The quota database.
    pub state_dir: PathBuf,
    /// Control socket and log.
    pub run_dir: PathBuf,
    /// Options, parsed.
    pub options: MountOptions,
    /// Whether the VE has a quota record that is to be used.
    pub quota: bool,
    /// Stay in the foreground and write the log to standard error.
    pub foreground: bool,
}

impl Config {
    /// Where the accounts are: the VE's record, or without one a store that lives as long as the mount.
    fn accounts_dir(&self) -> PathBuf {
        match self.quota {
            true => self.state_dir.clone(),
            false => self.run_dir.join(ACCOUNTS),
        }
    }
}

/// Why a VE could not be mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An option that cannot be used.
    #[error(transparent)]
    Options(#[from] MountOptionError),
    /// The private area cannot be served.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// The quota record cannot be used.
    #[error("{0}{mend}", mend = remedy(.0))]
    Quota(#[from] EngineError),
    /// The record's totals belong to another private area.
    #[error(
        "the quota record is that of {}, not of {}: move it with 'vzquota setlimit VEID -p {1}'",
        recorded.display(), given.display()
    )]
    OtherPrivate {
        /// What the record says.
        recorded: PathBuf,
        /// What was to be mounted.
        given: PathBuf,
    },
    /// Something is mounted there already.
    #[error("{0} is a mount point already: unmount it first, or name another one")]
    Mounted(PathBuf),
    /// A step failed.
    #[error("{step}: {source}")]
    Step {
        /// What was being done.
        step: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The daemon said why it did not start.
    #[error("{0}")]
    Daemon(String),
}

impl StartError {
    fn step(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self::Step { step, source }
    }
}

/// What follows on the message of an error of the quota record: how to mend one that is damaged, else nothing.
pub fn remedy(error: &EngineError) -> &'static str {
    if error.is_damage() {
        ": mend it with 'simfs check VEID --repair'"
    } else {
        ""
    }
}

/// Mounts a VE. Returns when the mount answers, or in the foreground when it has ended.
///
/// # Errors
/// Why it could not be mounted; nothing is left behind then.
pub fn start(config: Config) -> Result<(), StartError> {
    check_mountpoint(&config.mountpoint)?;
    crate::private::refuse_submounts(&config.private)?;
    let mut config = config;
    make_real(&mut config)?;
    let (mut ready, reports) = UnixStream::pair().map_err(StartError::step("socketpair"))?;
    if config.foreground {
        return serve_in_foreground(&config, ready, reports);
    }
    match fork::fork().map_err(StartError::step("cannot fork"))? {
        Forked::Parent(keeper) => {
            drop(reports);
            let mut report = String::new();
            ready
                .read_to_string(&mut report)
                .map_err(StartError::step("daemon"))?;
            match report.strip_prefix("ready") {
                Some(_) => Ok(()),
                None => {
                    let code = keeper.wait().map_or(1, fork::Ending::code);
                    Err(StartError::Daemon(if report.is_empty() {
                        format!(
                            "the daemon ended with code {code}; see {}",
                            log_file(&config).display()
                        )
                    } else {
                        report
                    }))
                }
            }
        }
        Forked::Child => {
            drop(ready);
            // What the caller has open is none of ours, and must not stay open as long as the mount.
            drop(Inherited::collect());
            let code = match fork::detach(&log_file(&config)) {
                Ok(()) => keep(&config, reports),
                Err(error) => tell(reports, &format!("cannot leave the terminal: {error}")),
            };
            std::process::exit(code);
        }
    }
}

/// Makes the run directory, and frees both directories of symbolic links: the daemon will not see the host's.
fn make_real(config: &mut Config) -> Result<(), StartError> {
    let failed = |path: &Path| StartError::step(format!("cannot use {}", path.display()));
    let run = &mut config.run_dir;
    if let Some(above) = run.parent() {
        fs::create_dir_all(above).map_err(failed(above))?;
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&*run)
        .map_err(failed(run))?;
    *run = fs::canonicalize(&*run).map_err(failed(run))?;
    if config.quota {
        config.state_dir =
            fs::canonicalize(&config.state_dir).map_err(failed(&config.state_dir))?;
    }
    Ok(())
}

/// The daemon's log.
fn log_file(config: &Config) -> PathBuf {
    config.run_dir.join("log")
}

fn serve_in_foreground(
    config: &Config,
    mut ready: UnixStream,
    reports: UnixStream,
) -> Result<(), StartError> {
    let code = keep(config, reports);
    let mut report = String::new();
    ready
        .read_to_string(&mut report)
        .map_err(StartError::step("daemon"))?;
    match (code, report.as_str()) {
        (0, _) => Ok(()),
        (_, "" | "ready") => Err(StartError::Daemon(format!(
            "the daemon ended with code {code}"
        ))),
        (_, said) => Err(StartError::Daemon(said.to_owned())),
    }
}

fn tell(mut reports: UnixStream, message: &str) -> i32 {
    // Whoever waited for the report may be gone; the log has it too.
    let _ = reports.write_all(message.as_bytes());
    tracing::error!("{message}");
    1
}

/// The keeper's life.
fn keep(config: &Config, reports: UnixStream) -> i32 {
    resources::claim(config.options.oom_score_adj);
    let _signals = match fork::block_end_signals() {
        Ok(signals) => signals,
        Err(error) => return tell(reports, &format!("cannot block signals: {error}")),
    };
    let device = match fuse_dev::open_device(Path::new("/dev/fuse")) {
        Ok(device) => device,
        Err(error) => {
            return tell(
                reports,
                &format!("/dev/fuse: {error}: is the fuse module loaded?"),
            );
        }
    };
    let program = match program(config) {
        Ok(program) => program,
        Err(error) => return tell(reports, &format!("cannot keep the configuration: {error}")),
    };
    let (link, daemon_link) = match keeper::packet_pair() {
        Ok(pair) => pair,
        Err(error) => return tell(reports, &format!("socketpair: {error}")),
    };
    match fork::fork() {
        Err(error) => tell(reports, &format!("cannot fork: {error}")),
        Ok(Forked::Parent(daemon)) => {
            drop((reports, daemon_link));
            let (mountpoint, options) = (&config.mountpoint, &config.options);
            let code = Keeper::new(mountpoint, options, device, program, link, daemon).map_or_else(
                |error| {
                    tracing::error!(%error, "cannot watch the daemon");
                    1
                },
                Keeper::run,
            );
            if let Err(error) = clear_up(&config.run_dir, config.ve) {
                tracing::warn!(%error, "left behind");
            }
            code
        }
        Ok(Forked::Child) => {
            drop((link, program));
            let mut reports = Some(reports);
            let link = Arc::new(Link::new(daemon_link));
            let code = match daemon::first(config, device, link, &mut reports) {
                Ok(()) => 0,
                Err(error) => match reports.take() {
                    Some(reports) => tell(reports, &error.to_string()),
                    None => {
                        tracing::error!(%error, "the daemon ends");
                        1
                    }
                },
            };
            std::process::exit(code);
        }
    }
}

/// What successors start with.
fn program(config: &Config) -> io::Result<Program> {
    let file = exec::own_program().inspect_err(|error| {
        tracing::warn!(%error, "the daemon's program is not at hand: it will have no successor");
    });
    Ok(Program {
        file: file.ok(),
        config: saved::seal(config)?,
        upgrade_link: keeper::upgrade_link(&config.run_dir),
    })
}

/// Removes what a mount left in its run directory for others, and what was kept there as long as it lived. To be called when
/// its processes have ended.
///
/// # Errors
/// The first thing that could not be removed; the rest is removed all the same.
pub fn clear_up(run_dir: &Path, ve: VeId) -> io::Result<()> {
    let note = unless_absent(fs::remove_file(run_dir.join(MOUNTPOINT_NOTE)));
    let accounts = unless_absent(fs::remove_dir_all(run_dir.join(ACCOUNTS)));
    let runs = run_dir.parent();
    let decoy = runs.map_or(Ok(()), |runs| decoy::release(runs, ve));
    let node = oci::remove_host_node(run_dir);
    note.and(accounts)
        .and(decoy.map_err(io::Error::other))
        .and(node)
}

fn unless_absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Refuses a place where something is mounted.
fn check_mountpoint(mountpoint: &Path) -> Result<(), StartError> {
    let failed = || StartError::step(format!("mount point {}", mountpoint.display()));
    let here = fs::symlink_metadata(mountpoint).map_err(failed())?;
    let above = fs::symlink_metadata(mountpoint.join("..")).map_err(failed())?;
    use std::os::unix::fs::MetadataExt;
    if here.dev() != above.dev() {
        return Err(StartError::Mounted(mountpoint.to_owned()));
    }
    Ok(())
}

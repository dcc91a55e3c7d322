//! One running VE: private area, quota engine, mount, control socket; the order in which they start and stop.
//!
//! Processes: the caller of [`start`] forks the keeper ([`crate::keeper`]), which forks the daemon. The daemon opens
//! everything that can fail, has the keeper mount, and reports through a pipe that the mount answers; only then
//! does [`start`] return.
//!
//! Stop order: the mount goes first (no request can come any more), then the service for quota tools, then the control
//! socket, then the housekeeper; then late changes are settled, and the last commit ends it.

mod recovery;
mod service;

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use quota::store::DiskStore;
use quota::{Engine, EngineError, Environment, VeId};

use crate::accounting::Accounting;
use crate::accounting::growth::Growth;
use crate::confine;
use crate::control::Server;
use crate::decoy;
use crate::fs::{Fs, Settings};
use crate::fuse::Negotiation;
use crate::fuse::session::{Connection, KernelCache};
use crate::housekeeper::Housekeeper;
use crate::keeper::{self, Link};
use crate::mount::{MountOptionError, MountOptions};
use crate::node::{Found, Nodes};
use crate::notify::Manager;
use crate::oci;
use crate::private::{PrivateArea, PrivateError};
use crate::privileges::Privileges;
use crate::quotactl::{self, QuotactlConfig, QuotactlService};
use crate::resources;
use crate::sys::fork::{self, Forked};
use crate::sys::task::DeviceNumber;
use crate::sys::{file, fuse_dev, proc_fd, stat};

use service::{EventLog, VeService};

/// Workers that read requests. Few: each costs a buffer, and a wake-up on another CPU costs more than most requests.
const WORKERS: usize = 2;
/// Descriptors kept open for known inodes, at most; a quarter of the limit of open files where that is less.
const DESCRIPTORS: usize = 4096;

/// The file in the run directory that says where the VE is mounted.
pub const MOUNTPOINT_NOTE: &str = "mountpoint";

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
    #[error(transparent)]
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
                    let code = keeper.wait().unwrap_or(1);
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
    let (link, daemon_link) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => return tell(reports, &format!("socketpair: {error}")),
    };
    match fork::fork() {
        Err(error) => tell(reports, &format!("cannot fork: {error}")),
        Ok(Forked::Parent(daemon)) => {
            drop((reports, daemon_link));
            let code = keeper::serve(link, &device, &config.mountpoint, &config.options, daemon)
                .unwrap_or_else(|error| {
                    tracing::error!(%error, "cannot wait for the daemon");
                    1
                });
            clear_container_parts(config);
            code
        }
        Ok(Forked::Child) => {
            drop(link);
            let mut reports = Some(reports);
            let code = match serve(config, device, Link::new(daemon_link), &mut reports) {
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

/// Notes where the VE is mounted, for whoever finds both processes dead.
fn note_mountpoint(config: &Config) {
    let file = config.run_dir.join(MOUNTPOINT_NOTE);
    if let Err(error) = fs::write(&file, config.mountpoint.as_os_str().as_bytes()) {
        tracing::warn!(file = %file.display(), %error, "not noted where the VE is mounted");
    }
}

/// Removes what containers were given of this mount.
fn clear_container_parts(config: &Config) {
    // Nothing is mounted any more.
    let _ = fs::remove_file(config.run_dir.join(MOUNTPOINT_NOTE));
    let decoy = config
        .run_dir
        .parent()
        .map_or(Ok(()), |run| decoy::release(run, config.ve));
    if let Err(error) = decoy {
        tracing::warn!(%error, "left behind");
    }
    if let Err(error) = oci::remove_host_node(&config.run_dir) {
        tracing::warn!(%error, "device node left behind");
    }
}

/// The daemon's life.
fn serve(
    config: &Config,
    device: OwnedFd,
    link: Link,
    reports: &mut Option<UnixStream>,
) -> Result<(), StartError> {
    let area = Arc::new(PrivateArea::open(&config.private, config.options.atime)?);
    let (state, run) = (config.state_dir.as_path(), config.run_dir.as_path());
    let kept: &[&Path] = if config.quota { &[state, run] } else { &[run] };
    // In the background the daemon is nobody's service: whoever started it was told by its return.
    let manager = match config.foreground {
        true => Manager::of_environment(),
        false => Manager::default(),
    };
    proc_fd::prepare().map_err(StartError::step("/proc"))?;
    let boot = recovery::boot_id();
    confine::enter(kept, &run.join("root"))
        .map_err(StartError::step("the daemon cannot confine itself"))?;
    let journal = recovery::Service::prepare(run, config.ve, &boot, &area);
    let engine = open_engine(config, &area, &journal)?;
    let recovered = begin_service(config, &engine, &area, &journal)?;
    count_if_new(&engine, &area)?;
    let housekeeper = Arc::new(Housekeeper::default());
    let privileges =
        Arc::new(Privileges::new(config.options.own_ids).map_err(StartError::step("/proc"))?);
    let fs = Arc::new(assemble(config, &engine, &area, &housekeeper, &privileges)?);
    fs.resume(recovered.touched);
    let link = Arc::new(link);
    let number = link.mount().map_err(StartError::step(format!(
        "cannot mount at {}",
        config.mountpoint.display()
    )))?;
    note_mountpoint(config);
    let negotiation = Negotiation {
        passthrough: config.options.passthrough,
        own_ids: config.options.own_ids,
    };
    let connection = Connection::open(device, fs.clone(), negotiation, WORKERS)
        .map_err(StartError::step("the kernel refused the connection"))?;
    let quotactl = serve_quotactl(config, number, &engine, privileges, &area)?;
    let service = Arc::new(VeService::new(
        config,
        number,
        fs.clone(),
        engine.clone(),
        link.clone(),
    ));
    let server = Server::start(&config.run_dir, service.clone())
        .map_err(StartError::step("cannot listen on the control socket"))?;
    let cleaner = start_housekeeper(&fs, &housekeeper, connection.kernel_cache(), &service)?;
    if recovered.is_unknown {
        service
            .start_recovery()
            .map_err(StartError::step("cannot start a thread"))?;
    }
    stop_on_signal(link).map_err(StartError::step("cannot wait for signals"))?;
    tracing::info!(ve = %config.ve, mountpoint = %config.mountpoint.display(), "mounted");
    if let Some(mut reports) = reports.take() {
        let _ = reports.write_all(b"ready");
    }
    manager.ready(&format!(
        "VE {} at {}",
        config.ve,
        config.mountpoint.display()
    ));
    let served = connection.serve();
    service.nobody_uses_it();
    manager.stopping();
    drop(quotactl);
    service.stop_counting();
    housekeeper.stop();
    let _ = cleaner.join();
    service.note_loss();
    let ended = finish(config, &fs, &engine, &journal);
    service.mount_is_gone(&ended);
    drop(server);
    served.map_err(StartError::step("the connection to the kernel broke"))?;
    ended
}

/// Settles and commits what is left when nobody can ask any more.
fn finish(
    config: &Config,
    fs: &Fs,
    engine: &Engine,
    journal: &recovery::Service,
) -> Result<(), StartError> {
    // Closing a file may change what it occupies.
    fs.close_all();
    fs.accounting().finish_late();
    let reserved = engine.reserved();
    if !reserved.is_zero() {
        tracing::error!(ve = %config.ve, ?reserved, "promises are left behind");
    }
    engine.end_service()?;
    journal.end();
    tracing::info!(ve = %config.ve, "unmounted, totals committed");
    Ok(())
}

fn open_engine(
    config: &Config,
    area: &PrivateArea,
    journal: &recovery::Service,
) -> Result<Engine, StartError> {
    let environment = Environment {
        clock: Arc::new(quota::SystemClock),
        events: Arc::new(EventLog::new(config.ve)),
    };
    if !config.quota {
        return service::without_limits(config, area, environment);
    }
    let store = DiskStore::open(&config.state_dir, config.ve).map_err(EngineError::from)?;
    let engine = Engine::open_journaled(Arc::new(store), environment, journal.journal())?;
    let recorded = engine.info().private;
    if recorded != config.private {
        return Err(StartError::OtherPrivate {
            recorded,
            given: config.private.clone(),
        });
    }
    Ok(engine)
}

/// Without a record there is nothing to lose.
fn begin_service(
    config: &Config,
    engine: &Engine,
    area: &PrivateArea,
    journal: &recovery::Service,
) -> Result<recovery::Recovered, StartError> {
    if !config.quota {
        return Ok(recovery::Recovered::default());
    }
    Ok(journal.begin(engine, area)?)
}

/// A record that was made before its private area holds nothing, not even the root directory: then count what is there now.
fn count_if_new(engine: &Engine, area: &PrivateArea) -> Result<(), StartError> {
    if !engine.account(quota::Subject::Ve)?.usage.inodes.is_zero() {
        return Ok(());
    }
    let counted = crate::scan::scan(area, &mut ())
        .map_err(|error| StartError::Daemon(format!("cannot count the private area: {error}")))?;
    let _ = engine.replace_usage(&counted)?;
    Ok(())
}

fn assemble(
    config: &Config,
    engine: &Engine,
    area: &Arc<PrivateArea>,
    housekeeper: &Arc<Housekeeper>,
    privileges: &Arc<Privileges>,
) -> Result<Fs, StartError> {
    let failed = || StartError::step("private area");
    let root = area.root_fd().try_clone_to_owned().map_err(failed())?;
    let descriptors = DESCRIPTORS.min(open_files_limit() / 4);
    let found = Found {
        stat: stat::stat_fd(&root).map_err(failed())?,
        handle: area.root_handle().copied(),
        held: Some(Arc::new(root)),
    };
    let nodes = Arc::new(Nodes::new(area.clone(), found, descriptors));
    let block_size = u64::from(area.statfs().map_err(failed())?.block_size);
    let growth = Growth::new(area.backing(), block_size);
    let accounting = Accounting::new(
        engine.clone(),
        growth,
        nodes.clone(),
        privileges.clone(),
        housekeeper.clone(),
    );
    let settings = Settings {
        passthrough: config.options.passthrough,
        open_files: open_files_limit(),
    };
    Ok(Fs::new(area.clone(), nodes, accounting, settings))
}

/// Lets the VE's own tools manage its second level. Without a record there is nothing to manage.
fn serve_quotactl(
    config: &Config,
    device: DeviceNumber,
    engine: &Engine,
    privileges: Arc<Privileges>,
    area: &PrivateArea,
) -> Result<Option<QuotactlService>, StartError> {
    if !config.quota {
        return Ok(None);
    }
    let settings = QuotactlConfig {
        socket_path: config.run_dir.join(quotactl::SOCKET_NAME),
        device,
        policy: config.options.quota_admin,
        own_ids: config.options.own_ids,
    };
    let learn = move |pid| privileges.learn_ve(pid);
    let whole = area
        .open_for_sync()
        .map_err(StartError::step("private area"))?;
    let sync = move || file::syncfs(&whole);
    QuotactlService::start(settings, Arc::new(engine.clone()), learn, sync)
        .map(Some)
        .map_err(StartError::step("cannot serve quota tools"))
}

fn start_housekeeper(
    fs: &Arc<Fs>,
    housekeeper: &Arc<Housekeeper>,
    kernel: KernelCache,
    service: &Arc<VeService>,
) -> Result<thread::JoinHandle<()>, StartError> {
    let (fs, housekeeper, service) = (fs.clone(), housekeeper.clone(), service.clone());
    let work = move || {
        housekeeper.run(&mut || {
            let accounting = fs.accounting();
            let next = accounting.look_again(&mut |node| kernel.forget_attributes(node.id()));
            service.note_loss();
            match accounting.engine().commit() {
                Ok(()) => {
                    service.note_commit(None);
                    next
                }
                Err(error) => {
                    tracing::error!(%error, "totals could not be committed; trying again");
                    service.note_commit(Some(error.to_string()));
                    Some(std::time::Instant::now() + crate::housekeeper::COMMIT_INTERVAL)
                }
            }
        });
    };
    thread::Builder::new()
        .name("housekeeper".into())
        .stack_size(256 * 1024)
        .spawn(work)
        .map_err(StartError::step("cannot start a thread"))
}

/// A signal that asks for an end takes the mount away; the daemon ends when the last user is gone.
fn stop_on_signal(link: Arc<Link>) -> io::Result<()> {
    let signals = fork::block_end_signals()?;
    thread::Builder::new()
        .name("signals".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            while let Ok(signal) = signals.wait() {
                tracing::info!(signal, "asked to end; unmounting");
                if link.unmount(false).is_err()
                    && let Err(error) = link.unmount(true)
                {
                    tracing::error!(%error, "cannot unmount");
                }
            }
        })?;
    Ok(())
}

fn open_files_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit
        .current
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(DESCRIPTORS * 4)
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

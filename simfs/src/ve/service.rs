//! What the control socket answers for a running VE.

mod counting;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use quota::store::salvage;
use quota::{Account, Engine, Limits, Subject, Timestamp, VeId};

use super::daemon::Body;
use super::saved::MountRecord;
use super::{Config, StartError, recovery};
use crate::control::{
    ErrorKind, Progress, Reply, Request, RequestError, Service, Upgrade, UpgradeOutcome, VeState,
    VeStatus, engine_reply,
};
use crate::fault;
use crate::fs::Fs;
use crate::fuse::gate::Gate;
use crate::keeper::{Attempt, Fate, HAND_OVER, Link};
use crate::recount::Recount;
use crate::recount::saved::Saved;
use crate::shared::Shared;
use crate::sys::fork::Ending;
use crate::sys::task::DeviceNumber;

/// How long after an unmount an answer waits for the last user to go. Who asks looks who that is, and asks again.
const LAST_USER_PATIENCE: Duration = Duration::from_secs(1);
/// How long a daemon that is to hand over waits for the requests that are under way.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(30);

/// Answers the requests of the host's administrators.
#[derive(Debug)]
pub(super) struct VeService {
    ve: VeId,
    mountpoint: PathBuf,
    private: PathBuf,
    quota: bool,
    since: Timestamp,
    keeper_pid: Option<u32>,
    device: DeviceNumber,
    fs: Arc<Fs>,
    engine: Engine,
    link: Arc<Link>,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    journal: Arc<recovery::Service>,
    /// The recount after a crash that was stopped, or that an earlier daemon began; a leaf lock.
    resumable: Mutex<Option<Arc<Recount>>>,
    /// What is to be known of a quota store that was damaged.
    mended: Vec<String>,
    /// Wanted and not to be had.
    lacks_passthrough: bool,
    /// Of the totals' range, as far as they were seen.
    violations: AtomicU64,
    /// A leaf lock.
    progress: Mutex<Now>,
    gone: Condvar,
}

/// What the daemon is doing beside serving.
#[derive(Debug, Default)]
struct Now {
    checking: Option<Progress>,
    recovering: Option<Progress>,
    stopping: bool,
    /// The kernel has ended the connection: no mount of it is left anywhere.
    unused: bool,
    /// Set once the mount is gone: how the last commit went.
    ended: Option<Result<(), String>>,
    commit_error: Option<String>,
    /// Why the last recount after a crash came to no end; it is tried again.
    recovery_error: Option<String>,
    /// The administrator stopped that recount.
    is_stopped: bool,
    /// Recounts are to end: nobody can use the mount any more.
    counting_ends: bool,
    /// The thread of that recount.
    recovery: Option<JoinHandle<()>>,
}

impl VeService {
    pub(super) fn new(body: &Body<'_>, mount: &MountRecord) -> Self {
        let config = body.parts.config;
        Self {
            ve: config.ve,
            mountpoint: config.mountpoint.clone(),
            private: config.private.clone(),
            quota: config.quota,
            since: mount.since,
            keeper_pid: rustix::process::getppid()
                .map(|pid| pid.as_raw_nonzero().get().unsigned_abs()),
            device: mount.device,
            fs: body.fs.clone(),
            engine: body.engine.clone(),
            link: body.parts.link.clone(),
            shared: body.parts.shared.clone(),
            gate: body.gate.clone(),
            journal: body.journal.clone(),
            resumable: Mutex::new(body.resumed.clone()),
            mended: mended(config),
            lacks_passthrough: config.options.passthrough && !body.fs.has_passthrough(),
            violations: AtomicU64::new(0),
            progress: Mutex::new(Now::default()),
            gone: Condvar::new(),
        }
    }

    /// No mount of the file system is left, in any namespace, and nobody has a file of it open.
    pub(super) fn nobody_uses_it(&self) {
        self.progress.lock().unused = true;
        self.gone.notify_all();
    }

    /// The mount is gone and the last commit was tried.
    pub(super) fn mount_is_gone(&self, ended: &Result<(), StartError>) {
        let ended = ended.as_ref().copied().map_err(ToString::to_string);
        self.progress.lock().ended = Some(ended);
        self.gone.notify_all();
    }

    /// How the last commit went.
    pub(super) fn note_commit(&self, error: Option<String>) {
        self.progress.lock().commit_error = error;
    }

    /// Where the private area may have lost what it was given, or holds what nobody charged, the next mount counts anew,
    /// whatever the end of this one.
    pub(super) fn note_loss(&self) {
        let violations = self.engine.invariant_violations();
        let is_wrong = self.violations.swap(violations, Ordering::Relaxed) != violations;
        let is_lost = self.fs.faults().take_loss();
        if !self.quota || !(is_lost || is_wrong) {
            return;
        }
        if let Some(recount) = self.fs.accounting().recount() {
            recount.spoil();
        }
        let noted = if is_lost {
            self.shared.board().note_loss();
            self.engine.private_area_has_lost()
        } else {
            self.engine.totals_are_doubtful()
        };
        match noted {
            Ok(()) => tracing::warn!(ve = %self.ve, "the next mount will count the totals anew"),
            Err(error) => tracing::error!(%error, "the store cannot be told to count anew"),
        }
    }

    fn status(&self) -> Reply {
        let account = match self.engine.account(Subject::Ve) {
            Ok(account) => account,
            Err(error) => return failed(ErrorKind::Store, error.to_string()),
        };
        let now = self.progress.lock();
        let state = match &*now {
            Now { stopping: true, .. } => VeState::Stopping,
            Now {
                recovering: Some(_),
                ..
            } => VeState::Recovering,
            Now {
                checking: Some(_), ..
            } => VeState::Checking,
            _ => VeState::Mounted,
        };
        let mut degraded = self.fs.degraded();
        degraded.extend_from_slice(&self.mended);
        degraded.extend(
            now.commit_error
                .iter()
                .map(|error| format!("totals not committed: {error}")),
        );
        degraded.extend(
            now.recovery_error
                .iter()
                .map(|error| format!("totals not counted anew yet: {error}; trying again")),
        );
        if now.is_stopped {
            degraded.push(format!(
                "the recount is stopped, usage may be wrong: it goes on with 'simfs check {} --resume' and with the next mount",
                self.ve
            ));
        }
        if !super::daemon::has_successors(&self.shared) {
            degraded.push("the mount ends with its daemon: none can take over".into());
        }
        let is_kept = !self.link.is_cut();
        if !is_kept {
            degraded.push(super::KEEPER_IS_GONE.into());
        }
        if self.lacks_passthrough {
            degraded.push("reads go through the daemon: the kernel has no passthrough (Linux 6.9 and later have)".into());
        }
        if self.quota && self.engine.has_lost() {
            degraded.push(
                "the private area may have lost writes: the next mount will count the totals anew"
                    .into(),
            );
        } else if self.quota && !self.engine.journal_is_sound() {
            degraded.push("no journal can be kept: after a crash the VE will be recounted".into());
        }
        Reply::Status(Box::new(VeStatus {
            ve: self.ve,
            state,
            mountpoint: self.mountpoint.clone(),
            private: self.private.clone(),
            pid: std::process::id(),
            keeper_pid: self.keeper_pid.filter(|_| is_kept),
            since: self.since,
            quota: self.quota,
            device: self.device,
            account: if self.quota {
                account
            } else {
                Account {
                    limits: Limits::UNLIMITED,
                    ..account
                }
            },
            progress: now.recovering.or(now.checking),
            nodes: count(self.fs.nodes().len()),
            handles: count(self.fs.open_count()),
            degraded,
            program: std::fs::read_link("/proc/self/exe").ok(),
            restarts: self.shared.board().restarts(),
            last_death: self.last_death(),
            upgrade: self.last_upgrade(),
        }))
    }

    /// How the last daemon ended that nobody had asked to.
    fn last_death(&self) -> Option<String> {
        let ending = Ending::from_status(self.shared.board().last_death()?);
        Some(ending.to_string())
    }

    fn last_upgrade(&self) -> Option<Upgrade> {
        let Attempt { number, fate } = Attempt::decode(&self.shared.board().upgrade().read()?)?;
        Some(Upgrade {
            attempt: number,
            outcome: match fate {
                Fate::Starting => UpgradeOutcome::Starting,
                Fate::Running => UpgradeOutcome::Running,
                Fate::Reverted(reason) => UpgradeOutcome::Reverted(reason),
            },
        })
    }

    fn stop(&self, lazy: bool) -> Reply {
        match self.link.unmount(lazy) {
            Ok(()) => {}
            // Taken away already, by an earlier order or by umount(8).
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let place = self.mountpoint.display();
                return failed(ErrorKind::Busy, format!("{place} is in use"));
            }
            Err(error) => return failed(ErrorKind::System, error.to_string()),
        }
        let mut now = self.progress.lock();
        now.stopping = true;
        if lazy {
            return Reply::Done { changed: true };
        }
        let deadline = Instant::now() + LAST_USER_PATIENCE;
        while !now.unused {
            if self.gone.wait_until(&mut now, deadline).timed_out() && !now.unused {
                let place = self.mountpoint.display();
                return failed(
                    ErrorKind::Held,
                    format!("{place} is unmounted, but still used from elsewhere"),
                );
            }
        }
        loop {
            match &now.ended {
                Some(Ok(())) => return Reply::Done { changed: true },
                Some(Err(error)) => return failed(ErrorKind::Store, error.clone()),
                None => self.gone.wait(&mut now),
            }
        }
    }

    /// Hands over to another program. Returns only where that was not possible, and nothing has changed then.
    fn upgrade(&self) -> Reply {
        if !super::daemon::has_successors(&self.shared) {
            return failed(
                ErrorKind::Unsupported,
                "the backing file system has no file handles, so no program can take over: unmount and mount again".into(),
            );
        }
        if self.progress.lock().stopping {
            return failed(ErrorKind::Busy, "the VE is being unmounted".into());
        }
        if self.link.is_cut() {
            return failed(ErrorKind::Unsupported, super::KEEPER_IS_GONE.into());
        }
        if let Err(error) = self.link.upgrade() {
            return failed(ErrorKind::Invalid, error.to_string());
        }
        let handed_over = self.gate.closed(HAND_OVER_PATIENCE, || {
            self.note_loss();
            let recount = self.fs.accounting().recount();
            match recount.filter(|_| !self.engine.has_lost()) {
                Some(recount) => recount.freeze(|saved| self.hand_over(saved.as_ref())),
                None => self.hand_over(None),
            }
        });
        handed_over.unwrap_or_else(|| {
            let seconds = HAND_OVER_PATIENCE.as_secs();
            failed(
                ErrorKind::Busy,
                format!(
                    "a request has been under way for more than {seconds} seconds; try again later"
                ),
            )
        })
    }
}

impl VeService {
    /// Commits and ends; returns only where that failed. What waits at the gate was not begun: the kernel sends it to the
    /// successor.
    fn hand_over(&self, recount: Option<&Saved>) -> Reply {
        fault::point("settled");
        if let Err(error) = self.engine.commit() {
            return failed(ErrorKind::Store, error.to_string());
        }
        fault::point("committed");
        if let Some(saved) = recount {
            self.journal.keep_recount(saved, true);
            fault::point("kept");
        }
        tracing::info!(ve = %self.ve, "handing over");
        std::process::exit(HAND_OVER)
    }
}

impl Service for VeService {
    fn handle(&self, request: Request, progress: &mut dyn FnMut(Progress) -> bool) -> Reply {
        match request {
            Request::Status => self.status(),
            Request::Stop { lazy } => self.stop(lazy),
            Request::Check { repair } => self.check(repair, progress),
            Request::Recount { go_on } => self.stop_or_resume(go_on),
            Request::Upgrade => self.upgrade(),
            other => engine_reply(&self.engine, other).unwrap_or_else(|| {
                failed(
                    ErrorKind::Unsupported,
                    "this daemon does not know the request".into(),
                )
            }),
        }
    }
}

/// What salvages of the quota store saved and lost, until somebody takes their reports away; into the log as well.
fn mended(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    for (file, lines) in salvage::told(&config.state_dir) {
        for line in &lines {
            tracing::warn!(ve = %config.ve, "{line}");
        }
        notes.extend(lines);
        notes.push(format!("remove {} when that is settled", file.display()));
    }
    notes
}

fn failed(kind: ErrorKind, message: String) -> Reply {
    Reply::Error(RequestError::new(kind, message))
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

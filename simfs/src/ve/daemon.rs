//! The daemon's life, from what it holds to the last commit; the same for the first one and for successors.
//!
//! The two differ in where things come from: the first one makes them and keeps what a successor will need
//! ([`super::saved`], deposits); a [`successor`](super::successor) finds them there.

mod threads;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use quota::{Clock, Engine};

use super::accounts::{count_if_new, follow_ugid_limit, make_accounts, open_engine};
use super::saved::{self, MountRecord};
use super::service::VeService;
use super::successor::Legacy;
use super::{Config, MOUNTPOINT_NOTE, StartError, recovery};
use crate::accounting::Accounting;
use crate::accounting::growth::Growth;
use crate::confine;
use crate::control::{self, Server};
use crate::descriptors;
use crate::fault;
use crate::fs::adopt::Pins;
use crate::fs::{Fs, Settings};
use crate::fuse::Negotiation;
use crate::fuse::gate::Gate;
use crate::fuse::session::{self, Connection};
use crate::housekeeper::Housekeeper;
use crate::keeper::{Depository, Link};
use crate::node::{Found, Nodes};
use crate::notify::Manager;
use crate::private::PrivateArea;
use crate::privileges::Privileges;
use crate::quotactl::{self, Kept, Left, QuotactlConfig, QuotactlService};
use crate::recount::Recount;
use crate::shared::{Deposited, Inheritance, Intake, Shape, Shared};
use crate::sys::inherited::Inherited;
use crate::sys::{file, proc_fd, stat};

use threads::{abort_on_panic, start_housekeeper, stop_on_signal};

/// Workers that read requests. Few: each costs a buffer, and a wake-up on another CPU costs more than most requests.
const WORKERS: usize = 2;
/// Descriptors kept open for known inodes, at most; a quarter of the limit of open files where that is less. With those that
/// guests use besides they fit into the kernel's table.
const DESCRIPTORS: usize = descriptors::TABLE - 256;

/// What a daemon serves with.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) area: Arc<PrivateArea>,
    pub(super) shared: Arc<Shared>,
    pub(super) link: Arc<Link>,
    pub(super) device: OwnedFd,
    pub(super) outside: Outside,
}

/// What can be known of the host, or reached there, only before the daemon locks itself in.
pub(super) struct Outside {
    boot: String,
    manager: Manager,
}

/// A private area in service, its requests not yet.
pub(super) struct Body<'a> {
    pub(super) parts: Parts<'a>,
    pub(super) fs: Arc<Fs>,
    pub(super) engine: Engine,
    pub(super) gate: Arc<Gate>,
    pub(super) journal: Arc<recovery::Service>,
    housekeeper: Arc<Housekeeper>,
    privileges: Arc<Privileges>,
    recount: bool,
    /// The recount that an earlier daemon began.
    pub(super) resumed: Option<Arc<Recount>>,
}

/// What is served, all of it ready.
pub(super) struct Served {
    pub(super) connection: Connection,
    pub(super) mount: MountRecord,
    pub(super) sockets: Sockets,
}

/// The sockets that outlive daemons.
pub(super) struct Sockets {
    pub(super) control: UnixListener,
    /// `None` where there is no quota record, and so nothing to manage.
    pub(super) quotactl: Option<UnixListener>,
}

/// The life of the first daemon.
pub(super) fn first(
    config: &Config,
    device: OwnedFd,
    link: Arc<Link>,
    reports: &mut Option<UnixStream>,
) -> Result<(), StartError> {
    let area = Arc::new(PrivateArea::open(&config.private, config.options.atime)?);
    let outside = lock_in(config, area.root_fd())?;
    let shared = Arc::new(make_memory(config, &area, &link)?);
    let parts = Parts {
        config,
        area,
        shared,
        link,
        device,
        outside,
    };
    if !config.quota {
        make_accounts(config)?;
    }
    let body = Body::new(parts)?;
    if config.quota {
        if !body.recount {
            count_if_new(&body.engine, &body.parts.area)?;
        }
        follow_ugid_limit(&body.engine)?;
    }
    let number = body.parts.link.mount().map_err(StartError::step(format!(
        "cannot mount at {}",
        config.mountpoint.display()
    )))?;
    note_mountpoint(config);
    let refused = || StartError::step("the kernel refused the connection");
    let (mut connection, handshake) =
        Connection::open(&body.parts.device, body.requests()).map_err(refused())?;
    let since = quota::SystemClock.now();
    let mount = saved::keep_mount(&body.parts.shared, number, since, &handshake)
        .map_err(|error| StartError::Daemon(error.to_string()))?;
    let sockets = body.make_sockets()?;
    if has_successors(&body.parts.shared) {
        let intake = body.make_intake()?;
        connection
            .read_into(intake, &[], &body.requests())
            .map_err(refused())?;
    }
    let served = Served {
        connection,
        mount,
        sockets,
    };
    body.run(served, None, |_| {
        tracing::info!(ve = %config.ve, mountpoint = %config.mountpoint.display(), "mounted");
        if let Some(mut reports) = reports.take() {
            let _ = io::Write::write_all(&mut reports, b"ready");
        }
    })
}

/// Notes where the VE is mounted, for whoever finds both processes dead.
fn note_mountpoint(config: &Config) {
    let file = config.run_dir.join(MOUNTPOINT_NOTE);
    if let Err(error) = std::fs::write(&file, config.mountpoint.as_os_str().as_bytes()) {
        tracing::warn!(file = %file.display(), %error, "not noted where the VE is mounted");
    }
}

/// Gets what must be there before the first thread, and leaves the host behind; see [`confine`]. `any` is some open descriptor.
pub(super) fn lock_in(config: &Config, any: BorrowedFd<'_>) -> Result<Outside, StartError> {
    descriptors::make_room(any, open_files_limit())
        .map_err(StartError::step("room for descriptors"))?;
    let (state, run) = (config.state_dir.as_path(), config.run_dir.as_path());
    let kept: &[&Path] = if config.quota { &[state, run] } else { &[run] };
    let outside = Outside {
        boot: recovery::boot_id(),
        // In the background the daemon is nobody's service: whoever started it was told by its return.
        manager: match config.foreground {
            true => Manager::of_environment(),
            false => Manager::default(),
        },
    };
    proc_fd::prepare().map_err(StartError::step("/proc"))?;
    confine::enter(kept, &run.join("root"))
        .map_err(StartError::step("the daemon cannot confine itself"))?;
    Ok(outside)
}

/// Makes the memory that outlives the daemon, and gives the keeper what belongs to it.
fn make_memory(config: &Config, area: &PrivateArea, link: &Link) -> Result<Shared, StartError> {
    let failed = || StartError::step("the memory that outlives the daemon");
    let shape = Shape::for_area(config.ve, area);
    let shared = Shared::create(shape).map_err(failed())?;
    fault::arm(shared.board().fault_counter());
    // Without file handles inodes are reached by descriptors of this process alone.
    if !area.has_handles() {
        return Ok(shared);
    }
    for (what, fd) in [
        (Deposited::AreaRoot, area.root_fd()),
        (Deposited::AreaLock, area.lock_fd()),
        (Deposited::Memory, shared.fd()),
    ] {
        let number = link.deposit(fd).map_err(failed())?;
        shared.board().set_deposit(what, Some(number.get()));
        if what == Deposited::Memory {
            link.share(number).map_err(failed())?;
        }
    }
    Ok(shared)
}

impl<'a> Body<'a> {
    /// Opens the accounts, works off what the last mount left, and puts the area into service.
    pub(super) fn new(parts: Parts<'a>) -> Result<Self, StartError> {
        Self::assemble(parts, None)
    }

    /// The same with the nodes and files of a predecessor.
    pub(super) fn adopt(parts: Parts<'a>, legacy: &mut Legacy) -> Result<Self, StartError> {
        Self::assemble(parts, Some(legacy))
    }

    fn assemble(parts: Parts<'a>, mut legacy: Option<&mut Legacy>) -> Result<Self, StartError> {
        let Parts {
            config,
            area,
            outside,
            ..
        } = &parts;
        let journal = Arc::new(recovery::Service::prepare(config, &outside.boot, area));
        let engine = open_engine(config, &journal)?;
        let pins = match &mut legacy {
            Some(legacy) => legacy.pins(area),
            None => Pins::default(),
        };
        let recovered = journal.begin(&engine, area, &pins)?;
        if config.quota && parts.shared.board().has_lost() {
            engine.private_area_has_lost()?;
        }
        let housekeeper = Arc::new(Housekeeper::default());
        let privileges =
            Arc::new(Privileges::new(config.options.own_ids).map_err(StartError::step("/proc"))?);
        let fs = Arc::new(assemble(&parts, &engine, &housekeeper, &privileges)?);
        let resumed = recovered.recount.map(Arc::new);
        if let Some(recount) = &resumed {
            fs.accounting().resume_recount(recount.clone());
        }
        fs.resume(recovered.touched);
        if let Some(legacy) = legacy {
            take_over(&parts, &fs, &legacy.inheritance, pins)?;
        }
        Ok(Self {
            parts,
            fs,
            engine,
            gate: Arc::default(),
            journal,
            housekeeper,
            privileges,
            recount: recovered.is_unknown,
            resumed,
        })
    }

    /// What requests are served with.
    pub(super) fn requests(&self) -> session::Service {
        session::Service {
            fs: self.fs.clone(),
            shared: self.parts.shared.clone(),
            gate: self.gate.clone(),
            negotiation: Negotiation {
                passthrough: self.parts.config.options.passthrough,
                own_ids: self.parts.config.options.own_ids,
            },
            workers: WORKERS,
        }
    }

    /// Makes the sockets and gives the keeper a copy of each: who connects while no daemon lives waits for the next.
    fn make_sockets(&self) -> Result<Sockets, StartError> {
        let Parts {
            config,
            shared,
            link,
            ..
        } = &self.parts;
        let control = control::server::bind(&config.run_dir)
            .map_err(StartError::step("cannot listen on the control socket"))?;
        let quotactl = config
            .quota
            .then(|| quotactl::notify::bind(&config.run_dir.join(quotactl::SOCKET_NAME)))
            .transpose()
            .map_err(StartError::step("cannot serve quota tools"))?;
        let sockets = [
            (Deposited::ControlSocket, Some(&control)),
            (Deposited::QuotactlSocket, quotactl.as_ref()),
        ];
        for (what, socket) in sockets {
            if let Some(socket) = socket.filter(|_| has_successors(shared)) {
                let number = link
                    .deposit(socket.as_fd())
                    .map_err(StartError::step("the keeper takes no socket"))?;
                shared.board().set_deposit(what, Some(number.get()));
            }
        }
        Ok(Sockets { control, quotactl })
    }

    /// Makes what requests are read into, where a successor finds them.
    pub(super) fn make_intake(&self) -> Result<Intake, StartError> {
        let Parts { shared, link, .. } = &self.parts;
        let failed = || StartError::step("the memory that requests are read into");
        let intake = Intake::create(session::PLACE).map_err(failed())?;
        let number = link.deposit(intake.fd()).map_err(failed())?;
        shared
            .board()
            .set_deposit(Deposited::Intake, Some(number.get()));
        Ok(intake)
    }

    /// Serves until the mount is gone. `left` is what the predecessor had of quota tools' calls; `ready` is called when
    /// everything stands and the first request may come.
    pub(super) fn run(
        self,
        served: Served,
        left: Option<Left<'_>>,
        ready: impl FnOnce(Inherited),
    ) -> Result<(), StartError> {
        let Served {
            connection,
            mount,
            sockets,
        } = served;
        let mut left = left;
        let quotactl = match sockets.quotactl {
            Some(socket) => Some(self.serve_quotactl(socket, &mount, left.as_mut())?),
            None => None,
        };
        let service = Arc::new(VeService::new(&self, &mount));
        let server = Server::serve(sockets.control, &self.parts.config.run_dir, service.clone())
            .map_err(StartError::step("cannot listen on the control socket"))?;
        self.fs.serve_kernel(Arc::new(connection.kernel_cache()));
        let cleaner = start_housekeeper(&self.fs, &self.housekeeper, &service)?;
        if self.recount {
            service
                .start_recovery()
                .map_err(StartError::step("cannot start a thread"))?;
        }
        let link = self.parts.link.clone();
        stop_on_signal(link.clone()).map_err(StartError::step("cannot wait for signals"))?;
        if has_successors(&self.parts.shared) {
            abort_on_panic();
            link.ready()
                .map_err(StartError::step("the keeper is gone"))?;
        }
        ready(left.map_or_else(Inherited::default, |left| std::mem::take(left.descriptors)));
        let manager = &self.parts.outside.manager;
        manager.ready(&format!(
            "VE {} at {}",
            self.parts.config.ve,
            self.parts.config.mountpoint.display()
        ));
        let served = connection.serve();
        manager.stopping();
        service.nobody_uses_it();
        drop(quotactl);
        service.stop_counting();
        self.housekeeper.stop();
        let _ = cleaner.join();
        service.note_loss();
        let ended = finish(self.parts.config, &self.fs, &self.engine, &self.journal);
        service.mount_is_gone(&ended);
        drop(server);
        served.map_err(StartError::step("the connection to the kernel broke"))?;
        ended
    }

    /// Lets the VE's own tools manage its second level.
    fn serve_quotactl(
        &self,
        socket: UnixListener,
        mount: &MountRecord,
        left: Option<&mut Left<'_>>,
    ) -> Result<QuotactlService, StartError> {
        let Parts {
            config,
            area,
            shared,
            link,
            ..
        } = &self.parts;
        let settings = QuotactlConfig {
            socket_path: config.run_dir.join(quotactl::SOCKET_NAME),
            device: mount.device,
            policy: config.options.quota_admin,
            own_ids: config.options.own_ids,
            kept: has_successors(shared).then(|| Kept::new(shared.clone(), link.clone())),
        };
        let privileges = self.privileges.clone();
        let learn = move |pid| privileges.learn_ve(pid);
        let level = Arc::new(self.engine.clone());
        let whole = area
            .open_for_sync()
            .map_err(StartError::step("private area"))?;
        let sync = move || file::syncfs(&whole);
        let service = QuotactlService::serve(settings, socket, left, level, learn, sync)
            .map_err(StartError::step("cannot serve quota tools"))?;
        if let Some(home) = service.home() {
            self.privileges.adopt_ve(home);
        }
        Ok(service)
    }
}

/// Whether the keeper has what a successor needs.
pub(super) fn has_successors(shared: &Shared) -> bool {
    shared.board().deposit(Deposited::Memory).is_some()
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
    // Totals are final only over files that are on the disk: what is lost with the host's power later on nobody would count.
    if config.quota
        && let Err(error) = fs.write_out()
    {
        tracing::error!(%error, "the private area cannot be written out: the next mount will count the totals anew");
        engine.private_area_has_lost()?;
    }
    let reserved = engine.reserved();
    if !reserved.is_zero() {
        tracing::error!(ve = %config.ve, ?reserved, "promises are left behind");
    }
    let recount = fs.accounting().recount().filter(|_| !engine.has_lost());
    let saved = recount.and_then(|recount| recount.freeze(|saved| saved));
    fault::point("settled");
    engine.end_service()?;
    fault::point("committed");
    if let Some(saved) = saved {
        journal.keep_recount(&saved, false);
        fault::point("kept");
    }
    journal.end();
    tracing::info!(ve = %config.ve, "unmounted, totals committed");
    Ok(())
}

/// Opens again what the guest has open.
fn take_over(
    parts: &Parts<'_>,
    fs: &Fs,
    inheritance: &Inheritance,
    pins: Pins,
) -> Result<(), StartError> {
    let device = parts
        .device
        .try_clone()
        .map_err(StartError::step("device"))?;
    let device = Arc::new(device);
    let adopted = fs.adopt(inheritance, pins, &|number| {
        session::backing(&device, number)
    });
    let ve = parts.config.ve;
    if adopted.lost > 0 || adopted.damaged > 0 {
        tracing::error!(%ve, ?adopted, "not all that was open can be served on");
    } else {
        tracing::info!(%ve, ?adopted, "open files are taken over");
    }
    Ok(())
}

fn assemble(
    parts: &Parts<'_>,
    engine: &Engine,
    housekeeper: &Arc<Housekeeper>,
    privileges: &Arc<Privileges>,
) -> Result<Fs, StartError> {
    let Parts { config, area, .. } = parts;
    let failed = || StartError::step("private area");
    let root = area.root_fd().try_clone_to_owned().map_err(failed())?;
    let descriptors = DESCRIPTORS.min(open_files_limit() / 4);
    let found = Found {
        stat: stat::stat_fd(&root).map_err(failed())?,
        handle: area.root_handle().copied(),
        held: Some(Arc::new(root)),
    };
    let shared = parts.shared.clone();
    let nodes = Arc::new(Nodes::new(area.clone(), found, descriptors, shared.clone()));
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
    let keeper: Arc<dyn Depository> = parts.link.clone();
    let area = area.clone();
    Ok(Fs::new(area, nodes, accounting, settings, shared, keeper))
}

fn open_files_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit
        .current
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(DESCRIPTORS * 4)
}

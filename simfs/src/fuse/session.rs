//! One connection to the kernel: what is negotiated, the worker threads, the end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fuser::{Config, InitFlags, KernelConfig, Notifier, Session, SessionACL};

use super::backing::Backing;
use super::gate::Gate;
use super::handshake::{self, Handshake};
use super::replay::Replay;
use super::{Adapter, INodeNo, MAX_REQUEST, Negotiation, REQUEST_MAX};
use crate::fault;
use crate::fs::{Fs, KernelView};
use crate::node::NodeId;
use crate::open::BackingToken;
use crate::shared::{Intake, Shared, Unanswered};
use crate::sys::cpu::CpuOf;
use crate::sys::present;

/// What every mount wants; each one is used where the kernel has it.
///
/// # Source
/// Linux `include/uapi/linux/fuse.h`.
const WANTED: [InitFlags; 14] = [
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_EXPORT_SUPPORT,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    InitFlags::FUSE_HAS_IOCTL_DIR,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_HAS_RESEND,
];

/// Requests that the kernel may have under way in the background.
const MAX_BACKGROUND: u16 = 64;

/// Answers the kernel's offer. `agreed` is the largest write that a predecessor agreed on, in bytes: this program takes
/// smaller ones than it would ask for, never larger ones.
pub(super) fn negotiate(
    config: &mut KernelConfig,
    wanted: Negotiation,
    agreed: Option<u32>,
    fs: &Fs,
) {
    for flag in WANTED {
        if config.add_capabilities(flag).is_err() {
            tracing::info!(?flag, "the kernel lacks a capability; going on without");
        }
    }
    // The bounds of these three are the library's; a refused value leaves its default. What is read ahead was agreed on as
    // it was offered.
    let largest = agreed.map_or(MAX_REQUEST, |agreed| agreed.min(MAX_REQUEST));
    let _ = config.set_max_write(largest);
    if agreed.is_none() {
        let _ = config.set_max_readahead(MAX_REQUEST);
    }
    let _ = config.set_max_background(MAX_BACKGROUND);
    let passthrough = wanted.passthrough
        && !fault::is_kernel_old()
        && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
        && config.set_max_stack_depth(1).is_ok();
    if wanted.passthrough && !passthrough {
        tracing::info!(
            "the kernel has no passthrough (Linux 6.9 and later); reads go through the daemon"
        );
    }
    fs.set_passthrough(passthrough);
    // From then on only requests that make files name their caller, by the ids that are right on the disk.
    if wanted.own_ids
        && config
            .add_capabilities(InitFlags::FUSE_ALLOW_IDMAP)
            .is_err()
    {
        tracing::warn!("the kernel cannot map the ids of a FUSE mount (Linux 6.12 and later)");
    }
}

/// A connection whose first handshake is done.
#[derive(Debug)]
pub struct Connection {
    session: Session<Adapter>,
    /// What a predecessor left unanswered, where the kernel does not send it again.
    replays: Vec<Replay>,
    /// Kept open until the workers have their buffers in it.
    intake: Option<Intake>,
}

/// Most orders to forget that are left for later.
const FORGETS_LEFT: usize = 16;

/// How long to wait before looking again whether the workers have their buffers.
const SOON: Duration = Duration::from_millis(1);

/// Tells the kernel what it must not trust any more.
#[derive(Clone, Debug)]
pub struct KernelCache(Notifier);

/// What requests are served with.
#[derive(Clone, Debug)]
pub struct Service {
    /// The file operations.
    pub fs: Arc<Fs>,
    /// What outlives the daemon.
    pub shared: Arc<Shared>,
    /// Where requests enter.
    pub gate: Arc<Gate>,
    /// What is asked of the kernel.
    pub negotiation: Negotiation,
    /// Threads that read requests.
    pub workers: usize,
}

impl Connection {
    /// Takes over a device descriptor that was just mounted, and answers the kernel's first request.
    ///
    /// # Errors
    /// Where the kernel's protocol is too old, or the mount is gone already.
    pub fn open(device: &OwnedFd, service: Service) -> io::Result<(Self, Handshake)> {
        let (adapter, config) = prepare(device, service, None)?;
        let (session, handshake) = handshake::first(device, adapter, config)?;
        Ok((Self::begin(session), handshake))
    }

    /// Takes over a device descriptor from a predecessor.
    ///
    /// # Errors
    /// Where this program would agree with the kernel on something else than the predecessor did.
    pub fn adopt(device: &OwnedFd, service: Service, kept: &Handshake) -> io::Result<Self> {
        let (adapter, config) = prepare(device, service, Some(kept))?;
        let session = handshake::again(kept, device, adapter, config)?;
        Ok(Self::begin(session))
    }

    fn begin(session: Session<Adapter>) -> Self {
        Self {
            session,
            replays: Vec::new(),
            intake: None,
        }
    }

    /// Carries these requests out when this connection serves. For kernels that do not send again what was not answered.
    ///
    /// # Errors
    /// Another agreement with the kernel than the predecessor's.
    pub fn carry_out(
        &mut self,
        left: &[Unanswered],
        device: &OwnedFd,
        service: &Service,
        kept: &Handshake,
    ) -> io::Result<()> {
        if !left.is_empty() {
            tracing::info!(
                requests = left.len(),
                "the kernel sends nothing again; requests that were read are taken from there"
            );
        }
        for request in left {
            let (adapter, config) = prepare(device, service.clone(), Some(kept))?;
            let replay = Replay::prepare(request, kept, adapter, config)?;
            self.replays.push(replay);
        }
        Ok(())
    }

    /// Has requests read where a successor finds them; the requests that stand there and are `left` stay. What a predecessor
    /// has left of orders to forget there is taken up.
    ///
    /// # Errors
    /// Where there is no room for requests.
    pub fn read_into(
        &mut self,
        intake: Intake,
        left: &[Unanswered],
        service: &Service,
    ) -> io::Result<()> {
        let mut kept: Vec<usize> = left.iter().map(|request| request.place).collect();
        let forgets = intake.left_forgets(service.shared.forgets())?;
        service.fs.end_forgets(&forgets);
        if forgets.len() > FORGETS_LEFT {
            // One death after the other: there must be places to read into.
            service.fs.forget_left(&forgets);
        } else {
            kept.extend(forgets.iter().map(|order| order.place));
            service.fs.forget_later(forgets);
        }
        let places = intake.make_room(&kept, service.workers.max(1))?;
        present::lay_next(intake.fd(), &places)?;
        self.intake = Some(intake);
        Ok(())
    }

    /// For telling the kernel about changes it did not ask for.
    pub fn kernel_cache(&self) -> KernelCache {
        KernelCache(self.session.notifier())
    }

    /// Serves requests until the mount is gone.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn serve(self) -> io::Result<()> {
        let Self {
            session,
            replays,
            intake: _open,
        } = self;
        if replays.is_empty() {
            return session.run();
        }
        thread::scope(|scope| {
            let server = thread::Builder::new()
                .name("server".into())
                .spawn_scoped(scope, || session.run())?;
            // The buffers that lie in the intake are for those who read from the kernel.
            while !present::all_laid() && !server.is_finished() {
                thread::sleep(SOON);
            }
            for replay in replays {
                let name = "replay".into();
                thread::Builder::new()
                    .name(name)
                    .spawn_scoped(scope, || replay.run())?;
            }
            match server.join() {
                Ok(served) => served,
                Err(_) => Err(io::Error::other("the server's thread panicked")),
            }
        })
    }
}

/// Bytes of a place of the [`Intake`].
pub const PLACE: u32 = REQUEST_MAX;

/// The token of a backing file that a predecessor registered on the same connection; closes it on drop.
pub fn backing(device: &Arc<OwnedFd>, number: u32) -> Arc<dyn BackingToken> {
    Arc::new(Backing::adopt(device, number))
}

pub(super) fn prepare(
    device: &OwnedFd,
    service: Service,
    kept: Option<&Handshake>,
) -> io::Result<(Adapter, Config)> {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(service.workers.max(1));
    let adapter = Adapter {
        fs: service.fs,
        negotiation: service.negotiation,
        agreed: kept.and_then(Handshake::largest_write),
        shared: service.shared,
        gate: service.gate,
        device: Arc::new(device.try_clone()?),
        callers: CpuOf::open().ok(),
        detour: None,
    };
    Ok((adapter, config))
}

impl KernelView for KernelCache {
    fn forget_attributes(&self, id: NodeId) {
        // A negative offset means: attributes only.
        if let Err(error) = self.0.inval_inode(INodeNo(id.get()), -1, 0) {
            tracing::debug!(node = %id, %error, "the kernel did not take an invalidation");
        }
    }
}

//! The service: takes listeners from container runtimes, receives their requests, lets a few threads serve them.
//!
//! One thread sleeps in poll(2) over all listeners; it receives only while the queue has room, the rest waits in the
//! kernel. A listener whose last process is gone hangs up and is closed. Another thread waits for runtimes.
//!
//! Lock order: `registry` and the queue's lock are never held together.

mod queue;
mod receiver;
mod registrar;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::EventfdFlags;
use rustix::fs::{Mode, OFlags};

use super::caller::AdminPolicy;
use super::kept::{self, Kept, KeptListener};
use super::refusal::Refusal;
use super::second_level::SecondLevel;
use super::serve::{HomeMaps, Listener, Server};
use crate::shared::{Found, Place};
use crate::sys::errand::Errands;
use crate::sys::inherited::Inherited;
use crate::sys::seccomp::{Notification, NotifyFd};
use crate::sys::task::{DeviceNumber, NamespaceId};
use queue::Queue;

pub use registrar::bind;

/// Threads that serve. More than one, so that a caller whose memory or path is slow does not hold up the others.
const WORKERS: usize = 3;
/// Requests that were received and are not served yet.
const QUEUE_BOUND: usize = 32;
/// Most listeners at a time: one per process that was started from outside and still lives.
const LISTENERS_MAX: usize = 4096;
const STACK_BYTES: usize = 256 << 10;
/// How long a caller's memory or path may take, and how many of those that took longer may still be waited for: more than
/// callers have that mean well, on any machine.
const ERRAND_PATIENCE: Duration = Duration::from_secs(10);
const ERRANDS_LOST_MAX: usize = 16;
/// How long stopping waits for requests in work. One can wait for a filesystem of the guest's own.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How to serve a VE.
#[derive(Clone, Debug)]
pub struct QuotactlConfig {
    /// Where runtimes connect.
    pub socket_path: PathBuf,
    /// Device number of the VE's mount (`st_dev` of its root), major and minor.
    pub device: DeviceNumber,
    /// Who administers the second level from inside.
    pub policy: AdminPolicy,
    /// Whether the ids on the disk are those of the VE's user namespace, not the host's.
    pub own_ids: bool,
    /// Where a successor finds what it must go on with; `None` where there will be none.
    pub kept: Option<Kept>,
}

/// What a predecessor left.
#[derive(Debug)]
pub struct Left<'a> {
    /// Its listeners.
    pub listeners: &'a [Found<2>],
    /// The calls that it received and did not answer.
    pub calls: &'a [Found<14>],
    /// The descriptors.
    pub descriptors: &'a mut Inherited,
}

struct Request {
    listener: Arc<Listener>,
    notification: Notification,
    kept: Option<Place>,
}

#[derive(Default)]
struct Registry {
    listeners: Vec<Arc<Listener>>,
    /// Namespace of the VE as last learnt; an `exec` by crun does not name it.
    home: Option<NamespaceId>,
}

struct Shared {
    server: Server,
    kept: Option<Kept>,
    registry: Mutex<Registry>,
    queue: Queue<Request>,
    on_member: Box<dyn Fn(u32) + Send + Sync>,
    /// Ends one poll(2) of the receiving thread.
    wake: OwnedFd,
    /// Ends every poll(2), once and for all.
    stop: OwnedFd,
}

/// The running service. Dropping it stops it.
pub struct QuotactlService {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    socket_path: PathBuf,
}

impl QuotactlService {
    /// Makes the socket with [`bind`] and serves on it: see [`Self::serve`].
    ///
    /// # Errors
    /// Those of both.
    pub fn start(
        config: QuotactlConfig,
        level: Arc<dyn SecondLevel>,
        on_member: impl Fn(u32) + Send + Sync + 'static,
        sync_backing: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let socket = bind(&config.socket_path)?;
        Self::serve(config, socket, None, level, on_member, sync_backing)
    }

    /// Starts the threads. The daemon must see the host's `/proc`, and have `CAP_SYS_PTRACE`.
    ///
    /// `socket` comes from [`bind`], here or in a predecessor. What a predecessor `left` is gone on with. `on_member` hears
    /// the number of a process of the VE whenever a runtime names one; `sync_backing` writes the private area out, and may
    /// take its time.
    ///
    /// # Errors
    /// The descriptors or the threads could not be made.
    pub fn serve(
        config: QuotactlConfig,
        socket: UnixListener,
        left: Option<&mut Left<'_>>,
        level: Arc<dyn SecondLevel>,
        on_member: impl Fn(u32) + Send + Sync + 'static,
        sync_backing: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let QuotactlConfig {
            socket_path,
            device,
            policy,
            own_ids,
            kept,
        } = config;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty())?;
        let shared = Arc::new(Shared {
            server: Server {
                proc,
                device,
                policy,
                own_ids,
                home: HomeMaps::default(),
                level,
                errands: Errands::new(ERRAND_PATIENCE, ERRANDS_LOST_MAX),
                sync_backing: Box::new(sync_backing),
            },
            kept,
            registry: Mutex::default(),
            queue: Queue::new(QUEUE_BOUND),
            on_member: Box::new(on_member),
            wake: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stop: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let mut connections = Vec::new();
        if let Some(left) = left {
            shared.take_over(left);
            connections = registrar::left(&socket, left.descriptors);
        }
        let mut service = Self {
            shared,
            threads: Vec::new(),
            socket_path,
        };
        for number in 0..WORKERS {
            service.spawn(format!("quotactl-{number}"), Shared::work)?;
        }
        service.spawn("quotactl-recv".into(), Shared::receive)?;
        service.spawn("quotactl-reg".into(), move |shared| {
            shared.register_runtimes(&socket, connections)
        })?;
        Ok(service)
    }

    /// The user namespace of the VE, as last learnt.
    pub fn home(&self) -> Option<NamespaceId> {
        self.shared.registry.lock().home
    }

    /// How many listeners are served.
    pub fn listener_count(&self) -> usize {
        self.shared.registry.lock().listeners.len()
    }

    /// Stops: no new requests, those in work are finished as far as two seconds allow, received ones that nobody
    /// serves get `EIO`. Requests still in the kernel wait for whoever holds the listeners then.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn spawn(
        &mut self,
        name: String,
        body: impl FnOnce(&Shared) + Send + 'static,
    ) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let builder = std::thread::Builder::new()
            .name(name)
            .stack_size(STACK_BYTES);
        self.threads.push(builder.spawn(move || body(&shared))?);
        Ok(())
    }

    fn shut_down(&mut self) {
        for request in self.shared.queue.close() {
            request.refuse();
            self.shared.done(&request);
        }
        signal(&self.shared.stop);
        let deadline = Instant::now() + STOP_PATIENCE;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !thread.is_finished() || thread.join().is_err() {
                tracing::warn!(op = "quotactl", "a thread did not end in time");
            }
        }
        if !self.socket_path.as_os_str().is_empty() {
            let _ = std::fs::remove_file(std::mem::take(&mut self.socket_path));
        }
    }
}

impl Drop for QuotactlService {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Shared {
    fn register(&self, fd: OwnedFd, home: Option<NamespaceId>) -> io::Result<()> {
        let notify = NotifyFd::new(fd)?;
        let mut registry = self.registry.lock();
        let is_it = |known: &Arc<Listener>| known.notify.is_same(&notify);
        if registry.listeners.iter().any(is_it) {
            // A predecessor got as far as this.
            return Ok(());
        }
        if registry.listeners.len() >= LISTENERS_MAX {
            return Err(io::Error::other("too many seccomp listeners"));
        }
        registry.home = home.or(registry.home);
        let home = registry.home;
        let kept = self.keep(&notify, home);
        let listener = Listener { notify, home, kept };
        registry.listeners.push(Arc::new(listener));
        drop(registry);
        signal(&self.wake);
        Ok(())
    }

    /// Has a listener outlive the daemon, where that is possible.
    fn keep(&self, notify: &NotifyFd, home: Option<NamespaceId>) -> Option<KeptListener> {
        match self.kept.as_ref()?.listener(notify.as_fd(), home) {
            Ok(kept) => Some(kept),
            Err(error) => {
                tracing::warn!(op = "quotactl", %error, "listener not kept: without this daemon its processes get ENOSYS");
                None
            }
        }
    }

    /// Goes on with what a predecessor left. No thread runs yet.
    fn take_over(&self, left: &mut Left<'_>) {
        let Some(keep) = &self.kept else { return };
        let mut registry = self.registry.lock();
        for found in left.listeners {
            let Some((kept, home)) = keep.adopt_listener(found) else {
                continue;
            };
            let descriptor = left.descriptors.take(kept.number().get());
            let Some(notify) = descriptor.and_then(|fd| NotifyFd::new(fd).ok()) else {
                tracing::warn!(op = "quotactl", "a listener is lost");
                keep.forget(kept);
                continue;
            };
            registry.home = home.or(registry.home);
            let kept = Some(kept);
            let listener = Listener { notify, home, kept };
            registry.listeners.push(Arc::new(listener));
        }
        drop(registry);
        self.take_over_calls(keep, left.calls);
    }

    fn take_over_calls(&self, keep: &Kept, calls: &[Found<14>]) {
        let listeners = self.registry.lock().listeners.clone();
        let by = |number| {
            let is_its =
                |one: &&Arc<Listener>| one.kept.is_some_and(|kept| kept.number() == number);
            listeners.iter().find(is_its)
        };
        let mut requests: Vec<Request> = Vec::new();
        for found in calls {
            let call = kept::from_words(&found.payload);
            match call.and_then(|(number, call)| Some((by(number)?, call))) {
                Some((listener, notification)) => requests.push(Request {
                    listener: Arc::clone(listener),
                    notification,
                    kept: Some(found.place),
                }),
                None => keep.answered(found.place),
            }
        }
        let unnoted = keep.unnoted();
        if let Some((listener, notification)) =
            unnoted.and_then(|(number, call)| Some((by(number)?, call)))
            && listener.notify.id_valid(notification.cookie).is_ok()
            && !requests
                .iter()
                .any(|noted| noted.is_of(listener, &notification))
        {
            requests.push(Request {
                listener: Arc::clone(listener),
                notification,
                kept: listener
                    .kept
                    .and_then(|kept| keep.call(kept, &notification)),
            });
        }
        keep.empty_inbox();
        requests
            .into_iter()
            .for_each(|request| self.queue.push(request));
    }

    /// A request was answered.
    fn done(&self, request: &Request) {
        if let (Some(keep), Some(place)) = (&self.kept, request.kept) {
            keep.answered(place);
        }
    }

    /// A serving thread.
    fn work(&self) {
        while let Some((request, was_full)) = self.queue.pop() {
            if was_full {
                signal(&self.wake);
            }
            // A caller must not hang for ever because of a mistake of ours.
            let serve = || self.server.answer(&request.listener, &request.notification);
            if std::panic::catch_unwind(AssertUnwindSafe(serve)).is_err() {
                tracing::error!(op = "quotactl", "request could not be served");
                request.refuse();
            }
            self.done(&request);
        }
    }

    /// Nothing that a thread waits for can fail for long but for want of memory or descriptors.
    fn pause(&self, step: &str, error: &io::Error) {
        tracing::error!(op = "quotactl", step, %error);
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Request {
    fn is_of(&self, listener: &Arc<Listener>, call: &Notification) -> bool {
        Arc::ptr_eq(&self.listener, listener) && self.notification.cookie == call.cookie
    }

    fn refuse(&self) {
        // The caller may be gone, and then nothing is left to refuse.
        let _ = self
            .listener
            .notify
            .respond(self.notification.cookie, Refusal::Fault.errno());
    }
}

fn signal(event: &OwnedFd) {
    // Fails only when the counter is full, and then it signals as well.
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

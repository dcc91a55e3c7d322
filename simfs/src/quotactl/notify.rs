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
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::EventfdFlags;
use rustix::fs::{Mode, OFlags};

use super::caller::AdminPolicy;
use super::refusal::Refusal;
use super::second_level::SecondLevel;
use super::serve::{Listener, Server};
use crate::sys::seccomp::{Notification, NotifyFd};
use crate::sys::task::{DeviceNumber, NamespaceId};
use queue::Queue;

/// Threads that serve. More than one, so that a caller whose memory or path is slow does not hold up the others.
const WORKERS: usize = 3;
/// Requests that were received and are not served yet.
const QUEUE_BOUND: usize = 32;
/// Most listeners at a time: one per process that was started from outside and still lives.
const LISTENERS_MAX: usize = 4096;
const STACK_BYTES: usize = 256 << 10;
/// How long stopping waits for requests in work. One can hang in a filesystem of the guest's own.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How to serve a VE.
#[derive(Clone, Debug)]
pub struct QuotactlConfig {
    /// Where runtimes connect. Its directory is made with mode 0700 if missing: whoever can connect can register.
    pub socket_path: PathBuf,
    /// Device number of the VE's mount (`st_dev` of its root), major and minor.
    pub device: DeviceNumber,
    /// Who administers the second level from inside.
    pub policy: AdminPolicy,
    /// Whether the ids on the disk are those of the VE's user namespace, not the host's.
    pub own_ids: bool,
}

/// A listener as handed from one daemon to the next.
#[derive(Debug)]
pub struct OpenListener {
    /// Its descriptor. While any copy is open, callers wait; when the last one closes they get `ENOSYS` for ever.
    pub fd: OwnedFd,
    /// The VE's user namespace, if it was learnt: administrators must live in it.
    pub user_namespace: Option<NamespaceId>,
}

struct Request {
    listener: Arc<Listener>,
    notification: Notification,
}

#[derive(Default)]
struct Registry {
    listeners: Vec<Arc<Listener>>,
    /// Namespace of the VE as last learnt; an `exec` by crun does not name it.
    home: Option<NamespaceId>,
}

struct Shared {
    server: Server,
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
    /// Opens the socket and starts the threads. The daemon must see the host's `/proc`, and have `CAP_SYS_PTRACE`.
    ///
    /// `on_member` hears the number of a process of the VE whenever a runtime names one; `sync_backing` writes the private
    /// area out, and may take its time.
    ///
    /// # Errors
    /// The socket, the descriptors or the threads could not be made.
    pub fn start(
        config: QuotactlConfig,
        level: Arc<dyn SecondLevel>,
        on_member: impl Fn(u32) + Send + Sync + 'static,
        sync_backing: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let QuotactlConfig {
            socket_path,
            device,
            policy,
            own_ids,
        } = config;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty())?;
        let socket = registrar::bind(&socket_path)?;
        let shared = Arc::new(Shared {
            server: Server {
                proc,
                device,
                policy,
                own_ids,
                level,
                sync_backing: Box::new(sync_backing),
            },
            registry: Mutex::default(),
            queue: Queue::new(QUEUE_BOUND),
            on_member: Box::new(on_member),
            wake: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stop: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
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
            shared.register_runtimes(&socket)
        })?;
        Ok(service)
    }

    /// Serves a listener that another process held.
    ///
    /// # Errors
    /// The descriptor is no listener, or there are too many.
    pub fn adopt(&self, listener: OpenListener) -> io::Result<()> {
        self.shared.register(listener.fd, listener.user_namespace)
    }

    /// Copies of all open listeners, for a process that keeps them.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn listeners(&self) -> io::Result<Vec<OpenListener>> {
        let open = self.shared.registry.lock().listeners.clone();
        let copy = |listener: Arc<Listener>| {
            let fd = listener.notify.try_clone_fd()?;
            Ok(OpenListener {
                fd,
                user_namespace: listener.home,
            })
        };
        open.into_iter().map(copy).collect()
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
        if registry.listeners.len() >= LISTENERS_MAX {
            return Err(io::Error::other("too many seccomp listeners"));
        }
        registry.home = home.or(registry.home);
        let home = registry.home;
        registry.listeners.push(Arc::new(Listener { notify, home }));
        drop(registry);
        signal(&self.wake);
        Ok(())
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
        }
    }

    /// Nothing that a thread waits for can fail for long but for want of memory or descriptors.
    fn pause(&self, step: &str, error: &io::Error) {
        tracing::error!(op = "quotactl", step, %error);
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Request {
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

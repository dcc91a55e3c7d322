//! One request: look at the caller, read its arguments, answer.
//!
//! Order: open the caller's files, ask the kernel whether the request still stands (only then do they belong to the
//! caller), read, ask again before changing anything and before writing to the caller.

mod sync;

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::abi::call::{Call, Target, synced};
use super::abi::command::Command;
use super::abi::{Input, Output};
use super::caller::{AdminPolicy, Caller, Credentials, is_home};
use super::decide;
use super::id_map::IdMap;
use super::kept::KeptListener;
use super::refusal::Refusal;
use super::second_level::SecondLevel;
use crate::sys::errand::Errands;
use crate::sys::seccomp::{Notification, NotifyFd};
use crate::sys::task::{DeviceNumber, Memory, NamespaceId, Task};

/// The node that the tools find in the mount table.
pub const DEVICE_PATH: &str = "/dev/simfs";
/// `PATH_MAX`, with the closing zero.
const PATH_MAX: usize = 4096;

/// Writes the private area out.
pub type SyncBacking = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

/// A filter's listener.
#[derive(Debug)]
pub struct Listener {
    /// Its descriptor.
    pub notify: NotifyFd,
    /// The VE's user namespace; `None` if the runtime never named a process of the VE: nobody is administrator then.
    pub home: Option<NamespaceId>,
    /// Where a successor finds it.
    pub(super) kept: Option<KeptListener>,
}

/// Users and groups of the VE's user namespace, as they are called inside and outside.
#[derive(Debug, Default)]
pub struct HomeMaps {
    /// A leaf lock. A namespace's number may be that of an earlier one: each registration tells anew.
    learnt: Mutex<Option<(NamespaceId, IdMap, IdMap)>>,
}

impl HomeMaps {
    /// Takes them from a process that lives there.
    ///
    /// # Errors
    /// `Fault` if it is gone.
    pub fn learn(&self, member: &Task) -> Result<(IdMap, IdMap), Refusal> {
        let namespace = member.user_namespace().map_err(unreadable)?;
        let (users, groups) = id_maps(member)?;
        *self.learnt.lock() = Some((namespace, users.clone(), groups.clone()));
        Ok((users, groups))
    }

    fn known(&self, home: NamespaceId) -> Option<(IdMap, IdMap)> {
        let learnt = self.learnt.lock();
        let (_, users, groups) = learnt
            .as_ref()
            .filter(|(namespace, ..)| *namespace == home)?;
        Some((users.clone(), groups.clone()))
    }
}

/// What all requests of a VE share.
pub struct Server {
    /// The /proc in which the callers' thread numbers mean something.
    pub proc: OwnedFd,
    /// The VE's mount.
    pub device: DeviceNumber,
    /// Who administers.
    pub policy: AdminPolicy,
    /// Whether the ids on the disk are those of the VE's user namespace, not the host's.
    pub own_ids: bool,
    /// The VE's user namespace; asked where the ids on the disk are its own.
    pub home: HomeMaps,
    /// Its users' and groups' quota.
    pub level: Arc<dyn SecondLevel>,
    /// Whoever looks at what may wait for a guest.
    pub errands: Errands,
    /// What syncfs(2) on the mount has to do beyond what the kernel does.
    pub sync_backing: SyncBacking,
}

impl Server {
    /// Serves one request to the end. If the caller has gone, nobody hears the answer.
    pub fn answer(&self, listener: &Listener, notification: &Notification) {
        if let Some(descriptor) = synced(notification) {
            return self.answer_sync(listener, notification, descriptor);
        }
        let result = self.handle(listener, notification);
        let errno = result.map_or_else(Refusal::errno, |()| 0);
        let cookie = notification.cookie;
        tracing::debug!(op = "quotactl", tid = notification.tid, errno);
        if let Err(error) = listener.notify.respond(cookie, errno) {
            tracing::debug!(op = "quotactl", tid = notification.tid, %error, "not heard");
        }
    }

    fn handle(&self, listener: &Listener, notification: &Notification) -> Result<(), Refusal> {
        let call = Call::read(notification).ok_or(Refusal::NotSupported)?;
        if let Target::Path(address) = call.target {
            if call.word.kind.is_none() {
                return Err(Refusal::Invalid);
            }
            if address == 0 {
                let sync = call.word.command == Some(Command::Sync);
                return if sync { Ok(()) } else { Err(Refusal::NoDevice) };
            }
        }
        let task = Task::open(&self.proc, notification.tid).map_err(unreadable)?;
        let memory = task.memory().map_err(unreadable)?;
        let visit = Visit {
            server: self,
            listener,
            cookie: notification.cookie,
            task,
            memory,
        };
        visit.check_still_waiting()?;
        visit.check_target(call.target)?;
        visit.carry_out(&call)
    }
}

/// A caller whose request stands, with its files open.
struct Visit<'a> {
    server: &'a Server,
    listener: &'a Listener,
    cookie: u64,
    task: Task,
    memory: Memory,
}

impl Visit<'_> {
    fn check_still_waiting(&self) -> Result<(), Refusal> {
        self.listener
            .notify
            .id_valid(self.cookie)
            .map_err(unreadable)
    }

    fn check_target(&self, target: Target) -> Result<(), Refusal> {
        match target {
            Target::Descriptor(number) => match self.task.descriptor_device(number) {
                Ok(device) if device == self.server.device => Ok(()),
                Ok(_) => Err(Refusal::NotSupported),
                Err(_) => Err(Refusal::BadDescriptor),
            },
            Target::Path(address) => {
                let path = self.read_path(address)?;
                if path == DEVICE_PATH.as_bytes() {
                    return Ok(());
                }
                self.check_device(&path).map_err(|refusal| {
                    if refusal == Refusal::TooSlow {
                        return refusal;
                    }
                    // We look with more rights than the caller: it must not learn what exists where it may not look.
                    let is_admin = self.caller().is_ok_and(|caller| caller.is_admin);
                    if is_admin { refusal } else { Refusal::NoDevice }
                })
            }
        }
    }

    fn check_device(&self, path: &[u8]) -> Result<(), Refusal> {
        let path = CString::new(path).map_err(|_| Refusal::NotFound)?;
        match self.task.block_device(&self.server.errands, &path) {
            Ok(Some(device)) if device == self.server.device => Ok(()),
            Ok(Some(_)) => Err(Refusal::NoDevice),
            Ok(None) => Err(Refusal::NotBlockDevice),
            Err(error) => Err(match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => Refusal::NotFound,
                Some(libc::EACCES) => Refusal::SearchDenied,
                Some(libc::ELOOP) => Refusal::TooManyLinks,
                Some(libc::ENAMETOOLONG) => Refusal::NameTooLong,
                _ if is_too_slow(&error) => Refusal::TooSlow,
                _ => Refusal::NoDevice,
            }),
        }
    }

    fn carry_out(&self, call: &Call) -> Result<(), Refusal> {
        let (permitted, caller) = decide::authorize(call.word, call.id, || self.caller())?;
        let input = self.read_input(call, permitted.command)?;
        if permitted.command.changes_state() {
            self.check_still_waiting()?;
        }
        let level = self.server.level.as_ref();
        let output = decide::carry_out(permitted, caller.as_ref(), &input, level)?;
        self.write_output(call, &output)
    }

    fn caller(&self) -> Result<Caller, Refusal> {
        let status = self.task.text("status").map_err(unreadable)?;
        let credentials = Credentials::parse(&status).ok_or(Refusal::Fault)?;
        let namespace = self.task.user_namespace().map_err(unreadable)?;
        let home = is_home(self.listener.home, namespace);
        let (uids, gids) = id_maps(&self.task)?;
        if !self.server.own_ids {
            return Ok(Caller::new(
                credentials,
                uids,
                gids,
                home,
                self.server.policy,
            ));
        }
        let (users, groups) = match home {
            true => (uids.clone(), gids.clone()),
            false => self.maps_of_home()?,
        };
        let caller = Caller::new(credentials, uids, gids, home, self.server.policy);
        caller
            .with_ids_of(&users, &groups)
            .ok_or(Refusal::NotPermitted)
    }

    /// The maps of the VE's user namespace, for a caller in one nested below it.
    fn maps_of_home(&self) -> Result<(IdMap, IdMap), Refusal> {
        let home = self.listener.home.ok_or(Refusal::NotPermitted)?;
        if let Some(known) = self.server.home.known(home) {
            return Ok(known);
        }
        // Nothing but a process tells them; that of the registration was a predecessor's to see.
        let member = Task::living_in(&self.server.proc, home).map_err(unreadable)?;
        self.server
            .home
            .learn(&member.ok_or(Refusal::NotPermitted)?)
    }

    /// The path at an address, without its closing zero.
    fn read_path(&self, address: u64) -> Result<Vec<u8>, Refusal> {
        let mut bytes = vec![0; PATH_MAX];
        let length = self
            .memory
            .read(&self.server.errands, address, &mut bytes)
            .map_err(untouchable)?;
        bytes.truncate(length);
        match bytes.iter().position(|byte| *byte == 0) {
            Some(end) => bytes.truncate(end),
            None if length == PATH_MAX => return Err(Refusal::NameTooLong),
            None => return Err(Refusal::BadAddress),
        }
        Ok(bytes)
    }

    fn read_input(&self, call: &Call, command: Command) -> Result<Input, Refusal> {
        let mut bytes = vec![0; Input::size(command, call.layout)];
        if !bytes.is_empty() {
            let errands = &self.server.errands;
            let length = self.memory.read(errands, call.data, &mut bytes);
            if length.map_err(untouchable)? != bytes.len() {
                return Err(Refusal::BadAddress);
            }
        }
        Input::decode(command, &bytes).ok_or(Refusal::BadAddress)
    }

    fn write_output(&self, call: &Call, output: &Output) -> Result<(), Refusal> {
        let bytes = output.encode(call.layout);
        if bytes.is_empty() {
            return Ok(());
        }
        self.check_still_waiting()?;
        let errands = &self.server.errands;
        let length = self.memory.write(errands, call.data, &bytes);
        if length.map_err(untouchable)? != bytes.len() {
            return Err(Refusal::BadAddress);
        }
        Ok(())
    }
}

/// Users and groups of a task's user namespace.
fn id_maps(task: &Task) -> Result<(IdMap, IdMap), Refusal> {
    let map = |name| {
        let text = task.text(name).map_err(unreadable)?;
        IdMap::parse(&text).map_err(|_| Refusal::Fault)
    };
    Ok((map("uid_map")?, map("gid_map")?))
}

/// What the caller's pointer names cannot be read or written.
#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn untouchable(error: io::Error) -> Refusal {
    match is_too_slow(&error) {
        true => Refusal::TooSlow,
        false => Refusal::BadAddress,
    }
}

/// Whether an errand did not come back, or was not begun since too many others have not.
fn is_too_slow(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
    kinds.contains(&error.kind())
}

/// The caller's files cannot be read: it is gone, or we lack the right to trace it.
#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn unreadable(error: io::Error) -> Refusal {
    let gone = [libc::ENOENT, libc::ESRCH]
        .map(Some)
        .contains(&error.raw_os_error());
    if !gone {
        tracing::warn!(op = "quotactl", %error, "caller cannot be looked at");
    }
    Refusal::Fault
}

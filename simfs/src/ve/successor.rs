//! A daemon that takes a mount over from a dead one.
//!
//! It is started by the keeper with the numbers of its end of the link, the device, the shared memory and the configuration;
//! all else stands there. Order: read what was saved, lock in, note what the last daemon may have died of, work off its journal, put the
//! area into service with the nodes and files that the kernel knows, go through the handshake again, then have the kernel
//! send again what was not answered, or look for it where it was read. Whatever does not fit is refused, with a reason, before anything is changed.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::daemon::{Body, Parts, Served, Sockets, lock_in};
use super::{Config, saved};
use crate::fault;
use crate::fs::adopt::Pins;
use crate::fuse::handshake::Handshake;
use crate::fuse::opcode;
use crate::fuse::session::{self, Connection};
use crate::keeper::{DepositNumber, Depository, HAND_OVER, Link, REFUSED, SuccessorArguments};
use crate::private::PrivateArea;
use crate::quotactl::Left;
use crate::shared::flights::Asked;
use crate::shared::{Death, Deposited, Inheritance, Intake, Shared};
use crate::sys::fork::{self, Ending};
use crate::sys::fuse_dev;
use crate::sys::inherited::Inherited;

/// What the predecessor left, and is not taken up yet.
pub(super) struct Legacy {
    pub(super) inheritance: Inheritance,
    pub(super) descriptors: Inherited,
    /// What requests are read into.
    intake: Option<OwnedFd>,
}

impl Legacy {
    /// The keeper's descriptors of inodes without a name.
    pub(super) fn pins(&mut self, area: &PrivateArea) -> Pins {
        let descriptors = &mut self.descriptors;
        Pins::collect(&self.inheritance, area, &mut |number| {
            descriptors.take(number)
        })
    }
}

/// Why this program cannot take over.
#[derive(Debug)]
enum Failure {
    /// It never will: what was saved is damaged, or written by a program that differs.
    Refused(String),
    /// This time; the next one may.
    Failed(String),
}

/// Serves a mount that another daemon served before; the exit code for the keeper.
///
/// To be called first thing in the process, with the arguments that the keeper gave.
pub fn succeed(arguments: SuccessorArguments) -> i32 {
    // A program that was started by descriptor has a number for a name.
    let _ = rustix::thread::set_name(c"simfs");
    let mut descriptors = match Inherited::collect() {
        Ok(descriptors) => descriptors,
        Err(error) => {
            tracing::error!(%error, "what was handed over cannot be found");
            return 1;
        }
    };
    let Some(link) = descriptors.take(arguments.link) else {
        tracing::error!("not started by a keeper: to mount a VE, use 'simfs mount'");
        return 2;
    };
    let link = Arc::new(Link::new(link));
    let (code, reason) = match take_over(arguments, descriptors, &link) {
        Ok(()) => return 0,
        Err(Failure::Refused(reason)) => (REFUSED, reason),
        Err(Failure::Failed(reason)) => (1, reason),
    };
    tracing::error!("the mount cannot be taken over: {reason}");
    link.refuse(&reason);
    code
}

fn take_over(
    arguments: SuccessorArguments,
    mut descriptors: Inherited,
    link: &Arc<Link>,
) -> Result<(), Failure> {
    fault::successor();
    let lost = || refused("a descriptor that the keeper should hold is missing");
    // Signals that ask for an end are taken by a thread of their own.
    let _signals = fork::block_end_signals().map_err(failed)?;
    let memory = descriptors.take(arguments.memory).ok_or_else(lost)?;
    let device = descriptors.take(arguments.device).ok_or_else(lost)?;
    let config = descriptors.take(arguments.config).ok_or_else(lost)?;
    let config = saved::config(&config).map_err(refused)?;
    let (shared, inheritance) = Shared::adopt(memory).map_err(refused)?;
    let shared = Arc::new(shared);
    fault::arm(shared.board().fault_counter());
    let (mount, handshake) = saved::mount(&shared).map_err(refused)?;
    let mut deposited = |what| {
        let number = shared.board().deposit(what)?;
        descriptors.take(number)
    };
    let root = deposited(Deposited::AreaRoot).ok_or_else(lost)?;
    let lock = deposited(Deposited::AreaLock).ok_or_else(lost)?;
    let sockets = Sockets {
        control: deposited(Deposited::ControlSocket).ok_or_else(lost)?.into(),
        quotactl: deposited(Deposited::QuotactlSocket).map(Into::into),
    };
    let intake = deposited(Deposited::Intake);
    let area = Arc::new(PrivateArea::adopt(root, lock).map_err(failed)?);
    note_deaths(&config, &shared, &inheritance);
    let outside = lock_in(&config, area.root_fd()).map_err(failed)?;
    let parts = Parts {
        config: &config,
        area,
        shared,
        link: link.clone(),
        device,
        outside,
    };
    let mut legacy = Legacy {
        inheritance,
        descriptors,
        intake,
    };
    let body = Body::adopt(parts, &mut legacy).map_err(failed)?;
    serve(body, &handshake, mount, sockets, legacy)
}

fn serve(
    body: Body<'_>,
    handshake: &Handshake,
    mount: saved::MountRecord,
    sockets: Sockets,
    mut legacy: Legacy,
) -> Result<(), Failure> {
    let device = &body.parts.device;
    let mut connection = Connection::adopt(device, body.requests(), handshake).map_err(refused)?;
    let intake = match legacy.intake.take() {
        Some(intake) => Intake::adopt(intake, session::PLACE).map_err(refused)?,
        // A program that read elsewhere served before.
        None => body.make_intake().map_err(failed)?,
    };
    let unanswered = match sends_again(device).map_err(failed)? {
        true => Vec::new(),
        false => intake
            .unanswered(|unique| fuse_dev::is_waiting(device, unique))
            .map_err(failed)?,
    };
    let requests = body.requests();
    connection
        .carry_out(&unanswered, device, &requests, handshake)
        .and_then(|()| connection.read_into(intake, &unanswered, &requests))
        .map_err(failed)?;
    let (ve, link) = (body.parts.config.ve, body.parts.link.clone());
    let unanswered = &legacy.inheritance.cut_off;
    let served = Served {
        connection,
        mount,
        sockets,
    };
    let left = Left {
        listeners: &legacy.inheritance.listeners,
        calls: &legacy.inheritance.notifications,
        descriptors: &mut legacy.descriptors,
    };
    let ready = |leftover: Inherited| {
        give_back(&leftover, &link);
        tracing::info!(%ve, unanswered = unanswered.len(), "taken over");
    };
    body.run(served, Some(left), ready).map_err(failed)
}

/// What nobody took up was deposited by a daemon that died before it could say for what.
fn give_back(leftover: &Inherited, link: &Link) {
    for number in leftover.numbers() {
        tracing::info!(number, "a descriptor that nobody needs is given back");
        link.withdraw(DepositNumber::new(number));
    }
}

/// Asks for everything that was read and not answered; false where the kernel cannot (before Linux 6.9). Only while no worker
/// reads requests: what one is at would be done twice.
fn sends_again(device: &OwnedFd) -> io::Result<bool> {
    if fault::is_kernel_old() {
        return Ok(false);
    }
    match fuse_dev::resend(device) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Notes which requests were under way when the last daemon died, and how it died.
fn note_deaths(config: &Config, shared: &Shared, inheritance: &Inheritance) {
    let ve = config.ve;
    let ending = shared.board().last_death().map(Ending::from_status);
    let planned = ending.is_none_or(|ending| ending == Ending::Exited(HAND_OVER));
    if inheritance.damaged > 0 {
        tracing::error!(%ve, records = inheritance.damaged, "saved records are damaged and left out");
    }
    for request in inheritance.cut_off.iter().filter(|_| !planned) {
        let death = ending.map_or(Death::Crash, kind_of);
        let Asked {
            unique,
            opcode,
            node,
            caller,
        } = request.asked;
        let deaths = shared.suspects().note(unique, death);
        tracing::warn!(
            %ve,
            unique,
            op = opcode::name(opcode),
            %node,
            uid = caller.uid,
            gid = caller.gid,
            pid = caller.pid,
            offset = request.offset,
            size = request.size,
            what = ?request.description,
            crashes = deaths.crashes,
            kills = deaths.kills,
            "under way when the daemon ended"
        );
    }
}

/// Who ended the daemon: SIGKILL and requests to end come from outside, anything else is the daemon's own fault.
fn kind_of(ending: Ending) -> Death {
    match ending {
        Ending::Killed(libc::SIGKILL | libc::SIGTERM | libc::SIGINT | libc::SIGHUP) => Death::Kill,
        _ => Death::Crash,
    }
}

fn refused(why: impl ToString) -> Failure {
    Failure::Refused(why.to_string())
}

fn failed(why: impl ToString) -> Failure {
    Failure::Failed(why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ended_the_daemon() {
        for (ending, death) in [
            (Ending::Killed(libc::SIGKILL), Death::Kill),
            (Ending::Killed(libc::SIGSEGV), Death::Crash),
            (Ending::Killed(libc::SIGABRT), Death::Crash),
            (Ending::Exited(101), Death::Crash),
            (Ending::Exited(1), Death::Crash),
        ] {
            assert_eq!(kind_of(ending), death, "{ending:?}");
            assert_eq!(Ending::from_status(ending.status()), ending);
        }
    }
}

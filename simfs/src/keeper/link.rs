//! The daemon's end of the socket to its keeper.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::order::{ANSWER, ORDER_MAX, Order, TEXT_MAX, read_answer};
use crate::sys::task::DeviceNumber;

/// The number of a descriptor in the keeper, and in every successor right after it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DepositNumber(u32);

impl DepositNumber {
    /// Wraps a number that a keeper gave out earlier.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The plain number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Where descriptors are kept that must outlive the daemon.
pub trait Depository: Send + Sync + std::fmt::Debug {
    /// Has a descriptor kept; the depositor keeps its own.
    ///
    /// # Errors
    /// `EMFILE` where the keeper holds as many as it may; `EPIPE` where it is gone.
    fn deposit(&self, fd: BorrowedFd<'_>) -> io::Result<DepositNumber>;

    /// Lets one go. The keeper closes it soon.
    fn withdraw(&self, number: DepositNumber);

    /// Accepts a connection on a deposited listening socket and keeps it: no death of a daemon closes it.
    ///
    /// # Errors
    /// `EAGAIN` where none waits. Any other: a keeper that cannot, or of a version that does not know how; the connection
    /// waits where it was.
    fn accept(&self, _socket: DepositNumber) -> io::Result<(DepositNumber, OwnedFd)> {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }
}

/// Keeps nothing: for file operations without a mount.
#[derive(Clone, Copy, Debug)]
pub struct NoDepository;

impl Depository for NoDepository {
    fn deposit(&self, _: BorrowedFd<'_>) -> io::Result<DepositNumber> {
        Err(io::Error::from_raw_os_error(libc::ENOTCONN))
    }

    fn withdraw(&self, _: DepositNumber) {}
}

/// The daemon's end.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    /// One order and its answer at a time; a leaf lock.
    turn: Mutex<()>,
}

impl Link {
    /// The daemon's end of a pair of packet sockets.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            turn: Mutex::default(),
        }
    }

    /// Makes the mount, and tells its device number.
    ///
    /// # Errors
    /// mount(2)'s own.
    pub fn mount(&self) -> io::Result<DeviceNumber> {
        self.ask(Order::Mount, None)
    }

    /// Takes the mount away; `lazy` also when it is in use.
    ///
    /// # Errors
    /// EBUSY where it is in use.
    pub fn unmount(&self, lazy: bool) -> io::Result<()> {
        let order = if lazy { Order::Detach } else { Order::Unmount };
        self.ask(order, None).map(drop)
    }

    /// Tells which deposit is the shared memory, for the keeper to see how requests get on.
    ///
    /// # Errors
    /// Where the keeper cannot use it.
    pub fn share(&self, number: DepositNumber) -> io::Result<()> {
        self.ask(Order::Share(number.0), None).map(drop)
    }

    /// Requests are served from now on: an end that nobody asked for is followed by a successor.
    ///
    /// # Errors
    /// `EPIPE` where the keeper is gone.
    pub fn ready(&self) -> io::Result<()> {
        let _turn = self.turn.lock();
        send(&self.socket, Order::Ready, None)
    }

    /// Has the keeper open the program that takes over when this one hands over. Which one that is, the administrator has
    /// told the keeper ([`super::upgrade_link`]): a daemon that a guest has got hold of must not choose.
    ///
    /// # Errors
    /// `ENOENT` where none was named, or it does not exist; `EACCES` where it is no program.
    pub fn upgrade(&self) -> io::Result<()> {
        self.ask(Order::Upgrade, None).map(drop)
    }

    /// This program cannot take over; a longer reason is cut.
    pub fn refuse(&self, reason: &str) {
        let end = (0..=TEXT_MAX.min(reason.len()))
            .rev()
            .find(|end| reason.is_char_boundary(*end));
        let reason = reason.get(..end.unwrap_or(0)).unwrap_or_default();
        let _turn = self.turn.lock();
        // Without a keeper there is nobody to be told.
        let _ = send(&self.socket, Order::Refuse(reason), None);
    }

    /// Whether the keeper is gone: nothing that it holds outlives this daemon then, and nobody follows it.
    pub fn is_cut(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        let at_once = Timespec::default();
        matches!(rustix::event::poll(&mut fds, Some(&at_once)), Ok(1..))
    }

    fn ask(&self, order: Order<'_>, fd: Option<BorrowedFd<'_>>) -> io::Result<(u32, u32)> {
        self.ask_for(order, fd).map(|(numbers, _)| numbers)
    }

    fn ask_for(
        &self,
        order: Order<'_>,
        fd: Option<BorrowedFd<'_>>,
    ) -> io::Result<((u32, u32), Option<OwnedFd>)> {
        let _turn = self.turn.lock();
        send(&self.socket, order, fd)?;
        let mut bytes = [0; ANSWER];
        let (length, given) = loop {
            match receive_packet(&self.socket, &mut bytes, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result?,
            }
        };
        if length == 0 {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let numbers = read_answer(bytes.get(..length).unwrap_or_default())?;
        Ok((numbers, given))
    }
}

impl Depository for Link {
    fn deposit(&self, fd: BorrowedFd<'_>) -> io::Result<DepositNumber> {
        let (number, _) = self.ask(Order::Deposit, Some(fd))?;
        Ok(DepositNumber(number))
    }

    fn withdraw(&self, number: DepositNumber) {
        let _turn = self.turn.lock();
        if let Err(error) = send(&self.socket, Order::Withdraw(number.0), None) {
            tracing::debug!(number = number.0, %error, "the keeper holds a descriptor too long");
        }
    }

    fn accept(&self, socket: DepositNumber) -> io::Result<(DepositNumber, OwnedFd)> {
        // Without room for a descriptor, the connection waits where it is.
        drop(self.socket.try_clone()?);
        let ((number, _), connection) = self.ask_for(Order::Accept(socket.0), None)?;
        let number = DepositNumber(number);
        match connection {
            Some(connection) => Ok((number, connection)),
            None => {
                self.withdraw(number);
                Err(io::Error::from_raw_os_error(libc::EMFILE))
            }
        }
    }
}

fn send(socket: &OwnedFd, order: Order<'_>, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut bytes = [0; ORDER_MAX];
    let length = order
        .encode(&mut bytes)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENAMETOOLONG))?;
    let order = bytes.get(..length).unwrap_or_default();
    send_packet(socket, order, fd, SendFlags::empty())
}

/// Sends one packet, with a descriptor.
pub(super) fn send_packet(
    socket: &OwnedFd,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
    flags: SendFlags,
) -> io::Result<()> {
    let packet = IoSlice::new(bytes);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    loop {
        let flags = flags | SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(socket.as_fd(), &[packet], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}

/// Receives one packet, and the first descriptor that comes along; no bytes at the end.
pub(super) fn receive_packet(
    socket: &OwnedFd,
    bytes: &mut [u8],
    flags: RecvFlags,
) -> rustix::io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut packet = [IoSliceMut::new(bytes)];
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(socket, &mut packet, &mut control, flags)?;
    let fd = control.drain().find_map(|item| match item {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((message.bytes, fd))
}

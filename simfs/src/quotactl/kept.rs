//! What outlives the daemon: its listeners, held by the keeper, and the calls that were received and not answered.
//!
//! A call that was received is answered by whoever comes next, or its caller waits for ever: the kernel does not offer it
//! twice. So it is received into memory that a successor reads, and stays there until it is noted. Serving it twice does no
//! harm, since setting a limit to the same value does none.
//!
//! A listener comes over a connection, which the keeper accepts and holds. What was sent is left there until the listener is
//! kept, and only then is the connection let go: a successor that finds one hears it again.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::fault;
use crate::keeper::{DepositNumber, Depository};
use crate::shared::{Deposited, Found, Place, Shared};
use crate::sys::seccomp::{Notification, NotifyFd};
use crate::sys::task::NamespaceId;

/// Where listeners and calls are kept.
#[derive(Clone, Debug)]
pub struct Kept {
    shared: Arc<Shared>,
    keeper: Arc<dyn Depository>,
}

/// A listener that is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptListener {
    number: DepositNumber,
    place: Place,
}

impl Kept {
    /// Keeps them in this memory, and with this keeper.
    pub fn new(shared: Arc<Shared>, keeper: Arc<dyn Depository>) -> Self {
        Self { shared, keeper }
    }

    /// Accepts a runtime's connection that outlives the daemon.
    ///
    /// # Errors
    /// Those of [`Depository::accept`]; `ENOTCONN` where nobody keeps the listening socket.
    pub(super) fn accept(&self) -> io::Result<(DepositNumber, OwnedFd)> {
        let socket = self.shared.board().deposit(Deposited::QuotactlSocket);
        let socket = socket.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTCONN))?;
        self.keeper.accept(DepositNumber::new(socket))
    }

    /// Lets a runtime's connection go.
    pub(super) fn close(&self, connection: DepositNumber) {
        self.keeper.withdraw(connection);
    }

    /// Keeps a listener.
    pub(super) fn listener(
        &self,
        fd: BorrowedFd<'_>,
        home: Option<NamespaceId>,
    ) -> io::Result<KeptListener> {
        let number = self.keeper.deposit(fd)?;
        let [_, _, listening, _] = fault::REGISTERING;
        fault::point(listening);
        let (dev, ino) = home.map_or((0, 0), NamespaceId::numbers);
        let id = u64::from(number.get()).saturating_add(1);
        match self.shared.listeners().insert(id, [dev, ino]) {
            Ok(place) => Ok(KeptListener { number, place }),
            Err(error) => {
                self.keeper.withdraw(number);
                Err(error)
            }
        }
    }

    /// Lets a listener go whose last process is gone.
    pub(super) fn forget(&self, listener: KeptListener) {
        self.shared.listeners().remove(listener.place);
        self.keeper.withdraw(listener.number);
    }

    /// Takes a listener's next call and keeps it until it is answered.
    ///
    /// # Errors
    /// As [`NotifyFd::receive`].
    pub(super) fn receive(
        &self,
        listener: KeptListener,
        notify: &NotifyFd,
    ) -> io::Result<(Notification, Option<Place>)> {
        let inbox = self.shared.inbox();
        let call = match notify.receive_into(inbox.open(listener.number().get())) {
            // A kernel that tells more than there is room for.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => notify.receive()?,
            received => received?,
        };
        fault::point(fault::RECEIVED);
        let place = self.call(listener, &call);
        inbox.clear();
        Ok((call, place))
    }

    /// The call that a predecessor had received and not noted, with the number of its listener.
    pub(super) fn unnoted(&self) -> Option<(DepositNumber, Notification)> {
        let inbox = self.shared.inbox();
        let (listener, content) = inbox.left()?;
        let call = Notification::read(content)?;
        Some((DepositNumber::new(listener), call))
    }

    /// What came in is noted.
    pub(super) fn empty_inbox(&self) {
        self.shared.inbox().clear();
    }

    /// Keeps a call until it is answered; `None` where there is no room: should the daemon die, its caller waits until the
    /// listener goes.
    pub(super) fn call(&self, listener: KeptListener, call: &Notification) -> Option<Place> {
        let words = to_words(listener.number, call);
        self.shared.notifications().insert(1, words).ok()
    }

    /// The call was answered.
    pub(super) fn answered(&self, place: Place) {
        self.shared.notifications().remove(place);
    }

    /// Reads a listener of a predecessor; `None` for one that means nothing, which is forgotten.
    pub(super) fn adopt_listener(
        &self,
        found: &Found<2>,
    ) -> Option<(KeptListener, Option<NamespaceId>)> {
        let [dev, ino] = found.payload;
        let number = found
            .id
            .checked_sub(1)
            .and_then(|id| u32::try_from(id).ok());
        let Some(number) = number else {
            self.shared.listeners().remove(found.place);
            return None;
        };
        let home = (dev, ino) != (0, 0);
        let kept = KeptListener {
            number: DepositNumber::new(number),
            place: found.place,
        };
        Some((kept, home.then(|| NamespaceId::new(dev, ino))))
    }
}

impl KeptListener {
    /// The keeper's number.
    pub(super) fn number(self) -> DepositNumber {
        self.number
    }
}

fn to_words(listener: DepositNumber, call: &Notification) -> [u64; 14] {
    let [a, b, c, d, e, f] = call.args;
    let number = u64::from(call.number.cast_unsigned()) | u64::from(call.arch) << 32;
    let listener = u64::from(listener.get());
    let (cookie, tid) = (call.cookie, u64::from(call.tid));
    [listener, cookie, tid, number, a, b, c, d, e, f, 0, 0, 0, 0]
}

/// Reads a call of a predecessor, and the number of its listener.
pub(super) fn from_words(words: &[u64; 14]) -> Option<(DepositNumber, Notification)> {
    let [listener, cookie, tid, number, a, b, c, d, e, f, ..] = *words;
    let low = u32::try_from(number & u64::from(u32::MAX)).ok()?;
    let call = Notification {
        cookie,
        tid: u32::try_from(tid).ok()?,
        number: low.cast_signed(),
        arch: u32::try_from(number >> 32).ok()?,
        args: [a, b, c, d, e, f],
    };
    Some((DepositNumber::new(u32::try_from(listener).ok()?), call))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_reads_as_it_was_written() {
        let call = Notification {
            cookie: u64::MAX,
            tid: 77,
            number: -1,
            arch: 0xc000_003e,
            args: [1, 2, 3, 4, 5, u64::MAX],
        };
        let listener = DepositNumber::new(9);
        assert_eq!(
            from_words(&to_words(listener, &call)),
            Some((listener, call))
        );
        assert_eq!(from_words(&[u64::MAX; 14]), None);
    }
}

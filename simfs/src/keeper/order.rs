//! What a daemon asks of its keeper, and how it travels: one packet an order, one an answer.
//!
//! ```text
//! order   kind (1 byte)  number (4)  text (up to TEXT_MAX)     with a deposit: its descriptor
//! answer  errno (4, 0: done)  two numbers (4 each): the mount's device, or the number of the deposit
//!         with a connection: its descriptor
//! ```
//! Both ends are of one host; byte order is its own. An upgrade may put programs of different versions at the two ends, so
//! kinds are never given another meaning.

use std::io;

/// Longest text of an order, in bytes.
pub(super) const TEXT_MAX: usize = 1024;
/// Longest order, in bytes.
pub(super) const ORDER_MAX: usize = 5 + TEXT_MAX;
/// Length of an answer, in bytes.
pub(super) const ANSWER: usize = 12;

/// What a daemon asks for, or tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order<'a> {
    /// Make the mount. Answered with its device number.
    Mount,
    /// Take it away, unless it is in use. Answered.
    Unmount,
    /// Take it out of the tree now; it ends when nobody uses it any more. Answered.
    Detach,
    /// Keep the descriptor that comes along. Answered with its number.
    Deposit,
    /// Close a deposit. Not answered.
    Withdraw(u32),
    /// Accept a connection on the listening socket that is this deposit, and keep it. Answered with its number, and with the
    /// connection; EAGAIN where none waits.
    Accept(u32),
    /// This deposit is the shared memory. Answered.
    Share(u32),
    /// Requests are served. Not answered.
    Ready,
    /// Start another program when the daemon hands over: the one that the host's administrator has named. Answered.
    Upgrade,
    /// This program cannot take over, for this reason. Not answered.
    Refuse(&'a str),
}

impl<'a> Order<'a> {
    /// Puts the order into a buffer; its length. `None` where the text is too long.
    pub(super) fn encode(self, into: &mut [u8; ORDER_MAX]) -> Option<usize> {
        let (kind, number, text): (u8, u32, &[u8]) = match self {
            Self::Mount => (b'M', 0, &[]),
            Self::Unmount => (b'U', 0, &[]),
            Self::Detach => (b'D', 0, &[]),
            Self::Deposit => (b'P', 0, &[]),
            Self::Withdraw(number) => (b'W', number, &[]),
            Self::Accept(number) => (b'A', number, &[]),
            Self::Share(number) => (b'S', number, &[]),
            Self::Ready => (b'R', 0, &[]),
            Self::Upgrade => (b'G', 0, &[]),
            Self::Refuse(reason) => (b'X', 0, reason.as_bytes()),
        };
        let header = [kind].into_iter().chain(number.to_ne_bytes());
        for (place, byte) in into.iter_mut().zip(header) {
            *place = byte;
        }
        let end = text.len().checked_add(5)?;
        into.get_mut(5..end)?.copy_from_slice(text);
        Some(end)
    }

    /// Reads an order. `None` for one that means nothing here.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (number, text) = rest.split_first_chunk()?;
        let number = u32::from_ne_bytes(*number);
        Some(match kind {
            b'M' => Self::Mount,
            b'U' => Self::Unmount,
            b'D' => Self::Detach,
            b'P' => Self::Deposit,
            b'W' => Self::Withdraw(number),
            b'A' => Self::Accept(number),
            b'S' => Self::Share(number),
            b'R' => Self::Ready,
            b'G' => Self::Upgrade,
            b'X' => Self::Refuse(std::str::from_utf8(text).ok()?),
            _ => return None,
        })
    }
}

/// Puts an answer into its bytes.
pub(super) fn answer(result: io::Result<(u32, u32)>) -> [u8; ANSWER] {
    let (errno, (one, two)) = match result {
        Ok(numbers) => (0, numbers),
        Err(error) => (error.raw_os_error().unwrap_or(libc::EIO), (0, 0)),
    };
    let mut bytes = [0; ANSWER];
    let parts = [errno.to_ne_bytes(), one.to_ne_bytes(), two.to_ne_bytes()];
    for (place, byte) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
        *place = byte;
    }
    bytes
}

/// Reads an answer.
pub(super) fn read_answer(bytes: &[u8]) -> io::Result<(u32, u32)> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let (errno, rest) = bytes.split_first_chunk().ok_or_else(malformed)?;
    let (one, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
    let (two, _) = rest.split_first_chunk().ok_or_else(malformed)?;
    match i32::from_ne_bytes(*errno) {
        0 => Ok((u32::from_ne_bytes(*one), u32::from_ne_bytes(*two))),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_as_they_were_sent() {
        let orders = [
            Order::Mount,
            Order::Unmount,
            Order::Detach,
            Order::Deposit,
            Order::Withdraw(77),
            Order::Accept(5),
            Order::Share(u32::MAX),
            Order::Ready,
            Order::Upgrade,
            Order::Refuse("the saved state is of version 9"),
        ];
        let mut bytes = [0; ORDER_MAX];
        for order in orders {
            let length = order.encode(&mut bytes).unwrap();
            assert_eq!(Order::decode(&bytes[..length]), Some(order));
        }
        let long = "x".repeat(TEXT_MAX + 1);
        assert_eq!(Order::Refuse(&long).encode(&mut bytes), None);
        for cut in [&b""[..], b"M", b"W123", b"?1234"] {
            assert_eq!(Order::decode(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn an_answer_is_numbers_or_the_kernels_error() {
        assert_eq!(read_answer(&answer(Ok((3, 9)))).unwrap(), (3, 9));
        let busy = io::Error::from_raw_os_error(libc::EBUSY);
        let read = read_answer(&answer(Err(busy))).unwrap_err();
        assert_eq!(read.raw_os_error(), Some(libc::EBUSY));
        assert!(read_answer(&[0; 7]).is_err());
    }
}

//! The first request of a connection, and how a successor goes through it without the kernel.
//!
//! The kernel sends INIT once per connection; the protocol library insists on one per session. So a session always begins
//! on one end of a socket pair: the first daemon passes the kernel's request and the library's reply on and keeps both; a
//! successor plays the kept request, less what was not agreed on then, and compares the reply with the kept one. After that
//! the device is put in the place of the socket.
//!
//! # Source
//! Linux `include/uapi/linux/fuse.h`, `struct fuse_init_in` and `fuse_init_out`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use fuser::{Config, Session, SessionACL};

use super::Adapter;
use crate::sys::fuse_dev;

/// The least that the kernel wants to be read into (`FUSE_MIN_READ_BUFFER`), in bytes.
const READ_MIN: usize = 8192;
/// Longest INIT request and reply that are kept, in bytes.
pub const LENGTH_MAX: usize = 128;

/// Places in a request: behind its header of 40 bytes.
mod request {
    pub(super) const OPCODE: usize = 4;
    pub(super) const MAJOR: usize = 40;
    pub(super) const READAHEAD: usize = 48;
    pub(super) const FLAGS: usize = 52;
    pub(super) const FLAGS2: usize = 56;
}

/// Places in a reply: behind its header of 16 bytes.
mod reply {
    pub(super) const READAHEAD: usize = 24;
    pub(super) const FLAGS: usize = 28;
    pub(super) const LARGEST_WRITE: usize = 36;
    /// Of 16 bits; behind it a number that is the kernel's own.
    pub(super) const PAGES: usize = 44;
    pub(super) const FLAGS2: usize = 48;
    /// What a request of the kernel may look like follows from these; the rest is the kernel's own business.
    pub(super) const AGREED: [(usize, &str); 7] = [
        (16, "protocol version"),
        (28, "capabilities"),
        (LARGEST_WRITE, "largest write"),
        (40, "granularity of times"),
        (PAGES, "largest number of pages"),
        (48, "more capabilities"),
        (52, "stacking depth"),
    ];
}

const INIT: u32 = 26;
const MAJOR: u32 = 7;

/// What the kernel asked and what was answered, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The kernel's request.
    pub request: Vec<u8>,
    /// The reply that it got.
    pub reply: Vec<u8>,
}

impl Handshake {
    /// The largest write that was agreed on, in bytes.
    pub(super) fn largest_write(&self) -> Option<u32> {
        number(&self.reply, reply::LARGEST_WRITE)
    }
}

/// Begins a session on a connection that has none yet.
pub(super) fn first(
    device: &OwnedFd,
    adapter: Adapter,
    config: Config,
) -> io::Result<(Session<Adapter>, Handshake)> {
    let mut buffer = vec![0; READ_MIN];
    let length = loop {
        match rustix::io::read(device, &mut buffer) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN | rustix::io::Errno::NOENT) => {}
            result => break result?,
        }
    };
    buffer.truncate(length);
    let (session, mut reply) = play(&buffer, device, adapter, config)?;
    one_page_more(&mut reply);
    rustix::io::write(device, &reply)?;
    let request = buffer;
    Ok((session, Handshake { request, reply }))
}

/// Begins a session on a connection that had one, with the same outcome or none.
pub(super) fn again(
    kept: &Handshake,
    device: &OwnedFd,
    adapter: Adapter,
    config: Config,
) -> io::Result<Session<Adapter>> {
    let offer = offer(kept).ok_or_else(|| refused("the saved handshake is cut off"))?;
    let (session, mut reply) = play(&offer, device, adapter, config)?;
    // A predecessor may be of a build that left the number of pages as it was.
    if number(&reply, reply::PAGES) != number(&kept.reply, reply::PAGES) {
        one_page_more(&mut reply);
    }
    match difference(&kept.reply, &reply) {
        None => Ok(session),
        Some(what) => Err(refused(&format!(
            "this program would agree with the kernel on another {what} than the mount was made with: \
             unmount and mount again to use it"
        ))),
    }
}

/// Has the library answer a request on a socket, then gives it the device.
fn play(
    request: &[u8],
    device: &OwnedFd,
    adapter: Adapter,
    config: Config,
) -> io::Result<(Session<Adapter>, Vec<u8>)> {
    let is_init = number(request, request::OPCODE) == Some(INIT)
        && number(request, request::MAJOR) == Some(MAJOR);
    if !is_init || request.len() > LENGTH_MAX {
        return Err(refused("the kernel began with something else than INIT 7"));
    }
    let (ours, theirs) = crate::keeper::packet_pair()?;
    rustix::io::write(&ours, request)?;
    let session = Session::from_fd(adapter, theirs, SessionACL::All, config)?;
    let mut reply = vec![0; LENGTH_MAX];
    let length = rustix::io::read(&ours, &mut reply)?;
    reply.truncate(length);
    fuse_dev::put_in_place(device, session.as_fd())?;
    Ok((session, reply))
}

/// The kept request, offering what was agreed on and nothing else.
fn offer(kept: &Handshake) -> Option<Vec<u8>> {
    let mut offer = kept.request.clone();
    for (asked, agreed) in [
        (request::FLAGS, reply::FLAGS),
        (request::FLAGS2, reply::FLAGS2),
    ] {
        let both = number(&offer, asked)? & number(&kept.reply, agreed)?;
        put(&mut offer, asked, both)?;
    }
    let readahead = number(&kept.reply, reply::READAHEAD)?;
    put(&mut offer, request::READAHEAD, readahead)?;
    Some(offer)
}

/// Allows requests one page more than the library asks for.
fn one_page_more(reply: &mut [u8]) {
    let pages = reply
        .get_mut(reply::PAGES..)
        .and_then(<[u8]>::first_chunk_mut);
    if let Some(pages) = pages {
        *pages = u16::from_ne_bytes(*pages).saturating_add(1).to_ne_bytes();
    }
}

/// The first thing in which two replies differ that matters.
fn difference(before: &[u8], now: &[u8]) -> Option<&'static str> {
    let differs =
        |(at, _): &&(usize, _)| number(before, *at).is_none_or(|old| number(now, *at) != Some(old));
    reply::AGREED.iter().find(differs).map(|(_, what)| *what)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn put(bytes: &mut [u8], at: usize, value: u32) -> Option<()> {
    let place = bytes.get_mut(at..)?.first_chunk_mut()?;
    *place = value.to_ne_bytes();
    Some(())
}

fn refused(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::session::{self, Service};
    use super::super::{MAX_REQUEST, Negotiation};
    use super::*;
    use crate::fs::testbed::Bed;

    fn handshake() -> Handshake {
        let mut request = vec![0; 104];
        put(&mut request, request::FLAGS, 0b1111).unwrap();
        put(&mut request, request::FLAGS2, 0b11).unwrap();
        put(&mut request, request::READAHEAD, 4096).unwrap();
        let mut reply = vec![0; 80];
        put(&mut reply, reply::FLAGS, 0b0101).unwrap();
        put(&mut reply, reply::READAHEAD, 1024).unwrap();
        Handshake { request, reply }
    }

    #[test]
    fn only_what_was_agreed_on_is_offered_again() {
        let offer = offer(&handshake()).unwrap();
        assert_eq!(number(&offer, request::FLAGS), Some(0b0101));
        assert_eq!(number(&offer, request::FLAGS2), Some(0));
        assert_eq!(number(&offer, request::READAHEAD), Some(1024));
    }

    #[test]
    fn another_agreement_is_seen_and_named() {
        let kept = handshake().reply;
        assert_eq!(difference(&kept, &kept), None);
        for (at, what) in reply::AGREED {
            let mut other = kept.clone();
            put(&mut other, at, 99).unwrap();
            assert_eq!(difference(&kept, &other), Some(what));
        }
        let mut readahead = kept.clone();
        put(&mut readahead, reply::READAHEAD, 99).unwrap();
        assert_eq!(difference(&kept, &readahead), None, "the kernel's business");
        assert!(difference(&kept, &kept[..30]).is_some());
        assert!(difference(&[], &[]).is_some());
    }

    /// As Linux begins, with everything on offer.
    fn init() -> Vec<u8> {
        let mut request = vec![0; 104];
        for (at, value) in [
            (0, 104),
            (request::OPCODE, INIT),
            (request::MAJOR, MAJOR),
            (request::MAJOR + 4, 41),
            (request::READAHEAD, 128 << 10),
            (request::FLAGS, u32::MAX),
            (request::FLAGS2, u32::MAX),
        ] {
            put(&mut request, at, value).unwrap();
        }
        request
    }

    fn adapter(bed: &Bed, kept: Option<&Handshake>) -> (Adapter, Config) {
        let service = Service {
            fs: bed.fs.clone(),
            shared: bed.fs.shared().clone(),
            gate: Arc::default(),
            negotiation: Negotiation {
                passthrough: true,
                own_ids: false,
            },
            workers: 1,
        };
        session::prepare(&null(), service, kept).unwrap()
    }

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    /// S76: another build may ask for another size; it takes what the mount was made with, as far as it can.
    #[test]
    fn a_successor_takes_the_size_of_requests_that_was_agreed_on() {
        let bed = Bed::new();
        let mut kept = Handshake {
            request: init(),
            reply: Vec::new(),
        };
        let (first, config) = adapter(&bed, None);
        kept.reply = play(&kept.request, &null(), first, config).unwrap().1;
        assert_eq!(kept.largest_write(), Some(MAX_REQUEST));
        for (size, is_taken) in [
            (MAX_REQUEST, true),
            (MAX_REQUEST / 2, true),
            (128 << 10, true),
            (MAX_REQUEST * 2, false),
        ] {
            put(&mut kept.reply, reply::LARGEST_WRITE, size).unwrap();
            set_pages(&mut kept.reply, size / 4096);
            let (next, config) = adapter(&bed, Some(&kept));
            let taken = again(&kept, &null(), next, config);
            assert_eq!(taken.is_ok(), is_taken, "{size}: {taken:?}");
            let said = taken.err().map(|error| error.to_string());
            assert!(said.is_none_or(|said| said.contains("another largest write")));
        }
    }

    fn set_pages(reply: &mut [u8], pages: u32) {
        let place = reply.get_mut(reply::PAGES..reply::PAGES + 2).unwrap();
        place.copy_from_slice(&u16::try_from(pages).unwrap().to_ne_bytes());
    }

    /// The largest write from memory that begins within a page is one request. S76: mounts of builds that asked for less
    /// are taken over as they are.
    #[test]
    fn a_request_has_room_for_a_write_that_begins_within_a_page() {
        let bed = Bed::new();
        let (kernel, device) = crate::keeper::packet_pair().unwrap();
        rustix::io::write(&kernel, &init()).unwrap();
        let (new, config) = adapter(&bed, None);
        let (_session, mut kept) = first(&device, new, config).unwrap();
        let mut told = vec![0; LENGTH_MAX];
        let length = rustix::io::read(&kernel, &mut told).unwrap();
        assert_eq!(told.get(..length), Some(&*kept.reply));
        assert_eq!(
            number(&kept.reply, reply::PAGES),
            Some(MAX_REQUEST / 4096 + 1)
        );
        for (more, is_taken) in [(0, true), (1, true), (2, false)] {
            set_pages(&mut kept.reply, MAX_REQUEST / 4096 + more);
            let (next, config) = adapter(&bed, Some(&kept));
            let taken = again(&kept, &null(), next, config);
            assert_eq!(taken.is_ok(), is_taken, "{more}: {taken:?}");
        }
    }

    #[test]
    fn a_cut_off_handshake_is_refused() {
        let Handshake { request, reply } = handshake();
        for (request, reply) in [(&request[..50], &reply[..]), (&request[..], &reply[..20])] {
            let kept = Handshake {
                request: request.to_vec(),
                reply: reply.to_vec(),
            };
            assert_eq!(offer(&kept), None);
        }
    }
}

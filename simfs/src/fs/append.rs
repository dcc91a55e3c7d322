//! Append-only files (chattr +a): opened for appending only, here as well, so that nobody writes elsewhere whatever he asks for.
//!
//! The kernel says where a write goes, and the descriptor puts it at the end; both must be the same place. They differ
//!
//! - for a write that is sent again: what is behind its place is what the dead daemon had written of it, since the kernel
//!   holds the inode locked until the answer; only the rest is written;
//! - for one that is not an append at all (O_APPEND was taken away by fcntl(2), which the kernel allows on a mount, or a
//!   store through a mapping is written out): EPERM.
//!
//! A mapping that the kernel makes of the backing file itself could not be kept from storing, so such files are read through
//! the daemon.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Fs;
use super::write::WriteRequest;
use crate::accounting::Caller;
use crate::error::{FsError, FsResult};
use crate::node::Node;
use crate::open::{Access, IoMode};
use crate::sys::stat::{Stat, stat_fd};

impl Fs {
    /// Writes at the end: all of it or the part that fits.
    pub(super) fn append(
        &self,
        caller: Caller,
        node: &Arc<Node>,
        fd: &OwnedFd,
        request: WriteRequest<'_>,
    ) -> FsResult<usize> {
        if request.from_cache {
            return Err(FsError::NotPermitted);
        }
        let mut state = node.state();
        let end = stat_fd(fd.as_fd())?.size;
        let done = end.checked_sub(request.offset);
        let done = done.filter(|&done| done == 0 || request.is_repeated);
        let rest = done
            .and_then(|done| usize::try_from(done).ok())
            .and_then(|done| Some((done, request.data.get(done..)?)));
        let Some((done, rest)) = rest else {
            self.forget_attributes(node.id());
            return Err(FsError::NotPermitted);
        };
        if done > 0 && rest.is_empty() {
            return Ok(done);
        }
        let request = WriteRequest {
            offset: end,
            data: rest,
            ..request
        };
        match self.write_growing(caller, node, &mut state, fd, request) {
            Ok(more) => Ok(done + more),
            Err(_) if done > 0 && !request.whole => Ok(done),
            Err(error) => Err(error),
        }
    }
}

/// What the daemon's own descriptor needs to open this file for what these flags say.
pub(super) fn append_flag(flags: i32, seen: &Stat) -> i32 {
    if Access::from_flags(flags).writes() && seen.is_append_only() {
        flags & libc::O_APPEND
    } else {
        0
    }
}

/// Whether the kernel may read this file by itself.
///
/// # Errors
/// EPERM where it does already, and a mapping could store.
pub(super) fn may_pass_through(
    present: Option<IoMode>,
    access: Access,
    seen: &Stat,
) -> FsResult<bool> {
    match (present, access) {
        _ if !seen.is_append_only() => Ok(true),
        (Some(IoMode::Passthrough), Access::ReadWrite) => Err(FsError::NotPermitted),
        (Some(IoMode::Passthrough), _) => Ok(true),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::{File, OpenOptions};
    use std::io::Write;

    use super::super::data::Opened;
    use super::super::spare::tests::Flagged;
    use super::super::testbed::{Bed, ROOT, at, write_at};
    use super::*;
    use crate::handle::HandleId;

    const APPEND_ONLY: u32 = 0x20;

    fn bed() -> (Flagged, Bed) {
        let bed = Bed::new();
        let path = bed.dir.path().join("log");
        std::fs::write(&path, "start ").unwrap();
        (Flagged::set(File::open(path).unwrap(), APPEND_ONLY), bed)
    }

    fn open(bed: &mut Bed, flags: i32) -> FsResult<(HandleId, Opened)> {
        let token = bed.register();
        bed.ask(|fs, call| {
            let id = fs.lookup(call, at("log")).unwrap().node.id();
            fs.open(call, id, flags, &mut |_| Ok(token.clone()))
        })
    }

    fn content(bed: &Bed) -> String {
        std::fs::read_to_string(bed.dir.path().join("log")).unwrap()
    }

    fn is_refused<T>(result: FsResult<T>) -> bool {
        let error = result.map(drop).unwrap_err();
        let is_permission = |error: &std::io::Error| error.raw_os_error() == Some(libc::EPERM);
        matches!(&error, FsError::NotPermitted)
            || matches!(&error, FsError::System(error) if is_permission(error))
    }

    // S81
    #[test]
    fn nothing_but_its_end_can_be_written() {
        let (_flag, mut bed) = bed();
        for flags in [
            libc::O_WRONLY,
            libc::O_RDWR,
            libc::O_WRONLY | libc::O_APPEND | libc::O_TRUNC,
        ] {
            assert!(is_refused(open(&mut bed, flags)), "{flags:o}");
        }
        for access in [libc::O_WRONLY, libc::O_RDWR] {
            let (handle, _) = open(&mut bed, access | libc::O_APPEND).unwrap();
            let end = content(&bed).len() as u64;
            for offset in [0, end - 1, end + 1] {
                let written = bed.fs.write(ROOT, handle, write_at(offset, b"x"));
                assert!(is_refused(written), "{offset}");
            }
            let mapped = WriteRequest {
                from_cache: true,
                ..write_at(end, b"x")
            };
            assert!(is_refused(bed.fs.write(ROOT, handle, mapped)));
            let before = content(&bed);
            bed.fs.write(ROOT, handle, write_at(end, b"more ")).unwrap();
            assert_eq!(content(&bed), before + "more ");
            bed.die();
            let refused = bed.fs.write(ROOT, handle, write_at(0, b"x"));
            assert!(is_refused(refused), "by a successor too");
            bed.fs
                .write(ROOT, handle, write_at(end + 5, b"on "))
                .unwrap();
            bed.fs.release(handle).unwrap();
        }
        assert_eq!(content(&bed), "start more on more on ");
        let (charged, there) = bed.usage();
        assert_eq!(charged, there);
    }

    /// The daemon dies after it has appended some, all or nothing, and the write is sent again.
    // S73
    #[test]
    fn what_a_dead_daemon_appended_is_not_appended_again() {
        for done in ["", "li", "line"] {
            let (_flag, mut bed) = bed();
            let (handle, _) = open(&mut bed, libc::O_WRONLY | libc::O_APPEND).unwrap();
            let path = bed.dir.path().join("log");
            let tries = Cell::new(0);
            let (_, second) = bed.ask_twice(|fs, call| {
                tries.set(tries.get() + 1);
                if tries.get() == 1 {
                    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                    file.write_all(done.as_bytes()).unwrap();
                    return Ok(0);
                }
                let request = WriteRequest {
                    is_repeated: call.flight.earlier().is_some(),
                    ..write_at(6, b"line")
                };
                fs.write(ROOT, handle, request)
            });
            assert_eq!(second.unwrap(), 4);
            assert_eq!(content(&bed), "start line", "{done:?} was there");
            let beyond = WriteRequest {
                is_repeated: true,
                ..write_at(5, b"line")
            };
            assert!(is_refused(bed.fs.write(ROOT, handle, beyond)));
            bed.fs.release(handle).unwrap();
        }
    }

    /// The kernel's own mapping of the backing file would let anybody store.
    #[test]
    fn it_is_never_mapped_for_writing_behind_the_daemon() {
        let (_flag, mut bed) = bed();
        let (reader, opened) = open(&mut bed, libc::O_RDONLY).unwrap();
        assert!(opened.backing.is_none());
        let (both, opened) = open(&mut bed, libc::O_RDWR | libc::O_APPEND).unwrap();
        assert!(opened.backing.is_none());
        let mut buffer = [0; 16];
        assert_eq!(bed.fs.read(both, 0, &mut buffer).unwrap(), 6);
        bed.fs.release(reader).unwrap();
        bed.fs.release(both).unwrap();
    }

    #[test]
    fn one_that_was_open_before_the_flag_keeps_its_way() {
        let bed = Bed::new();
        let path = bed.dir.path().join("log");
        std::fs::write(&path, "start ").unwrap();
        let mut bed = bed;
        let (reader, opened) = open(&mut bed, libc::O_RDONLY).unwrap();
        assert!(opened.backing.is_some());
        let _flag = Flagged::set(File::open(path).unwrap(), APPEND_ONLY);
        assert!(is_refused(open(&mut bed, libc::O_RDWR | libc::O_APPEND)));
        let (writer, opened) = open(&mut bed, libc::O_WRONLY | libc::O_APPEND).unwrap();
        assert!(opened.backing.is_some() && opened.direct);
        bed.fs.write(ROOT, writer, write_at(6, b"more")).unwrap();
        assert_eq!(content(&bed), "start more");
        bed.fs.release(writer).unwrap();
        bed.fs.release(reader).unwrap();
    }
}

//! A file system of one file, whose text is made anew each time it is read from its start, as /proc does it.
//!
//! The root of the mount is the file itself: there is no name to look up, nothing to make and nothing to write, and
//! the mount is read only. It lasts as long as a mount of it is attached anywhere; [`TextFile::serve`] ends with the
//! last one, so a VE that ends takes it along.
//!
//! Bounds: one request at a time, `HANDLES` open files, and one text for each.
//! Locks: the texts, a leaf.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fuser::{
    Config, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, INodeNo, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyOpen, Request, Session, SessionACL,
};
use parking_lot::Mutex;
use rustix::mount::{MountFlags, UnmountFlags};

use super::convert;
use crate::sys::stat::FileKind;
use crate::sys::{fuse_dev, mount};

/// Most files that are open at a time; the next open is refused with ENFILE.
const HANDLES: usize = 1024;
/// Who owns the file never changes.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Makes the text.
type Make = Box<dyn Fn() -> String + Send + Sync>;

/// A text file that is mounted.
#[derive(Debug)]
pub struct TextFile {
    session: Session<Text>,
}

/// How the file looks.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// What the mount table shows as source, and after `fuse.` as type.
    pub name: &'a str,
    /// Owner and group; nobody else may read it.
    pub owner: (u32, u32),
}

struct Text {
    owner: (u32, u32),
    make: Make,
    /// What each open file was last read from.
    texts: Mutex<HashMap<u64, Arc<str>>>,
    next: AtomicU64,
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text").field("owner", &self.owner).finish()
    }
}

impl TextFile {
    /// Mounts the file over an existing one.
    ///
    /// # Errors
    /// Those of opening /dev/fuse and of mount(2); nothing is mounted then.
    pub fn mount(
        at: &Path,
        look: Look<'_>,
        make: impl Fn() -> String + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let device = fuse_dev::open_device(Path::new("/dev/fuse"))?;
        let options = CString::new(format!(
            "fd={},rootmode=100400,user_id=0,group_id=0,allow_other,default_permissions",
            device.as_raw_fd()
        ))?;
        let flags =
            MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        let kind = format!("fuse.{}", look.name);
        mount::mount(Path::new(look.name), at, &kind, flags, &options)?;
        let text = Text {
            owner: look.owner,
            make: Box::new(make),
            texts: Mutex::default(),
            next: AtomicU64::new(1),
        };
        let session = Session::from_fd(text, device, SessionACL::All, Config::default());
        match session {
            Ok(session) => Ok(Self { session }),
            Err(error) => {
                let _ = mount::unmount(at, UnmountFlags::DETACH);
                Err(error)
            }
        }
    }

    /// Serves it until it is mounted nowhere.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn serve(self) -> io::Result<()> {
        self.session.run()
    }
}

impl Text {
    fn attributes(&self) -> FileAttr {
        FileAttr {
            perm: 0o400,
            nlink: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            blksize: 4096,
            ..convert::listed(INodeNo::ROOT.0, FileKind::File)
        }
    }

    /// The text of an open file; made anew where reading begins.
    fn text(&self, handle: u64, offset: u64) -> Option<Arc<str>> {
        if offset > 0 {
            return self.texts.lock().get(&handle).cloned();
        }
        let text: Arc<str> = (self.make)().into();
        let mut texts = self.texts.lock();
        // Only what was opened has a place.
        texts.get_mut(&handle).map(|place| {
            *place = text.clone();
            text
        })
    }
}

impl Filesystem for Text {
    fn init(&mut self, _: &Request, _: &mut KernelConfig) -> io::Result<()> {
        Ok(())
    }

    fn getattr(&self, _: &Request, _: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes());
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut texts = self.texts.lock();
        if texts.len() >= HANDLES {
            return reply.error(Errno::ENFILE);
        }
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        texts.insert(handle, "".into());
        // The size is not known before, so the kernel must not rely on it.
        reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(text) = self.text(handle.0, offset) else {
            return reply.error(Errno::EBADF);
        };
        reply.data(part(text.as_bytes(), offset, size));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Said once: from then on the kernel closes without asking.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.texts.lock().remove(&handle.0);
        reply.ok();
    }
}

/// What a read of `size` bytes at `offset` gets.
fn part(text: &[u8], offset: u64, size: u32) -> &[u8] {
    let index = |number: u64| {
        usize::try_from(number)
            .unwrap_or(usize::MAX)
            .min(text.len())
    };
    let (start, end) = (index(offset), index(offset.saturating_add(u64::from(size))));
    text.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn a_read_gets_what_is_there() {
        let rows: [(u64, u32, &[u8]); 6] = [
            (0, 3, b"abc"),
            (0, 100, b"abcdef"),
            (4, 2, b"ef"),
            (6, 1, b""),
            (u64::MAX, u32::MAX, b""),
            (0, 0, b""),
        ];
        for (offset, size, expected) in rows {
            assert_eq!(part(b"abcdef", offset, size), expected, "{offset} {size}");
        }
    }

    #[test]
    fn each_reading_is_made_anew_and_hangs_together() {
        // In a mount namespace of its own: nothing is left on the host, also after a failure.
        let alone = std::thread::spawn(|| {
            mount::unshare_mounts().unwrap();
            mount::make_private(std::path::Path::new("/")).unwrap();
            mount_read_and_unmount();
        });
        alone.join().unwrap();
    }

    fn mount_read_and_unmount() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("text");
        std::fs::write(&place, "covered").unwrap();
        let count = AtomicU64::new(0);
        // Longer than one read: the parts of one reading are of one text.
        let make = move || format!("{}\n", count.fetch_add(1, Ordering::Relaxed)).repeat(50_000);
        let look = Look {
            name: "text-test",
            owner: (0, 0),
        };
        let file = TextFile::mount(&place, look, make).unwrap();
        let server = std::thread::spawn(|| file.serve());
        assert_eq!(
            std::fs::read_to_string(&place).unwrap(),
            "0\n".repeat(50_000)
        );
        let mut open = std::fs::File::open(&place).unwrap();
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "1\n".repeat(50_000));
        open.rewind().unwrap();
        text.clear();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "2\n".repeat(50_000));
        assert!(std::fs::write(&place, "x").is_err());
        // Taken from the tree, it lasts until its last user goes.
        mount::unmount(&place, UnmountFlags::DETACH).unwrap();
        assert!(!server.is_finished());
        drop(open);
        server.join().unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "covered");
    }
}

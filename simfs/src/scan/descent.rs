//! The way down and up again, with a bounded number of descriptors. No locks.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use super::look::{Found, find, is_vanished};
use super::{Detail, OPEN_MAX, ScanError};
use crate::private::PrivateArea;
use crate::sys::dirent::DirStream;
use crate::sys::file;
use crate::sys::handle::KernelHandle;
use crate::sys::stat::{self, Stat};

/// A directory on the way from the root to where the walk is.
struct Level {
    ino: u64,
    dev: u64,
    place: Place,
}

/// Where the walk is in a directory.
enum Place {
    /// Open, at the stream's position.
    Open(DirStream),
    /// Closed to save descriptors; to be gone on with at this position.
    Closed {
        position: u64,
        handle: Option<KernelHandle>,
    },
    /// Removed while it was closed: so it was empty, and there is nothing more to count.
    Gone,
}

impl Level {
    fn new(fd: OwnedFd, stat: &Stat) -> Self {
        Self {
            ino: stat.ino,
            dev: stat.dev,
            place: Place::Open(DirStream::new(fd)),
        }
    }
}

/// What comes next.
enum Step {
    Down(Found),
    Stay(Found),
    Skip,
    Up,
}

/// A walk under way.
pub(super) struct Descent<'a, V> {
    area: &'a PrivateArea,
    detail: Detail,
    visit: V,
    /// Inodes with several names that were visited.
    linked: HashSet<(u64, u64)>,
    levels: Vec<Level>,
}

impl<'a, V: FnMut(&Stat, Option<&KernelHandle>) -> ControlFlow<()>> Descent<'a, V> {
    /// A walk that starts in this directory, which has been visited itself.
    pub(super) fn new(
        area: &'a PrivateArea,
        detail: Detail,
        visit: V,
        (fd, stat): (OwnedFd, &Stat),
    ) -> Self {
        Self {
            area,
            detail,
            visit,
            linked: HashSet::new(),
            levels: vec![Level::new(fd, stat)],
        }
    }

    /// Visits everything below.
    pub(super) fn run(&mut self) -> Result<(), ScanError> {
        while let Some(level) = self.levels.last_mut() {
            let directory = level.ino;
            let failed = |source| ScanError::Io { directory, source };
            let found = match next_step(self.area, self.detail, level).map_err(failed)? {
                Step::Skip => continue,
                Step::Up => {
                    self.go_up()?;
                    continue;
                }
                Step::Stay(found) => {
                    let is_new = found.stat.nlink < 2
                        || self.linked.insert((found.stat.dev, found.stat.ino));
                    if !is_new {
                        continue;
                    }
                    found
                }
                Step::Down(found) => found,
            };
            if (self.visit)(&found.stat, found.handle.as_ref()).is_break() {
                return Ok(());
            }
            if let Some(fd) = found.directory {
                self.levels.push(Level::new(fd, &found.stat));
                self.close_far_level().map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Closes the directory that has become one too many.
    fn close_far_level(&mut self) -> io::Result<()> {
        let Some(far) = self.levels.len().checked_sub(OPEN_MAX + 1) else {
            return Ok(());
        };
        if let Some(level) = self.levels.get_mut(far)
            && let Place::Open(stream) = &level.place
        {
            let handle = self.area.identify(stream.fd())?;
            level.place = Place::Closed {
                position: stream.position(),
                handle,
            };
        }
        Ok(())
    }

    /// Leaves a directory that is done, and goes on in the one above.
    fn go_up(&mut self) -> Result<(), ScanError> {
        let child = self.levels.pop();
        let Some(parent) = self.levels.last_mut() else {
            return Ok(());
        };
        let Place::Closed { position, handle } = &parent.place else {
            return Ok(());
        };
        let directory = parent.ino;
        let failed = |source| ScanError::Io { directory, source };
        let opened = match (handle, child.map(|level| level.place)) {
            (Some(handle), _) => self
                .area
                .open_handle(handle, libc::O_RDONLY | libc::O_DIRECTORY),
            (None, Some(Place::Open(child))) => file::open_parent(child.fd()),
            (None, _) => return Err(ScanError::Moved { directory }),
        };
        let fd = match opened {
            Err(error) if is_vanished(&error) => {
                parent.place = Place::Gone;
                return Ok(());
            }
            opened => opened.map_err(failed)?,
        };
        let stat = stat::stat_fd(&fd).map_err(failed)?;
        if (stat.dev, stat.ino) != (parent.dev, parent.ino) {
            return Err(ScanError::Moved { directory });
        }
        let mut stream = DirStream::new(fd);
        stream.seek(*position).map_err(failed)?;
        parent.place = Place::Open(stream);
        Ok(())
    }
}

/// Looks at the next entry of a directory.
fn next_step(area: &PrivateArea, detail: Detail, level: &mut Level) -> io::Result<Step> {
    let Place::Open(stream) = &mut level.place else {
        return Ok(Step::Up);
    };
    // The entry borrows the stream, whose descriptor is needed beside it.
    let (fd, entry) = match stream.next_with_fd() {
        Ok(Some(next)) => next,
        Ok(None) => return Ok(Step::Up),
        Err(error) if is_vanished(&error) => return Ok(Step::Up),
        Err(error) => return Err(error),
    };
    if entry.is_dots() {
        return Ok(Step::Skip);
    }
    Ok(match find(area, detail, fd, &entry)? {
        None => Step::Skip,
        Some(found) if found.directory.is_some() => Step::Down(found),
        Some(found) => Step::Stay(found),
    })
}

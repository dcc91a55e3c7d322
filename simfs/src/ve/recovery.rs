//! Taking a VE into service after whatever end its last mount had, and out of it.
//!
//! The journal of a mount is the file `journal.NUMBER` in the run directory. The store names the number, so a journal counts
//! from the commit on that names it, and no longer than to the next one that names another. Where the totals miss
//! something and no journal says what, the VE goes into service all the same, and is counted while it runs.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use quota::inode::{Charged, InodeId};
use quota::journal::{Identity, Image, Journal};
use quota::recovery::{Look, missed};
use quota::{Change, Engine, EngineError, Epoch, FileJournal, NoJournal, Standing};

use super::Config;
use crate::accounting::charged_as;
use crate::fs::adopt::Pins;
use crate::private::PrivateArea;
use crate::recount::Recount;
use crate::recount::saved::{Moment, Saved};
use crate::sys::handle::KernelHandle;
use crate::sys::stat::{FileKind, Stat, stat_at, stat_fd};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const PREFIX: &str = "journal.";

/// The boot of the host, as the host shows it: to be asked before the daemon confines itself.
pub(super) fn boot_id() -> String {
    let id = fs::read_to_string(BOOT_ID).unwrap_or_default();
    id.trim().to_owned()
}

/// The journal of this mount, and where it is.
#[derive(Debug)]
pub(super) struct Service {
    run_dir: PathBuf,
    identity: Identity,
    journal: Arc<dyn Journal>,
    /// Whether the store may name the journal.
    began: AtomicBool,
    /// Where the state of a recount is kept.
    store: PathBuf,
    root: u64,
}

/// How the VE came into service.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// The totals are to be counted anew.
    pub(super) is_unknown: bool,
    /// Files that were touched shortly before the last mount ended, as they were taken into the totals.
    pub(super) touched: Vec<(KernelHandle, Stat)>,
    /// The recount to go on with.
    pub(super) recount: Option<Recount>,
}

/// What a journal said.
struct WorkedOff {
    /// As [`Recovered::touched`].
    touched: Vec<(KernelHandle, Stat)>,
    /// What the totals missed.
    changes: Vec<Change>,
}

impl Service {
    /// Makes the journal of a new mount. The one of the last mount is left alone.
    pub(super) fn prepare(config: &Config, boot: &str, area: &PrivateArea) -> Self {
        let (run_dir, ve) = (&config.run_dir, config.ve);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let session = u64::try_from(now.as_nanos()).unwrap_or(0);
        let is_boot_known = !boot.is_empty();
        let root = area.root_stat();
        let boot = format!("{boot}/{:x}/{:x}", root.dev, root.ino);
        let identity = Identity { ve, boot, session };
        let made = if !area.has_handles() {
            Err(io::Error::other(
                "the backing file system has no file handles",
            ))
        } else if !is_boot_known {
            // A journal of one boot must not be taken for one of the next.
            Err(io::Error::other("the kernel does not tell its boot id"))
        } else {
            FileJournal::create(&file(run_dir, session), identity.clone())
        };
        let journal: Arc<dyn Journal> = match made {
            Ok(journal) => Arc::new(journal),
            Err(error) => {
                tracing::warn!(%ve, %error, "no journal: after a crash the VE will be recounted");
                Arc::new(NoJournal)
            }
        };
        Self {
            run_dir: run_dir.to_owned(),
            identity,
            journal,
            began: AtomicBool::new(false),
            store: config.accounts_dir(),
            root: root.ino,
        }
    }

    /// What the engine is to tell of changes.
    pub(super) fn journal(&self) -> Arc<dyn Journal> {
        self.journal.clone()
    }

    /// Corrects the totals where the last mount had no last commit, and puts the VE into service. `pins` are the inodes
    /// that are there although they have no name.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn begin(
        &self,
        engine: &Engine,
        area: &PrivateArea,
        pins: &Pins,
    ) -> Result<Recovered, EngineError> {
        let ve = self.identity.ve;
        let mut recovered = Recovered::default();
        match engine.standing() {
            Standing::Final => {}
            Standing::Unknown { session } => {
                tracing::warn!(%ve, "the totals are not known; counting while the VE runs");
                recovered.is_unknown = true;
                self.take_up_recount(session, engine, area, pins, &mut recovered);
            }
            Standing::Journaled { session, epoch } => {
                match self.read(session, epoch, engine, area, pins) {
                    Ok(done) => recovered.touched = done.touched,
                    Err(cause) => {
                        tracing::warn!(%ve, cause, "the last mount ended without its last commit; recounting while the VE runs");
                        recovered.is_unknown = true;
                    }
                }
            }
        }
        // A commit that fails may be durable all the same: from here on the journal stays.
        self.began.store(true, Ordering::Relaxed);
        engine.begin_service(self.identity.session, recovered.is_unknown)?;
        self.remove_others();
        Ok(recovered)
    }

    /// Goes on with the recount of the last mount, where that ended well or its daemon handed over.
    fn take_up_recount(
        &self,
        session: u64,
        engine: &Engine,
        area: &PrivateArea,
        pins: &Pins,
        recovered: &mut Recovered,
    ) {
        let ve = self.identity.ve;
        let Some((saved, is_handed_over)) = Saved::take(&self.store, ve, session, self.root) else {
            return;
        };
        let recount = Recount::resumed(saved);
        if is_handed_over {
            match self.read(session, engine.epoch(), engine, area, pins) {
                Ok(done) => {
                    recount.together(&done.changes, || {});
                    recovered.touched = done.touched;
                }
                Err(cause) => {
                    tracing::warn!(%ve, cause, "the recount starts anew");
                    return;
                }
            }
        }
        tracing::info!(%ve, inodes = recount.seen(), "the recount goes on");
        recovered.recount = Some(recount);
    }

    /// Keeps how far a recount is for the next daemon. To be called after the last commit; what fails costs a recount.
    pub(super) fn keep_recount(&self, saved: &Saved, is_handed_over: bool) {
        let moment = Moment {
            ve: self.identity.ve,
            session: self.identity.session,
            root: self.root,
            is_handed_over,
        };
        if let Err(error) = saved.write(&self.store, &moment) {
            tracing::warn!(ve = %moment.ve, %error, "the recount will start anew: its state cannot be kept");
        }
    }

    /// Takes in what the journal of the last mount says the totals miss.
    fn read(
        &self,
        session: u64,
        epoch: Epoch,
        engine: &Engine,
        area: &PrivateArea,
        pins: &Pins,
    ) -> Result<WorkedOff, String> {
        let started = Instant::now();
        let path = file(&self.run_dir, session);
        let expected = Identity {
            session,
            ..self.identity.clone()
        };
        let image = Image::read(&path, &expected)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let eye = Eye {
            area,
            pins,
            files: RefCell::default(),
        };
        let changes = missed(&image, epoch, &eye).map_err(|error| {
            format!("an inode that the journal names cannot be looked at: {error}")
        })?;
        engine.record(&changes);
        let corrected = changes
            .iter()
            .filter(|change| change.before != change.after)
            .count();
        tracing::info!(
            ve = %self.identity.ve,
            looked_at = changes.len(),
            corrected,
            milliseconds = started.elapsed().as_millis(),
            "the last mount ended without its last commit; its journal was worked off"
        );
        Ok(WorkedOff {
            touched: eye.files.into_inner(),
            changes,
        })
    }

    fn remove_others(&self) {
        let own = file(&self.run_dir, self.identity.session);
        self.remove(|path| path != own);
    }

    /// The last commit is done: no journal counts any more.
    pub(super) fn end(&self) {
        self.remove(|_| true);
    }

    fn remove(&self, concerns: impl Fn(&Path) -> bool) {
        let Ok(entries) = fs::read_dir(&self.run_dir) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) && concerns(&entry.path()) {
                // One that stays costs space, no more: no store names it.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !self.began.load(Ordering::Relaxed) {
            let _ = fs::remove_file(file(&self.run_dir, self.identity.session));
        }
    }
}

fn file(run_dir: &Path, session: u64) -> PathBuf {
    run_dir.join(format!("{PREFIX}{session:016x}"))
}

/// Looks at inodes of the private area for the recovery.
struct Eye<'a> {
    area: &'a PrivateArea,
    pins: &'a Pins,
    /// The regular files among them.
    files: RefCell<Vec<(KernelHandle, Stat)>>,
}

impl Eye<'_> {
    fn open(&self, inode: &InodeId) -> io::Result<Option<std::os::fd::OwnedFd>> {
        let handle =
            handle_of(inode).ok_or_else(|| io::Error::other("an inode without a file handle"))?;
        absent(
            self.area
                .open_handle(&handle, libc::O_PATH | libc::O_NOFOLLOW),
        )
    }

    fn keep(&self, inode: &InodeId, seen: &Stat) {
        if seen.kind() == FileKind::File
            && let Some(handle) = handle_of(inode)
        {
            self.files.borrow_mut().push((handle, *seen));
        }
    }
}

fn handle_of(inode: &InodeId) -> Option<KernelHandle> {
    inode
        .handle()
        .and_then(|(kind, bytes)| KernelHandle::from_parts(kind, bytes))
}

impl Look for Eye<'_> {
    fn inode(&self, inode: &InodeId) -> io::Result<Option<Charged>> {
        if let Some(seen) = self.pins.stat_of(inode) {
            self.keep(inode, &seen);
            return Ok(Some(charged_as(&seen)));
        }
        let Some(fd) = self.open(inode)? else {
            return Ok(None);
        };
        let seen = stat_fd(&fd)?;
        // One without a name goes with its last user, whom this VE does not know any more.
        if seen.nlink == 0 || seen.ino != inode.ino() {
            return Ok(None);
        }
        self.keep(inode, &seen);
        Ok(Some(charged_as(&seen)))
    }

    fn name(&self, parent: &InodeId, name: &[u8]) -> io::Result<Option<(InodeId, Charged)>> {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(name);
        let Some(dir) = self.open(parent)? else {
            return Ok(None);
        };
        let Some(seen) = absent(stat_at(&dir, name))? else {
            return Ok(None);
        };
        let handle = KernelHandle::of_name(&dir, name)?;
        let inode = InodeId::new(seen.ino, handle.handle_type(), handle.bytes());
        Ok(Some((inode, charged_as(&seen))))
    }
}

fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESTALE | libc::ENOENT)) => Ok(None),
        Err(error) => Err(error),
    }
}

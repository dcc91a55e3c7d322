//! A mounted file system that is unmounted when it is dropped, whatever happened.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::programs::{command, output, wait};

/// A mount or an unmount takes no longer than this.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A directory to work in, and how to undo it.
#[derive(Debug)]
pub(crate) struct Mounted {
    root: PathBuf,
    /// `None` where nothing is mounted.
    stop: Option<Command>,
    /// A server in the foreground.
    server: Option<Child>,
}

impl Mounted {
    /// A plain directory.
    pub(super) fn nothing(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            stop: None,
            server: None,
        }
    }

    /// Runs a program that mounts and returns. `stop` undoes it.
    pub(super) fn by(mount: &mut Command, root: &Path, stop: Command) -> Result<Self> {
        let mounted = Self {
            root: root.to_owned(),
            stop: Some(stop),
            server: None,
        };
        output(mount, PATIENCE)?;
        mounted.awaited()
    }

    /// Starts a server that stays in the foreground.
    pub(super) fn served(server: &mut Command, root: &Path) -> Result<Self> {
        let mounted = Self {
            root: root.to_owned(),
            stop: Some(unmount(root)),
            server: Some(server.spawn()?),
        };
        mounted.awaited()
    }

    /// Where to work.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn awaited(self) -> Result<Self> {
        let start = Instant::now();
        while !is_mountpoint(&self.root) {
            if start.elapsed() > PATIENCE {
                bail!("nothing is mounted after {} s", PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(self)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let Some(mut stop) = self.stop.take() else {
            return;
        };
        let stopped = output(&mut stop, PATIENCE);
        if stopped.is_err() || is_mountpoint(&self.root) {
            // Cuts the connection to the server, so that nobody waits for it any longer.
            let mut force = command("umount", ["-f", "-l"]);
            let _ = output(force.arg(&self.root), PATIENCE);
        }
        if let Some(mut server) = self.server.take() {
            let _ = wait(&mut server, PATIENCE);
        }
    }
}

/// umount(8), tried for a while where the mount is still in use.
pub(super) fn unmount(root: &Path) -> Command {
    let script = "for i in 1 2 3 4 5 6 7 8 9; do umount \"$1\" && exit; sleep 0.2; done; exit 1";
    let mut command = command("sh", ["-c", script, "sh"]);
    command.arg(root);
    command
}

/// Whether another file system begins here, or one that does not answer.
fn is_mountpoint(path: &Path) -> bool {
    let (Ok(here), Some(parent)) = (fs::metadata(path), path.parent()) else {
        return true;
    };
    fs::metadata(parent).is_ok_and(|parent| parent.dev() != here.dev())
}

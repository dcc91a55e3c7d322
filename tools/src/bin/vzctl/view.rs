//! The root directory as the VE is to see it: the mount itself, or for a VE with a user namespace a clone of it whose
//! ids are mapped.
//!
//! A clone is taken from the host's tree once the VE has it: it ends with the VE.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};
use simfs::idmap;
use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::ve_config::VeConfig;

use crate::{Context, Fallible, system};

/// A clone's name on the host, beside the bundle.
const NAME: &str = "root";

/// What the VE's first program gets as root.
pub(crate) enum View {
    Mount(PathBuf),
    Clone(PathBuf),
}

impl View {
    /// Makes what the VE's configuration asks for.
    ///
    /// # Errors
    /// `Mount` where the kernel cannot map ids.
    pub(crate) fn of(context: &Context, config: &VeConfig) -> Fallible<Self> {
        let root = context.paths.root(context.ve).map_err(system)?;
        let Some(range) = config.id_range() else {
            return Ok(Self::Mount(root));
        };
        let view = context.paths.instance_dir(context.ve).join(NAME);
        fs::create_dir_all(&view).map_err(system)?;
        idmap::attach_view(&root, &view, range).map_err(|error| {
            Failure::new(
                VzctlExit::Mount,
                format!("LOCAL_UID: {error}; or give the VE no user namespace with --local_uid 0"),
            )
        })?;
        Ok(Self::Clone(view))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Mount(path) | Self::Clone(path) => path,
        }
    }

    /// The VE has it.
    pub(crate) fn hand_over(&self) -> Fallible<()> {
        match self {
            Self::Mount(_) => Ok(()),
            Self::Clone(path) => unmount(path, UnmountFlags::DETACH).map_err(system),
        }
    }
}

/// Takes away what a start that was cut off has left mounted.
///
/// # Errors
/// If something is mounted there still: whoever removes the instance directory would remove the VE's files.
pub(crate) fn clear(instance: &Path) -> Fallible<()> {
    let path = instance.join(NAME);
    // Nothing mounted there is the usual case.
    while unmount(&path, UnmountFlags::DETACH).is_ok() {}
    match fs::remove_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(system(format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

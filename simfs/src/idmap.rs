//! A VE's mount as its user namespace is to see it: ids on the disk are the VE's own, so moving a VE to other ids of the
//! host, or out of a user namespace, changes no file.
//!
//! The mount must have been made with the option `idmap`. The host goes on seeing it as it is on the disk.

use std::io;
use std::path::Path;

use crate::sys::user_namespace::{self, IdRange};
use crate::sys::{mount, open};

/// Why there is no such view.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdMapError {
    /// The kernel, or the mount's options, do not allow it.
    #[error("the ids of {0} cannot be mapped: that needs Linux 6.12, and the mount option 'idmap'")]
    NotAllowed(String),
    /// A step failed.
    #[error("{step}: {error}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        error: io::Error,
    },
}

/// Attaches a clone of the mount at `root` at `view`, with ids as in a user namespace of this range.
///
/// # Errors
/// [`IdMapError`]; nothing is attached then.
pub fn attach_view(root: &Path, view: &Path, range: IdRange) -> Result<(), IdMapError> {
    let failed = |step| move |error| IdMapError::Step { step, error };
    let namespace = user_namespace::make(range).map_err(failed("making a user namespace"))?;
    let dir = open::open_dir_path(root).map_err(failed("opening the root"))?;
    let tree = mount::clone_detached(&dir).map_err(failed("cloning the mount"))?;
    mount::map_ids(&tree, &namespace).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => IdMapError::NotAllowed(root.display().to_string()),
        _ => IdMapError::Step {
            step: "mapping ids",
            error,
        },
    })?;
    mount::attach(&tree, view).map_err(failed("attaching the view"))
}

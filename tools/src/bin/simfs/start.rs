//! The one place that starts a VE.

use std::path::PathBuf;

use quota::VeId;
use simfs::mount::MountOptions;
use simfs::ve::{self, Config};
use simfs_tools::logging;

/// What is to be mounted, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) ve: VeId,
    pub(crate) private: PathBuf,
    pub(crate) mountpoint: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) options: MountOptions,
    pub(crate) foreground: bool,
    /// Whether the VE has a quota record that is to be used.
    pub(crate) quota: bool,
}

/// Mounts; returns when the mount answers, or in the foreground when it has ended.
///
/// # Errors
/// Why it could not be mounted, in one line.
pub(crate) fn start(plan: Plan) -> Result<(), String> {
    // The daemon inherits the log; where it goes to the background, standard error becomes its log file.
    logging::to_stderr("info");
    let Plan {
        ve,
        private,
        mountpoint,
        state_dir,
        run_dir,
        options,
        foreground,
        quota,
    } = plan;
    let config = Config {
        ve,
        private,
        mountpoint,
        state_dir,
        run_dir,
        options,
        quota,
        foreground,
    };
    ve::start(config).map_err(|error| error.to_string())
}

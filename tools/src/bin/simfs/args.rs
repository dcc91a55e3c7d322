//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use simfs_tools::cli::Common;
use simfs_tools::exit::{self, SimfsExit};

/// What follows the exit codes.
pub(crate) const EXIT_NOTE: &str = "Called as mount.simfs: those of mount(8).";

/// VEs' private areas as file systems with disk quota.
#[derive(Debug, Parser)]
#[command(name = "simfs", version, after_help = format!("{} {EXIT_NOTE}", exit::help(SimfsExit::ALL)), max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a VE's private area; returns when the mount answers.
    Mount(MountArgs),
    /// Unmount a VE; returns when its daemon has ended.
    Umount(UmountArgs),
    /// Show what is mounted, and its usage and limits.
    Status(StatusArgs),
    /// Recount a VE's private area and compare with the totals.
    Check(CheckArgs),
    /// Have this very program take over from the one that serves, unseen by the guest; if it cannot, the old one goes on.
    Upgrade(UpgradeArgs),
    /// Print what to merge into a container's config.json, so that quota tools work inside (mounted VEs only).
    Oci(OciArgs),
}

/// `mount`.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// The VE's number.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// Where to mount it (default: VE_ROOT of the configuration).
    pub(crate) mountpoint: Option<PathBuf>,
    /// The VE's files (default: as given to 'vzquota init', else VE_PRIVATE of the configuration).
    #[arg(long, value_name = "DIR")]
    pub(crate) private: Option<PathBuf>,
    /// Mount options, separated by commas.
    #[arg(short = 'o', long, value_name = "OPTS", action = clap::ArgAction::Append)]
    pub(crate) options: Vec<String>,
    /// Stay in the foreground and log to standard error.
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Mount without a quota record, without limits.
    #[arg(long)]
    pub(crate) no_quota: bool,
}

/// `umount`.
#[derive(Debug, Args)]
pub(crate) struct UmountArgs {
    /// The VE's number.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// Detach now although files are in use; the daemon ends when the last is closed.
    #[arg(short, long)]
    pub(crate) lazy: bool,
}

/// `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The VE's number (default: all).
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: Option<String>,
    /// JSON; space and memory in bytes.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The VE's number.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// Replace wrong totals by what was counted.
    #[arg(long)]
    pub(crate) repair: bool,
    /// Stop the recount that runs after a crash; usage may be wrong until it is resumed.
    #[arg(long, conflicts_with_all = ["repair", "json", "resume"])]
    pub(crate) stop: bool,
    /// Have that recount go on where it was stopped.
    #[arg(long, conflicts_with_all = ["repair", "json"])]
    pub(crate) resume: bool,
    /// JSON; space in bytes.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `oci`.
#[derive(Debug, Args)]
pub(crate) struct OciArgs {
    /// The VE's number.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// On one line.
    #[arg(long)]
    pub(crate) json: bool,
    /// For a container with a user namespace: bind the device node instead of making it.
    #[arg(long)]
    pub(crate) userns: bool,
    /// For runtimes that know no seccomp flags (runc before 1.5).
    #[arg(long)]
    pub(crate) no_flags: bool,
}

/// `upgrade`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["veid", "all"])))]
pub(crate) struct UpgradeArgs {
    /// The VE's number.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: Option<String>,
    /// Every mounted VE, one after the other.
    #[arg(long)]
    all: bool,
    /// This program instead of the one that is called: to go back to an older one, say.
    #[arg(long, value_name = "PATH")]
    pub(crate) program: Option<PathBuf>,
}

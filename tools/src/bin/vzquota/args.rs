//! The command line.
//!
//! The same letter means different things before and after the command (`-b` is batch output before, the soft limit
//! of blocks after), so only what is unambiguous may stand on both sides.
//!
//! # Source
//! vzquota(8), vzquota `src/main.c`, `src/quotactl.c`.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use simfs_tools::cli::Common;
use simfs_tools::exit::{self, VzquotaExit};

/// Forms of values, for `--help` and the manual page.
pub(crate) const FORMS: &str = "Sizes: KiB, or with a suffix (10G), or 'unlimited'. Times: seconds, dd:hh:mm:ss, or 7d \
(h d w m y).";

/// Disk quota of VEs: space and inodes of each VE, and of its users and groups.
#[derive(Debug, Parser)]
#[command(name = "vzquota", version, after_help = format!("{}\n{FORMS}", exit::help(VzquotaExit::ALL)), max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Say nothing but errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more; twice: even more.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// Machine output of stat and show: lines of 'usage soft hard deadline grace'. Only before the command.
    #[arg(short)]
    pub(crate) batch: bool,
    /// JSON output of stat and show; space in bytes.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a VE's record; counts the private area once.
    Init(InitArgs),
    /// Enforce limits again; options as in setlimit are set first.
    On(ChangeArgs),
    /// Stop enforcing limits, on both levels; accounting goes on.
    Off(VeArgs),
    /// Remove a VE's record.
    Drop(VeArgs),
    /// Change the VE's limits; in force at once.
    Setlimit(ChangeArgs),
    /// Change a user's or group's limits, or with -t the grace periods of users or groups.
    Setlimit2(SecondLevelArgs),
    /// Show usage and limits as they are now.
    Stat(ReportArgs),
    /// Show usage and limits as they are stored.
    Show(ReportArgs),
    /// Write the limits and usage of all users or groups to a quota file (aquota.user, aquota.group; vfsv1).
    ExportQuotaFile(QuotaFileArgs),
    /// Take limits, grace periods and deadlines from a quota file (vfsv0 or vfsv1); usage stays what it is.
    ImportQuotaFile(QuotaFileArgs),
}

/// A VE and nothing else.
#[derive(Debug, Args)]
pub(crate) struct VeArgs {
    /// The VE's number.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// Accepted; nothing here needs force.
    #[arg(short, hide = true)]
    force: bool,
}

/// Limits and grace of the VE; what is not given stays.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// Soft limit of space.
    #[arg(short = 'b', value_name = "BSOFT", allow_hyphen_values = true)]
    pub(crate) block_soft: Option<String>,
    /// Hard limit of space.
    #[arg(short = 'B', value_name = "BHARD", allow_hyphen_values = true)]
    pub(crate) block_hard: Option<String>,
    /// Soft limit of inodes.
    #[arg(short = 'i', value_name = "ISOFT", allow_hyphen_values = true)]
    pub(crate) inode_soft: Option<String>,
    /// Hard limit of inodes.
    #[arg(short = 'I', value_name = "IHARD", allow_hyphen_values = true)]
    pub(crate) inode_hard: Option<String>,
    /// Grace period of space.
    #[arg(short = 'e', value_name = "BGRACE", allow_hyphen_values = true)]
    pub(crate) block_grace: Option<String>,
    /// Grace period of inodes.
    #[arg(short = 'n', value_name = "IGRACE", allow_hyphen_values = true)]
    pub(crate) inode_grace: Option<String>,
    /// Enforce limits of users and groups: 1 or 0.
    #[arg(short = 's', value_name = "0|1", allow_hyphen_values = true)]
    pub(crate) second_level: Option<String>,
    /// User and group ids expected; never a reason to refuse. 0: no limits of users and groups from the next start on.
    #[arg(short = 'u', value_name = "N", allow_hyphen_values = true)]
    pub(crate) ugid_limit: Option<String>,
    /// Accepted for old scripts; takes a value and does nothing.
    #[arg(short = 'r', hide = true)]
    root_squash: Option<String>,
}

/// `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The VE's number.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// The VE's private area; may be absent as yet.
    #[arg(short = 'p', value_name = "PATH")]
    pub(crate) private: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

/// `setlimit` and `on`.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// The VE's number.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// Store another path of the private area; used at the next mount.
    #[arg(short = 'p', value_name = "PATH")]
    pub(crate) private: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Accepted; nothing here needs force.
    #[arg(short, hide = true)]
    force: bool,
}

/// `setlimit2`.
#[derive(Debug, Args)]
pub(crate) struct SecondLevelArgs {
    /// The VE's number.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// A user, or all users.
    #[arg(short = 'u', conflicts_with = "group")]
    pub(crate) user: bool,
    /// A group, or all groups.
    #[arg(short = 'g')]
    pub(crate) group: bool,
    /// Set grace periods.
    #[arg(short = 't')]
    pub(crate) times: bool,
    /// ID BSOFT BHARD ISOFT IHARD (0: no limit; ID may be a name), or with -t: BGRACE IGRACE.
    #[arg(value_name = "VALUE", allow_negative_numbers = true)]
    pub(crate) values: Vec<String>,
}

/// `export-quota-file` and `import-quota-file`.
#[derive(Debug, Args)]
pub(crate) struct QuotaFileArgs {
    /// The VE's number.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// Of users.
    #[arg(short = 'u', conflicts_with = "group")]
    pub(crate) user: bool,
    /// Of groups.
    #[arg(short = 'g')]
    pub(crate) group: bool,
    /// The quota file.
    pub(crate) file: PathBuf,
}

/// `stat` and `show`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The VE's number.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// Users and groups too.
    #[arg(short = 't')]
    pub(crate) second_level: bool,
    /// Accepted; nothing here needs force.
    #[arg(short, hide = true)]
    force: bool,
}

//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use simfs_tools::archive::Compression;
use simfs_tools::cli::Common;
use simfs_tools::exit::{self, VzctlExit};

/// The codes that this program ends with.
pub(crate) const EXITS: &[VzctlExit] = &[
    VzctlExit::Ok,
    VzctlExit::System,
    VzctlExit::Config,
    VzctlExit::Usage,
    VzctlExit::Value,
    VzctlExit::BrokenVe,
    VzctlExit::NoTemplate,
];

/// Templates to make VEs from.
#[derive(Debug, Parser)]
#[command(
    name = "vzpkg",
    version,
    max_term_width = 110,
    after_help = exit::help(EXITS)
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the templates.
    List,
    /// Make a Debian template with debootstrap.
    Cache(CacheArgs),
    /// Make a template of the tar file of a root directory, or of an OCI image layout.
    Import(ImportArgs),
    /// Remove a template.
    Remove {
        /// Its name.
        #[arg(id = "template", value_name = "NAME")]
        name: String,
    },
}

/// `cache`.
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    /// The template's name: debian-VERSION[-VARIANT] says both, unless the options do.
    pub(crate) name: String,
    /// The release (bookworm).
    #[arg(long, value_name = "NAME")]
    pub(crate) suite: Option<String>,
    /// minbase, buildd, or standard.
    #[arg(long, value_name = "NAME")]
    pub(crate) variant: Option<String>,
    /// Where packages come from (default: debootstrap's).
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Option<String>,
    /// Packages to add, separated by commas.
    #[arg(long, value_name = "NAMES", default_value = "procps")]
    pub(crate) include: String,
    /// The form it is kept in.
    #[arg(long, value_enum, default_value_t = Form::Tar)]
    pub(crate) form: Form,
}

/// `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The template's name.
    pub(crate) name: String,
    /// A tar file (also compressed) of a root directory or of an OCI image layout, or the directory of such a layout.
    pub(crate) source: PathBuf,
    /// The form it is kept in.
    #[arg(long, value_enum, default_value_t = Form::Tar)]
    pub(crate) form: Form,
}

/// How a template is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A tar file: unpacked as fast as the disk takes it.
    Tar,
    /// Smaller, slower.
    #[value(name = "tar.gz")]
    Gz,
    /// Smallest, slowest.
    #[value(name = "tar.xz")]
    Xz,
    /// Small and fast; needs zstd.
    #[value(name = "tar.zst")]
    Zst,
    /// A directory, cloned without copying where the file system can (btrfs, xfs).
    Tree,
}

impl Form {
    /// The end of the file's name.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::Tar => ".tar",
            Self::Gz => ".tar.gz",
            Self::Xz => ".tar.xz",
            Self::Zst => ".tar.zst",
            Self::Tree => "",
        }
    }

    /// How the tar file is compressed.
    pub(crate) const fn compression(self) -> Option<Compression> {
        match self {
            Self::Tar | Self::Tree => None,
            Self::Gz => Some(Compression::Gzip),
            Self::Xz => Some(Compression::Xz),
            Self::Zst => Some(Compression::Zstd),
        }
    }
}

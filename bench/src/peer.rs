//! The file systems that are compared: each shows one backing directory at another place.

pub(crate) mod floor;
mod mounted;
mod passthrough;
mod simfs;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::programs::Program;
use mounted::Mounted;

/// Where a peer may put things, in one round.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    /// The directory whose files it shows: empty.
    pub(crate) backing: PathBuf,
    /// Where it mounts.
    pub(crate) mountpoint: PathBuf,
    /// Its own files, on the same file system.
    pub(crate) state: PathBuf,
}

impl Ground {
    /// Empty directories for one peer below `dir`.
    pub(crate) fn new(dir: &Path, peer: &str) -> Result<Self> {
        let make = |what: &str| {
            let path = dir.join(format!("{peer}.{what}"));
            std::fs::create_dir(&path)
                .map(|()| path.clone())
                .with_context(|| path.display().to_string())
        };
        Ok(Self {
            backing: make("files")?,
            mountpoint: make("mount")?,
            state: make("state")?,
        })
    }
}

/// Programs of this workspace and others that are not in the search path.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// Has simfs and vzquota.
    pub(crate) bin_dir: PathBuf,
    /// libfuse's example.
    pub(crate) passthrough_hp: Option<PathBuf>,
}

/// One file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The backing file system itself.
    Native,
    /// The same once more: what differs from the first is noise.
    NativeAgain,
    Simfs,
    Floor,
    Bindfs,
    FuseOverlayfs,
    Mergerfs,
    PassthroughHp,
}

impl Peer {
    /// All, in the order of the report.
    pub(crate) const ALL: [Self; 8] = [
        Self::Native,
        Self::NativeAgain,
        Self::Simfs,
        Self::Floor,
        Self::Bindfs,
        Self::FuseOverlayfs,
        Self::Mergerfs,
        Self::PassthroughHp,
    ];

    /// Those that a user could choose instead of simfs.
    pub(crate) const RIVALS: [Self; 4] = [
        Self::Bindfs,
        Self::FuseOverlayfs,
        Self::Mergerfs,
        Self::PassthroughHp,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::NativeAgain => "native-again",
            Self::Simfs => "simfs",
            Self::Floor => "floor",
            Self::Bindfs => "bindfs",
            Self::FuseOverlayfs => "fuse-overlayfs",
            Self::Mergerfs => "mergerfs",
            Self::PassthroughHp => "passthrough_hp",
        }
    }

    /// What it is, and what makes the comparison unfair.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Native => "the backing file system",
            Self::NativeAgain => "the same once more, to see the noise; not a peer",
            Self::Simfs => {
                "quota enforced on both levels, with limits for the user and the group that work"
            }
            Self::Floor => {
                "keeps names in memory, drops what is written, reads zeros: the cost of asking any server by FUSE. \
                 Every read and write is a request, so a peer whose reads bypass the server may be faster. \
                 Takes no part where content matters"
            }
            Self::Bindfs => {
                "no quota; does without default_permissions, which saves it a request on each change"
            }
            Self::FuseOverlayfs => {
                "no quota; one empty lower layer, the backing directory is the upper one"
            }
            Self::Mergerfs => "no quota; one branch, options as it comes",
            Self::PassthroughHp => {
                "no quota; libfuse's example, reads and writes bypass the server"
            }
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|peer| peer.name() == name)
    }

    /// The program from Debian that it needs.
    pub(crate) fn program(self) -> Option<Program> {
        match self {
            Self::Bindfs => Some(Program::new("bindfs", "bindfs")),
            Self::FuseOverlayfs => Some(Program::new("fuse-overlayfs", "fuse-overlayfs")),
            Self::Mergerfs => Some(Program::new("mergerfs", "mergerfs")),
            Self::Native | Self::NativeAgain | Self::Simfs | Self::Floor | Self::PassthroughHp => {
                None
            }
        }
    }

    /// Whether files keep what is written into them.
    pub(crate) fn keeps_content(self) -> bool {
        self != Self::Floor
    }

    /// Mounts it; dropping the result unmounts.
    pub(crate) fn mount(self, ground: &Ground, tools: &Tools) -> Result<Mounted> {
        match self {
            Self::Native | Self::NativeAgain => Ok(Mounted::nothing(&ground.backing)),
            Self::Simfs => simfs::mount(ground, tools),
            Self::Floor => floor::mount(ground),
            Self::Bindfs => passthrough::bindfs(ground),
            Self::FuseOverlayfs => passthrough::fuse_overlayfs(ground),
            Self::Mergerfs => passthrough::mergerfs(ground),
            Self::PassthroughHp => passthrough::passthrough_hp(ground, tools),
        }
        .with_context(|| format!("{} does not mount", self.name()))
    }
}

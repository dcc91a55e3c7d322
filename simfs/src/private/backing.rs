//! Which filesystem is underneath, by its magic number.                                                      (pure)
//!
//! # Source
//! Linux include/uapi/linux/magic.h; fs/xfs and fs/fuse for theirs.

/// The filesystem underneath a private area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// ext2, ext3 or ext4.
    Ext4,
    /// xfs.
    Xfs,
    /// btrfs.
    Btrfs,
    /// tmpfs.
    Tmpfs,
    /// overlayfs.
    Overlay,
    /// Another one, with this magic number.
    Other(u32),
}

impl Backing {
    /// The filesystem with this magic number.
    pub const fn from_magic(magic: u32) -> Self {
        match magic {
            0xef53 => Self::Ext4,
            0x5846_5342 => Self::Xfs,
            0x9123_683e => Self::Btrfs,
            0x0102_1994 => Self::Tmpfs,
            0x794c_7630 => Self::Overlay,
            other => Self::Other(other),
        }
    }
}

/// The name of a filesystem that cannot hold a VE's files, or no second user-space daemon underneath.
pub(super) const fn unsupported(magic: u32) -> Option<&'static str> {
    match magic {
        0x6573_5546 => Some("fuse"),
        0x9fa0 => Some("proc"),
        0x6265_6572 => Some("sysfs"),
        0x0027_e0eb | 0x6367_7270 => Some("cgroup"),
        0x1cd1 => Some("devpts"),
        0x6462_6720 => Some("debugfs"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_both_known_and_unsupported() {
        for magic in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630] {
            assert!(!matches!(Backing::from_magic(magic), Backing::Other(_)));
            assert_eq!(unsupported(magic), None);
        }
        assert_eq!(Backing::from_magic(0x6969), Backing::Other(0x6969));
        assert_eq!(unsupported(0x6573_5546), Some("fuse"));
    }
}

//! Inode flags (chattr) and project ids.
//!
//! All need a real descriptor, not an O_PATH one (`EBADF`). A filesystem without them says `ENOTTY` or `EOPNOTSUPP`.
//! No locks.

use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Getter, Opcode, Setter, Updater, opcode};

/// `struct fsxattr` of `FS_IOC_FSGETXATTR`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtendedFlags {
    /// `FS_XFLAG_*` bits.
    pub flags: u32,
    /// Extent size hint, bytes.
    pub extent_size: u32,
    /// Number of data extents, where the filesystem tells.
    pub extents: u32,
    /// Project id.
    pub project: u32,
    /// Extent size hint for copy on write, bytes.
    pub cow_extent_size: u32,
    padding: [u8; 8],
}

/// Size of `struct fsxattr` in bytes.
pub const EXTENDED_SIZE: usize = 28;

impl ExtendedFlags {
    /// As `struct fsxattr` lies in memory.
    pub fn to_bytes(self) -> [u8; EXTENDED_SIZE] {
        let mut bytes = [0; EXTENDED_SIZE];
        let fields = [
            self.flags,
            self.extent_size,
            self.extents,
            self.project,
            self.cow_extent_size,
        ];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }

    /// From `struct fsxattr` as it lies in memory.
    pub fn from_bytes(bytes: &[u8; EXTENDED_SIZE]) -> Self {
        let mut fields = bytes.chunks_exact(4).map(|field| {
            field
                .first_chunk()
                .map_or(0, |raw| u32::from_ne_bytes(*raw))
        });
        let mut next = || fields.next().unwrap_or(0);
        Self {
            flags: next(),
            extent_size: next(),
            extents: next(),
            project: next(),
            cow_extent_size: next(),
            padding: [0; 8],
        }
    }
}

// The kernel moves an `int`, whatever the size in the number says.
const GET_FLAGS: Opcode = opcode::read::<libc::c_long>(b'f', 1);
const SET_FLAGS: Opcode = opcode::write::<libc::c_long>(b'f', 2);
const GET_EXTENDED: Opcode = opcode::read::<ExtendedFlags>(b'X', 31);
const SET_EXTENDED: Opcode = opcode::write::<ExtendedFlags>(b'X', 32);

/// The `FS_*_FL` flags.
pub fn flags(file: impl AsFd) -> io::Result<u32> {
    // SAFETY: the opcode writes one 32-bit number; a `c_long`, zero before, has room for it.
    let raw: libc::c_long = unsafe {
        let mut value: libc::c_long = 0;
        rustix::ioctl::ioctl(file, Updater::<GET_FLAGS, libc::c_long>::new(&mut value))?;
        value
    };
    // Only the first 32 bits in memory were written.
    let bytes = raw.to_ne_bytes();
    Ok(bytes
        .first_chunk::<4>()
        .map_or(0, |low| u32::from_ne_bytes(*low)))
}

/// Sets the `FS_*_FL` flags.
pub fn set_flags(file: impl AsFd, flags: u32) -> io::Result<()> {
    // SAFETY: the opcode reads one 32-bit number.
    Ok(unsafe { rustix::ioctl::ioctl(file, Setter::<SET_FLAGS, u32>::new(flags)) }?)
}

/// The flags of FS_IOC_FSGETXATTR, with the project id.
pub fn extended_flags(file: impl AsFd) -> io::Result<ExtendedFlags> {
    // SAFETY: the opcode writes one `struct fsxattr`, and `ExtendedFlags` is laid out like it; any bytes are valid.
    Ok(unsafe { rustix::ioctl::ioctl(file, Getter::<GET_EXTENDED, ExtendedFlags>::new()) }?)
}

/// Sets the flags of FS_IOC_FSSETXATTR.
pub fn set_extended_flags(file: impl AsFd, flags: ExtendedFlags) -> io::Result<()> {
    // SAFETY: the opcode reads one `struct fsxattr`, and `ExtendedFlags` is laid out like it.
    Ok(unsafe { rustix::ioctl::ioctl(file, Setter::<SET_EXTENDED, ExtendedFlags>::new(flags)) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODUMP: u32 = 0x40;

    #[test]
    fn opcodes_are_those_of_the_kernel() {
        // uapi/linux/fs.h on 64 bits.
        assert_eq!((GET_FLAGS, SET_FLAGS), (0x8008_6601, 0x4008_6602));
        assert_eq!((GET_EXTENDED, SET_EXTENDED), (0x801c_581f, 0x401c_5820));
    }

    #[test]
    fn flags_stay_as_set() {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        let before = flags(&file).unwrap();
        set_flags(&file, before | NODUMP).unwrap();
        assert_eq!(flags(&file).unwrap(), before | NODUMP);
        let extended = extended_flags(&file).unwrap();
        assert_ne!(extended.flags, 0);
        set_extended_flags(
            &file,
            ExtendedFlags {
                flags: 0,
                ..extended
            },
        )
        .unwrap();
        assert_eq!(flags(&file).unwrap() & NODUMP, 0);
    }
}

//! The kernel's numbers for its requests, for records of what was under way.
//!
//! # Source
//! Linux `include/uapi/linux/fuse.h`, `enum fuse_opcode`.

macro_rules! opcodes {
    ($($name:ident = $number:literal),* $(,)?) => {
        $(pub(super) const $name: u32 = $number;)*

        /// The name of a number, for the log.
        pub fn name(opcode: u32) -> &'static str {
            match opcode {
                $($number => stringify!($name),)*
                _ => "unknown",
            }
        }
    };
}

opcodes! {
    LOOKUP = 1,
    GETATTR = 3,
    SETATTR = 4,
    READLINK = 5,
    SYMLINK = 6,
    MKNOD = 8,
    MKDIR = 9,
    UNLINK = 10,
    RMDIR = 11,
    LINK = 13,
    OPEN = 14,
    READ = 15,
    WRITE = 16,
    STATFS = 17,
    RELEASE = 18,
    FSYNC = 20,
    SETXATTR = 21,
    GETXATTR = 22,
    LISTXATTR = 23,
    REMOVEXATTR = 24,
    READDIR = 28,
    FSYNCDIR = 30,
    CREATE = 35,
    IOCTL = 39,
    FALLOCATE = 43,
    READDIRPLUS = 44,
    RENAME = 45,
    LSEEK = 46,
    COPY_FILE_RANGE = 47,
}

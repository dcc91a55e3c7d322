//! A notified system call, read as quotactl(2), quotactl_fd(2) or syncfs(2) of the caller's architecture.

use super::Layout;
use super::command::CommandWord;
use crate::sys::seccomp::Notification;

const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_AARCH64: u32 = 0xC000_00B7;
/// Set in the numbers of x32 calls, which arrive as x86-64.
const X32_BIT: i32 = 0x4000_0000;

/// Which filesystem a call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one on this device: address of a path, 0 for none.
    Path(u64),
    /// The one of this open descriptor.
    Descriptor(u32),
}

/// The arguments of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which filesystem.
    pub target: Target,
    /// Command and type.
    pub word: CommandWord,
    /// Whose account, as the caller names it; the format for `Q_QUOTAON`.
    pub id: u32,
    /// Address of the data.
    pub data: u64,
    /// How the caller lays it out.
    pub layout: Layout,
}

impl Call {
    /// Reads the registers; `None` for any other system call.
    ///
    /// # Source
    /// Linux `arch/x86/entry/syscalls/`, `include/uapi/asm-generic/unistd.h`.
    pub fn read(notification: &Notification) -> Option<Self> {
        let (by_path, number, layout) = match notification.arch {
            AUDIT_ARCH_X86_64 => (179, notification.number & !X32_BIT, Layout::Native),
            AUDIT_ARCH_I386 => (131, notification.number, Layout::I386),
            AUDIT_ARCH_AARCH64 => (60, notification.number, Layout::Native),
            _ => return None,
        };
        let [first, second, id, data, ..] = notification.args;
        let (target, word) = if number == by_path {
            (Target::Path(second), low_half(first))
        } else if number == 443 {
            (Target::Descriptor(low_half(first)), low_half(second))
        } else {
            return None;
        };
        Some(Self {
            target,
            word: CommandWord::split(word),
            id: low_half(id),
            data,
            layout,
        })
    }
}

/// The descriptor of a syncfs(2); `None` for any other system call.
///
/// # Source
/// As [`Call::read`].
pub fn synced(notification: &Notification) -> Option<u32> {
    let (expected, number) = match notification.arch {
        AUDIT_ARCH_X86_64 => (306, notification.number & !X32_BIT),
        AUDIT_ARCH_I386 => (344, notification.number),
        AUDIT_ARCH_AARCH64 => (267, notification.number),
        _ => return None,
    };
    let [descriptor, ..] = notification.args;
    (number == expected).then(|| low_half(descriptor))
}

/// The 32 bits that the kernel takes of a register for an `unsigned int`.
fn low_half(register: u64) -> u32 {
    let [a, b, c, d, ..] = register.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quotactl::abi::command::Command;

    fn call(arch: u32, number: i32, args: [u64; 6]) -> Option<Call> {
        Call::read(&Notification {
            cookie: 1,
            tid: 1,
            number,
            arch,
            args,
        })
    }

    #[test]
    fn syncfs_is_known_by_architecture_and_number() {
        let read = |arch, number| {
            synced(&Notification {
                cookie: 1,
                tid: 1,
                number,
                arch,
                args: [0xffff_ffff_0000_0007, 1, 2, 3, 4, 5],
            })
        };
        for (arch, number) in [
            (AUDIT_ARCH_X86_64, 306),
            (AUDIT_ARCH_X86_64, 306 | X32_BIT),
            (AUDIT_ARCH_I386, 344),
            (AUDIT_ARCH_AARCH64, 267),
        ] {
            assert_eq!(read(arch, number), Some(7));
            assert_eq!(call(arch, number, [7; 6]), None);
        }
        assert_eq!(read(AUDIT_ARCH_X86_64, 344), None);
        assert_eq!(read(AUDIT_ARCH_I386, 306), None);
        assert_eq!(read(0, 306), None);
    }

    #[test]
    fn calls_are_known_by_architecture_and_number() {
        let word = 0xffff_ffff_8000_0501_u64; // the kernel drops the upper half
        let by_path = [word, 0x1000, 5, 0x2000, 0, 0];
        let by_fd = [3, word, 5, 0x2000, 0, 0];
        let rows = [
            (
                AUDIT_ARCH_X86_64,
                179,
                by_path,
                Target::Path(0x1000),
                Layout::Native,
            ),
            (
                AUDIT_ARCH_X86_64,
                179 | X32_BIT,
                by_path,
                Target::Path(0x1000),
                Layout::Native,
            ),
            (
                AUDIT_ARCH_I386,
                131,
                by_path,
                Target::Path(0x1000),
                Layout::I386,
            ),
            (
                AUDIT_ARCH_X86_64,
                443,
                by_fd,
                Target::Descriptor(3),
                Layout::Native,
            ),
            (
                AUDIT_ARCH_I386,
                443,
                by_fd,
                Target::Descriptor(3),
                Layout::I386,
            ),
        ];
        for (arch, number, args, target, layout) in rows {
            let call = call(arch, number, args).unwrap();
            assert_eq!((call.target, call.layout), (target, layout));
            assert_eq!(call.word.command, Some(Command::GetInfo));
            assert_eq!((call.id, call.data), (5, 0x2000));
        }
        // The number of the other architecture is another system call.
        assert_eq!(call(AUDIT_ARCH_X86_64, 131, by_path), None);
        assert_eq!(call(AUDIT_ARCH_I386, 179, by_path), None);
        assert_eq!(call(0, 179, by_path), None);
    }
}

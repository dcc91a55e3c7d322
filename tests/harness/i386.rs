//! Programs of 32 bits, made here byte by byte: no compiler for them is needed.
//!
//! Such a program makes one system call after the other, writes what they returned and its data to its output, and ends.
//!
//! # Source
//! elf(5); syscall(2), the row i386 of its tables.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::command::finish;
use super::require;

/// Where the whole file is in memory.
const BASE: u32 = 0x0804_8000;
const HEADERS: u32 = 52 + 32;
const WRITE: u32 = 4;
const EXIT: u32 = 1;

/// A system call: number, and arguments in the order of the registers `ebx`, `ecx`, `edx`, `esi`.
pub(crate) type Call = [u32; 5];

/// The address of a byte of the data in a program with so many calls.
pub(crate) fn address(calls: usize, offset: usize) -> u32 {
    let results = u32::try_from(calls).unwrap() * 4;
    BASE + HEADERS + results + u32::try_from(offset).unwrap()
}

/// Writes such a program to a file.
pub(crate) fn build(path: &Path, calls: &[Call], data: &[u8]) {
    build_telling(path, calls, data, data.len());
}

/// The same, which writes no more than the beginning of its data to its output.
pub(crate) fn build_telling(path: &Path, calls: &[Call], data: &[u8], told: usize) {
    let end = u32::try_from(calls.len() * 4 + data.len()).unwrap();
    let output = u32::try_from(calls.len() * 4 + told).unwrap();
    let mut code = Vec::new();
    let all = [
        calls,
        &[[WRITE, 1, BASE + HEADERS, output, 0], [EXIT, 0, 0, 0, 0]],
    ]
    .concat();
    for (index, call) in all.iter().enumerate() {
        // mov eax, ebx, ecx, edx, esi
        for (opcode, value) in [0xb8, 0xbb, 0xb9, 0xba, 0xbe].into_iter().zip(call) {
            code.push(opcode);
            code.extend(value.to_le_bytes());
        }
        code.extend([0xcd, 0x80]); // int 0x80
        if index < calls.len() {
            code.push(0xa3); // mov [result], eax
            code.extend((BASE + HEADERS + u32::try_from(index).unwrap() * 4).to_le_bytes());
        }
    }
    let size = HEADERS + end + u32::try_from(code.len()).unwrap();
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0".to_vec();
    // Entry, program headers at 52, no sections, no flags; sizes and counts of headers.
    for word in [BASE + HEADERS + end, 52, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [52_u16, 32, 1, 40, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // All of it in one segment that may be read, written and executed.
    for word in [1, 0, BASE, BASE, size, size, 7, 4096] {
        file.extend(word.to_le_bytes());
    }
    file.resize(file.len() + calls.len() * 4, 0);
    file.extend(data);
    file.extend(code);
    std::fs::write(path, file).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Whether this kernel runs programs of 32 bits; if not, the test is skipped.
#[must_use]
pub(crate) fn runs(place: &Path) -> bool {
    let path = place.join("i386");
    build(&path, &[], b"32");
    // By a shell: this process may be starting others, which have the file open for writing for a moment.
    let outcome = finish(
        std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("cp {0} {0}.copy && {0}.copy", path.display())),
    );
    let runs = outcome.code == 0 && outcome.stdout == "32";
    if !runs {
        require::skip("this kernel runs no program of 32 bits");
    }
    runs
}

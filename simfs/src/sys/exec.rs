//! Starting another program in the place of this one. No locks.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;

/// The program that this process runs, also when its file was replaced or removed since.
///
/// # Errors
/// Where /proc is not to be had.
pub fn own_program() -> io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc/self/exe", flags, Mode::empty())?)
}

/// Lets a descriptor pass [`exec`].
///
/// # Errors
/// The kernel's.
pub fn hand_over(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, FdFlags::empty())?)
}

/// Runs an open program in the place of this one, with these arguments (the first is its name) and the environment.
/// Returns only where that fails.
pub fn exec(program: impl AsFd, arguments: &[CString]) -> io::Error {
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            CString::new(entry).ok()
        })
        .collect();
    let (arguments, environment) = (pointers(arguments), pointers(&environment));
    // SAFETY: both are arrays of pointers to strings that live beyond the call, and end with a null pointer.
    unsafe {
        libc::fexecve(
            program.as_fd().as_raw_fd(),
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let pointers = strings.iter().map(|string| string.as_ptr());
    pointers.chain([std::ptr::null()]).collect()
}

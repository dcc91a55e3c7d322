//! System calls: the only place with `unsafe` code.
//!
//! One file per family; [`mod@file`] gathers what is done to files. Files are named by descriptors; a name is one component
//! below a directory descriptor, never a path, and [`name::check`] refuses anything else. Errors are
//! [`std::io::Error`] with the kernel's number.
//!
//! Invariants:
//! 1. No call resolves a path outside the directory it was given, and none follows a symbolic link, unless its
//!    documentation says so ([`mount`], [`fuse_dev`] and [`proc_fd`] serve the host's side).
//! 2. Every descriptor made here is close-on-exec.
//! 3. Nothing is remembered between calls but the descriptor of `/proc/self/fd` and which calls this kernel lacks.
//!
//! No locks.

pub mod attr;
pub mod cpu;
pub mod creds;
pub mod dirent;
pub mod errand;
pub mod exec;
pub mod extents;
pub mod file;
pub mod fork;
pub mod fuse_dev;
pub mod handle;
pub mod heap;
pub mod inherited;
pub mod inode_flags;
pub mod lock;
pub mod loop_device;
pub mod mount;
pub mod name;
pub mod open;
pub mod present;
pub mod proc_fd;
pub mod process;
pub mod seccomp;
pub mod shared_map;
pub mod stat;
pub mod task;
pub mod user_namespace;
pub mod xattr;

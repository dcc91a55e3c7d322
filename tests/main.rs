//! End to end: real mounts, real programs, real users. Needs root; what cannot run here is skipped and counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "tests state what they expect"
)]

mod harness;

mod append_only;
mod attr;
mod container;
mod content;
mod control;
mod crash;
mod cut_off;
mod damage;
mod data;
mod differential;
mod dir;
mod ending;
mod escape;
mod faults;
mod grace;
mod install;
mod layering;
mod limits;
mod many_files;
mod mmap;
mod namespace;
mod power;
mod quotactl;
mod recipes;
mod recount;
mod runtime;
mod second_level;
mod semantics_doc;
mod service;
mod shortage;
mod statfs;
mod storm;
mod synced;
mod takeover;
mod transfer;
mod unmount;
mod xattr;

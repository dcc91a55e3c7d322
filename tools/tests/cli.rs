//! The command lines: grammar, output, exit codes; without a mount.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "a test states what it expects"
)]

#[path = "cli/bad_input.rs"]
mod bad_input;
#[path = "cli/check.rs"]
mod check;
#[path = "cli/first_level.rs"]
mod first_level;
#[path = "cli/host.rs"]
mod host;
#[path = "cli/manual.rs"]
mod manual;
#[path = "cli/mounted.rs"]
mod mounted;
#[path = "cli/quota_file.rs"]
mod quota_file;
#[path = "cli/runtime.rs"]
mod runtime;
#[path = "cli/second_level.rs"]
mod second_level;
#[path = "cli/store.rs"]
mod store;
#[path = "cli/template.rs"]
mod template;

//! What the end-to-end tests share: VEs that clean up behind themselves, users, observers, skips.
//!
//! Nothing here knows the product but by its programs and what a mount shows.

pub(crate) mod backing;
pub(crate) mod command;
pub(crate) mod compare;
pub(crate) mod container;
pub(crate) mod content;
pub(crate) mod crash;
pub(crate) mod figures;
pub(crate) mod files;
pub(crate) mod i386;
pub(crate) mod load;
pub(crate) mod namespace;
pub(crate) mod ops;
pub(crate) mod refusal;
pub(crate) mod require;
pub(crate) mod rootfs;
pub(crate) mod sampler;
pub(crate) mod tree;
pub(crate) mod user;
pub(crate) mod ve;

pub(crate) use backing::Kind;
pub(crate) use figures::{KIB, MIB};
pub(crate) use ve::{Spec, Ve};

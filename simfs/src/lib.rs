//! simfs: a VE's private area served through FUSE, every change of its disk usage accounted and limited.
//!
//! [`ve::start`] mounts a private area and returns when the mount answers. From then on every operation of the
//! guest passes [`fs`], which reaches files by descriptor only ([`private`], [`node`], [`handle`]) and changes usage
//! only through [`accounting`], the one seam to the `quota` crate. [`control`] and [`quotactl`] are the ways in for
//! the host's and the guest's administrators.

pub mod accounting;
pub mod confine;
pub mod control;
pub mod decoy;
pub mod descriptors;
pub mod error;
pub mod fault;
pub mod fs;
pub mod fuse;
pub mod handle;
pub mod host_faults;
pub mod housekeeper;
pub mod id;
pub mod idmap;
pub mod keeper;
pub mod mount;
pub mod node;
pub mod notify;
pub mod oci;
pub mod open;
pub mod private;
pub mod privileges;
pub mod quotactl;
pub mod recount;
pub mod resources;
pub mod scan;
pub mod shared;
pub mod sys;
pub mod ve;

//! What the programs share: command lines, values as typed, paths, reports, and the way to a VE's accounts.

pub mod absent;
pub mod archive;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod ending;
pub mod exit;
pub mod holders;
pub mod keys;
pub mod logging;
pub mod manual;
pub mod names;
pub mod paths;
pub mod progress;
pub mod record;
pub mod recount;
pub mod report;
pub mod runtime;
pub mod setting;
pub mod template;
pub mod ubc;
pub mod value;
pub mod ve_config;
pub mod ve_handle;
pub mod ve_state;

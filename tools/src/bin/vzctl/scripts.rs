//! Action scripts: what administrators add to mounting, starting, stopping and unmounting.
//!
//! ```text
//! etc/vz/conf/vps.premount   101.premount   before mounting      the host's, then the VE's
//!             vps.mount      101.mount      after mounting
//!                            101.start      in the VE, after its start
//!                            101.stop       in the VE, before its end
//!             101.umount     vps.umount     before unmounting    the VE's, then the host's
//!             101.postumount vps.postumount after unmounting
//! ```
//!
//! A script that ends with another code than 0 makes the command fail with 79.
//!
//! # Source
//! vzctl `src/lib/script.c`, `src/lib/fs.c` for the order.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Access;
use simfs_tools::exit::{Failure, VzctlExit};

use crate::{Context, Fallible};

/// When a script of the host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Premount,
    Mount,
    Umount,
    Postumount,
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::Premount => "premount",
            Self::Mount => "mount",
            Self::Umount => "umount",
            Self::Postumount => "postumount",
        }
    }
}

/// Runs the scripts of a phase.
///
/// # Errors
/// `Script`: the first that fails; those after it do not run.
pub(crate) fn run(context: &Context, phase: Phase) -> Fallible<()> {
    let name = phase.name();
    let mut scripts = [format!("vps.{name}"), format!("{}.{name}", context.ve)];
    if matches!(phase, Phase::Umount | Phase::Postumount) {
        scripts.reverse();
    }
    for script in scripts {
        let path = context.paths.conf_dir().join(script);
        if rustix::fs::access(&path, Access::EXEC_OK).is_ok() && path.is_file() {
            run_one(context, &path)?;
        }
    }
    Ok(())
}

/// The script of the host that is run in the VE, if there is one.
pub(crate) fn inside(context: &Context, name: &str) -> Option<PathBuf> {
    let path = context
        .paths
        .conf_dir()
        .join(format!("{}.{name}", context.ve));
    path.is_file().then_some(path)
}

fn run_one(context: &Context, script: &Path) -> Fallible<()> {
    let mut command = Command::new(script);
    command
        .env_clear()
        .env("VEID", context.ve.to_string())
        .env("VE_CONFFILE", context.paths.ve_config_file(context.ve))
        .env("PATH", "/bin:/usr/bin:/sbin:/usr/sbin")
        .env("HOME", "/")
        .env("TERM", std::env::var("TERM").unwrap_or_default())
        .stdin(Stdio::null());
    let why = match command.status() {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Failure::new(
        VzctlExit::Script,
        format!("action script {}: {why}", script.display()),
    ))
}

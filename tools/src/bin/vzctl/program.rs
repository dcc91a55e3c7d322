//! Other programs: those that belong to this one, and those of the host.

use std::ffi::OsStr;
use std::io;
use std::process::{Command, Stdio};

use crate::Context;

/// A program of this package: the one beside the running one, else the one in the search path.
pub(crate) fn own(context: &Context, name: &str) -> Command {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|this| Some(this.parent()?.join(name)))
        .filter(|path| path.exists());
    let program = beside.unwrap_or_else(|| name.into());
    let mut command = Command::new(program);
    command.arg("--prefix").arg(context.paths.prefix());
    command.stdin(Stdio::null());
    command
}

/// Runs a program to its end; its output, or the last line that it complained with.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| said(&name, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    Err(line.map_or_else(
        || format!("{name} failed and said nothing"),
        |line| line.trim().to_owned(),
    ))
}

/// Runs a program of this package on the VE; what it complains of is said without the VE's number, which stands before it
/// already.
pub(crate) fn run_own(context: &Context, command: &mut Command) -> Result<String, String> {
    run(command).map_err(|why| {
        let about = format!(": VE {}: ", context.ve);
        why.split_once(&about)
            .map_or(why.clone(), |(_, rest)| rest.to_owned())
    })
}

/// Runs a program of the host.
pub(crate) fn host<S: AsRef<OsStr>>(
    name: &str,
    args: impl IntoIterator<Item = S>,
) -> Result<String, String> {
    run(Command::new(name).args(args).stdin(Stdio::null()))
}

fn said(name: &str, error: &io::Error) -> String {
    format!("{name}: {error}")
}

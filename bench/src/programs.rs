//! Programs from Debian: which package has them, and running them without ever waiting for good.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a waiting loop looks.
const GLANCE: Duration = Duration::from_millis(5);
/// An installation takes no longer than this.
const INSTALLATION: Duration = Duration::from_secs(300);

/// A program, and the Debian package that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

impl Program {
    pub(crate) const fn new(name: &'static str, package: &'static str) -> Self {
        Self { name, package }
    }

    /// Whether it is in the search path.
    pub(crate) fn is_installed(self) -> bool {
        std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|dir| dir.join(self.name).is_file())
        })
    }
}

/// Installs the packages of these programs.
pub(crate) fn install(missing: &[Program]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(missing.iter().map(|program| program.package));
    output(&mut command, INSTALLATION).map(drop)
}

/// A command with arguments.
pub(crate) fn command<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Runs a command to its end in a directory; its output is dropped, its errors are reported.
pub(crate) fn run_in(dir: &Path, command: &mut Command) -> Result<()> {
    let said = command
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("{command:?}"))?;
    check(command, &said)
}

/// Runs a command and gives its output; killed when the time is over.
pub(crate) fn output(command: &mut Command, limit: Duration) -> Result<String> {
    let scratch = tempfile::tempfile().context("no temporary file")?;
    let errors = tempfile::tempfile().context("no temporary file")?;
    // Files, not pipes: a daemon that keeps them open would keep a reader waiting.
    let mut child = command
        .stdin(Stdio::null())
        .stdout(scratch.try_clone()?)
        .stderr(errors.try_clone()?)
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let status = wait(&mut child, limit).with_context(|| format!("{command:?}"))?;
    let said = Output {
        status,
        stdout: contents(scratch)?,
        stderr: contents(errors)?,
    };
    check(command, &said)?;
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

fn contents(mut file: std::fs::File) -> Result<Vec<u8>> {
    use std::io::{Read, Seek};
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(text)
}

fn check(command: &Command, said: &Output) -> Result<()> {
    if !said.status.success() {
        let errors = String::from_utf8_lossy(&said.stderr);
        let last = errors.lines().rev().find(|line| !line.trim().is_empty());
        bail!(
            "{:?}: {}: {}",
            command.get_program(),
            said.status,
            last.unwrap_or("no message")
        );
    }
    Ok(())
}

/// Waits for a child; kills it when the time is over.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<std::process::ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("no end after {} s", limit.as_secs());
        }
        thread::sleep(GLANCE);
    }
}

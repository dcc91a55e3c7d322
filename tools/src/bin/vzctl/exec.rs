//! Commands in a running VE: `exec`, `enter`, `runscript`, and the action scripts that run inside.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};

use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::runtime::Runtime;

use crate::args::{EnterArgs, StartArgs, StopArgs};
use crate::guest::Tree;
use crate::{Context, Fallible, bundle, start, stop, system};

/// `exec`: does not return when the command runs: signals, output and exit code are the command's.
pub(crate) fn run(context: &Context, words: &[String]) -> Fallible<u8> {
    let runtime = running(context)?;
    let mut command = runtime.exec(&environment(), false);
    let shell = shell(context)?;
    match words {
        [word] if word == "-" => command.arg(shell),
        words => command.args([shell, "-c", &words.join(" ")]),
    };
    Err(system(command.exec()))
}

/// `enter`: as `exec`, with a terminal if there is one.
pub(crate) fn enter(context: &Context, args: &EnterArgs) -> Fallible<u8> {
    let runtime = running(context)?;
    let mut command = runtime.exec(&environment(), io::stdin().is_terminal());
    let shell = shell(context)?;
    match &args.exec {
        Some(first) => command.args([shell, "-c", &format!("{first}\nexec {shell} -l")]),
        None => command.args([shell, "-l"]),
    };
    context.tell(&format!("entered into CT {}", context.ve));
    Err(system(command.exec()))
}

/// `runscript`: starts the VE for it if need be, and stops it afterwards.
pub(crate) fn runscript(context: &Context, script: &Path) -> Fallible<u8> {
    let is_running = context.must_be_made()?.is_running();
    let script = open(script)?;
    if !is_running {
        let args = StopArgs {
            veid: String::new(),
            fast: true,
            skip_umount: false,
        };
        let begin: StartArgs = args.start();
        start::run(context, &begin)?;
        let code = running(context).and_then(|runtime| feed(context, &runtime, script));
        stop::run(context, &args)?;
        return code;
    }
    let runtime = running(context)?;
    feed(context, &runtime, script)
}

/// Runs a script of the host in the VE; it must end well.
pub(crate) fn action_script(context: &Context, runtime: &Runtime, script: &Path) -> Fallible<()> {
    match feed(context, runtime, open(script)?)? {
        0 => Ok(()),
        code => Err(Failure::new(
            VzctlExit::Script,
            format!("action script {}: exit code {code}", script.display()),
        )),
    }
}

fn open(script: &Path) -> Fallible<File> {
    let failed = |error: io::Error| {
        Failure::new(VzctlExit::Script, format!("{}: {error}", script.display()))
    };
    let file = File::open(script).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    Ok(file)
}

/// Gives a script to the VE's shell; its exit code.
fn feed(context: &Context, runtime: &Runtime, script: File) -> Fallible<u8> {
    let mut command: Command = runtime.exec(&environment(), false);
    let status = command
        .arg(shell(context)?)
        .stdin(Stdio::from(script))
        .status()
        .map_err(system)?;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The runtime of a VE that runs.
fn running(context: &Context) -> Fallible<Runtime> {
    context.must_run(&format!(": start it with 'vzctl start {}'", context.ve))?;
    context.runtime(&context.config()?)
}

fn shell(context: &Context) -> Fallible<&'static str> {
    let root = context.paths.root(context.ve).map_err(system)?;
    Ok(Tree::open(&root).map_err(system)?.shell())
}

fn environment() -> Vec<String> {
    let term = std::env::var("TERM").unwrap_or_else(|_| "linux".into());
    vec![
        bundle::PATH.to_owned(),
        "HOME=/root".into(),
        "USER=root".into(),
        "LOGNAME=root".into(),
        format!("TERM={term}"),
    ]
}

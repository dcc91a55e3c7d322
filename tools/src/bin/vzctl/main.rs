//! `vzctl`: makes, starts, changes, stops and removes VEs, in OpenVZ's grammar.

mod args;
mod bundle;
mod create;
mod destroy;
mod devices;
mod disk;
mod exec;
mod former;
mod guest;
mod ids;
mod lock;
mod manual;
mod mount;
mod program;
mod scripts;
mod set;
mod start;
mod stop;
mod template;
mod ubc;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use quota::VeId;
use simfs_tools::absent;
use simfs_tools::cli;
use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::logging;
use simfs_tools::paths::Paths;
use simfs_tools::report::{complain, print};
use simfs_tools::runtime::{Runtime, RuntimeError};
use simfs_tools::ve_config::{VeConfig, VeConfigError};
use simfs_tools::ve_state::{VeState, resolve};

use crate::args::{Cli, Command};
use crate::lock::Lock;

/// What a step ends with when it fails.
type Fallible<T> = Result<T, Failure<VzctlExit>>;
/// How a command ends.
type Outcome = Fallible<VzctlExit>;

/// What every command knows.
struct Context {
    paths: Paths,
    ve: VeId,
    quiet: bool,
    skip_lock: bool,
    runtime: Option<String>,
}

impl Context {
    /// Tells what is being done.
    fn tell(&self, message: &str) {
        if !self.quiet {
            let _nobody_reads = print(&format!("{message}\n"));
        }
    }

    /// Tells of something that is no error.
    fn warn(&self, message: &str) {
        if !self.quiet {
            complain(&format!("vzctl: VE {}: warning: {message}", self.ve));
        }
    }

    /// Keeps other commands from the VE.
    fn lock(&self, what: &str) -> Fallible<Option<Lock>> {
        if self.skip_lock {
            return Ok(None);
        }
        Lock::take(&self.paths, self.ve, what).map(Some)
    }

    fn config(&self) -> Fallible<VeConfig> {
        let config = VeConfig::open(&self.paths, self.ve).map_err(config_failure)?;
        for (line, key) in config.repeated() {
            let file = self.paths.ve_config_file(self.ve);
            self.warn(&format!(
                "{}: line {line}: {key} stands above already, so this one does not count",
                file.display()
            ));
        }
        Ok(config)
    }

    fn state(&self) -> Fallible<VeState> {
        VeState::of(&self.paths, self.ve).map_err(|error| config_failure(error.into()))
    }

    /// The VE's container runtime: the option, else the VE's configuration, else the host's.
    fn runtime(&self, config: &VeConfig) -> Fallible<Runtime> {
        let configured = config.get("RUNTIME");
        let wanted = self.runtime.as_deref().or(configured.as_deref());
        Runtime::choose(&self.paths, self.ve, wanted).map_err(runtime_failure)
    }

    /// Refuses a VE that was never made.
    fn must_exist(&self) -> Fallible<VeState> {
        self.must_exist_or("'vzlist -a' lists those there are")
    }

    /// The same for what begins a VE's life.
    fn must_be_made(&self) -> Fallible<VeState> {
        self.must_exist_or(&format!("make it with 'vzctl create {}'", self.ve))
    }

    fn must_exist_or(&self, remedy: &str) -> Fallible<VeState> {
        let state = self.state()?;
        if state.exists {
            return Ok(state);
        }
        let private = self
            .paths
            .private(self.ve)
            .map_err(|error| config_failure(error.into()))?;
        Err(Failure::new(
            VzctlExit::NoPrivate,
            format!(
                "no such VE: there is no private area {}: {remedy}",
                private.display()
            ),
        ))
    }

    /// Refuses a VE that does not run; `remedy` is for one that could.
    fn must_run(&self, remedy: &str) -> Fallible<()> {
        let state = self.state()?;
        if state.is_running() {
            return Ok(());
        }
        let remedy = if state.exists {
            remedy
        } else {
            ": there is no such VE, 'vzlist -a' lists those there are"
        };
        Err(Failure::new(
            VzctlExit::NotRunning,
            format!("not running{remedy}"),
        ))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(done) = manual::answer(&arguments) {
        return done.into();
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return explained(&error).into(),
    };
    logging::to_stderr(if cli.verbose { "debug" } else { "warn" });
    match run(&cli) {
        Ok(Ended::Well(exit)) => exit.into(),
        Ok(Ended::With(code)) => ExitCode::from(code),
        Err(failure) => {
            complain(&format!("vzctl: {}", failure.message));
            failure.exit.into()
        }
    }
}

/// How a command ended that did not fail.
enum Ended {
    Well(VzctlExit),
    /// With the code of a program in the VE.
    With(u8),
}

fn explained(error: &clap::Error) -> VzctlExit {
    let explained = match absent::complaint(error) {
        Some(line) => Err(line),
        None => cli::explain(error, "vzctl"),
    };
    match explained {
        Ok(text) => print(&text).map_or(VzctlExit::System, |()| VzctlExit::Ok),
        Err(line) => {
            complain(&format!("vzctl: {line}"));
            VzctlExit::Usage
        }
    }
}

fn run(cli: &Cli) -> Fallible<Ended> {
    let paths = Paths::open(cli.common.prefix.as_deref())
        .map_err(|error| Failure::new(VzctlExit::Config, error.to_string()))?;
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(VzctlExit::Denied, "only root can do this"));
    }
    let Some(veid) = cli.command.veid() else {
        return ubc::all(&paths).map(Ended::Well);
    };
    let ve =
        resolve(&paths, veid).map_err(|error| Failure::new(VzctlExit::Value, error.to_string()))?;
    let context = Context {
        paths,
        ve,
        quiet: cli.quiet,
        skip_lock: cli.skiplock,
        runtime: cli.runtime.clone(),
    };
    dispatch(&context, &cli.command).map_err(|failure| failure.about(format_args!("VE {ve}")))
}

fn dispatch(context: &Context, command: &Command) -> Fallible<Ended> {
    let exit = match command {
        Command::Create(args) => create::run(context, args)?,
        Command::Destroy(_) => destroy::run(context)?,
        Command::Mount(_) => mount::mount_command(context)?,
        Command::Umount(_) => mount::umount_command(context)?,
        Command::Start(args) => start::run(context, args)?,
        Command::Stop(args) => stop::run(context, args)?,
        Command::Restart(args) => {
            stop::stop_if_running(context, args)?;
            start::run(context, &args.start())?
        }
        Command::Status(_) => status(context)?,
        Command::Set(args) => set::run(context, args)?,
        Command::Exec(args) | Command::Exec2(args) => {
            return exec::run(context, &args.command).map(Ended::With);
        }
        Command::Enter(args) => return exec::enter(context, args).map(Ended::With),
        Command::Runscript(args) => {
            return exec::runscript(context, &args.script).map(Ended::With);
        }
        Command::Ubc(_) => ubc::one(context)?,
        Command::ServeUbc(args) => ubc::serve(context, args)?,
        Command::Quotaon(_) => disk::quotaon(context)?,
        Command::Quotaoff(_) => disk::quotaoff(context)?,
        Command::Quotainit(_) => disk::quotainit(context)?,
    };
    Ok(Ended::Well(exit))
}

/// OpenVZ's line, which scripts read.
fn status(context: &Context) -> Outcome {
    let state = context.state()?;
    let line = format!(
        "CTID {} {} {} {}\n",
        context.ve,
        if state.exists { "exist" } else { "deleted" },
        if state.is_mounted {
            "mounted"
        } else {
            "unmounted"
        },
        if state.is_running() {
            "running"
        } else {
            "down"
        },
    );
    print(&line).map_err(system)?;
    Ok(VzctlExit::Ok)
}

/// A failure of the system, in its own words.
fn system(error: impl ToString) -> Failure<VzctlExit> {
    Failure::new(VzctlExit::System, error.to_string())
}

fn runtime_failure(error: RuntimeError) -> Failure<VzctlExit> {
    let exit = match &error {
        RuntimeError::Missing { .. } => VzctlExit::NoRuntime,
        _ => VzctlExit::System,
    };
    Failure::new(exit, error.to_string())
}

fn config_failure(error: VeConfigError) -> Failure<VzctlExit> {
    Failure::new(VzctlExit::Config, error.to_string())
}

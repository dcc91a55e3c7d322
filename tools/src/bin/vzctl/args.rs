//! The command line.
//!
//! # Source
//! vzctl(8). What can be set is the table of [`simfs_tools::setting`], for `create` and `set` alike.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use simfs_tools::cli::Common;
use simfs_tools::exit::{self, Failure, VzctlExit};
use simfs_tools::setting::{SETTINGS, of_flag};
use simfs_tools::ve_config::Changes;

use crate::Fallible;

/// What follows the exit codes.
pub(crate) const EXIT_NOTE: &str = "exec, enter, runscript: the code of the command in the VE.";

/// Containers on simfs roots.
#[derive(Debug, Parser)]
#[command(name = "vzctl", version, after_help = format!("{} {EXIT_NOTE}", exit::help(VzctlExit::ALL)), max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Say nothing but errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Do not wait for, or keep off, other commands on the VE.
    #[arg(long, global = true)]
    pub(crate) skiplock: bool,
    /// Container runtime: crun or runc (default: RUNTIME of the configuration, else what is installed).
    #[arg(long, global = true, value_name = "NAME", value_parser = ["crun", "runc"])]
    pub(crate) runtime: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a VE from a template.
    Create(CreateArgs),
    /// Remove a VE that is stopped, with everything that belongs to it.
    #[command(visible_alias = "delete")]
    Destroy(VeArgs),
    /// Mount a VE's root without starting it.
    Mount(VeArgs),
    /// Unmount the root of a VE that is stopped.
    Umount(VeArgs),
    /// Mount and start a VE.
    Start(StartArgs),
    /// Stop and unmount a VE.
    Stop(StopArgs),
    /// Stop a VE if it runs, and start it.
    Restart(StopArgs),
    /// Show whether a VE exists, is mounted and runs.
    Status(VeArgs),
    /// Change a VE's parameters; in force at once where possible.
    Set(SetArgs),
    /// Run a command in a running VE.
    Exec(ExecArgs),
    /// The same.
    Exec2(ExecArgs),
    /// Open a shell in a running VE.
    Enter(EnterArgs),
    /// Run a script of the host in a VE, which is started for it if need be.
    Runscript(ScriptArgs),
    /// Show the user beancounters of a VE, or of all that run.
    Ubc(UbcArgs),
    /// Serves the beancounters file of a VE that starts.
    #[command(hide = true)]
    ServeUbc(ServeUbcArgs),
    /// Enforce disk limits.
    Quotaon(VeArgs),
    /// Stop enforcing disk limits.
    Quotaoff(VeArgs),
    /// Make the VE's quota record anew, with the configured limits.
    Quotainit(VeArgs),
}

impl Command {
    /// The VE as typed; `None` of a command on all of them.
    pub(crate) fn veid(&self) -> Option<&str> {
        Some(match self {
            Self::Ubc(args) => return args.veid.as_deref(),
            Self::Create(args) => &args.veid,
            Self::Destroy(args)
            | Self::Mount(args)
            | Self::Umount(args)
            | Self::Status(args)
            | Self::Quotaon(args)
            | Self::Quotaoff(args)
            | Self::Quotainit(args) => &args.veid,
            Self::Start(args) => &args.veid,
            Self::Stop(args) | Self::Restart(args) => &args.veid,
            Self::Set(args) => &args.veid,
            Self::Exec(args) | Self::Exec2(args) => &args.veid,
            Self::Enter(args) => &args.veid,
            Self::Runscript(args) => &args.veid,
            Self::ServeUbc(args) => &args.veid,
        })
    }
}

/// A VE and nothing else.
#[derive(Debug, Args)]
pub(crate) struct VeArgs {
    /// The VE's number or name.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
}

/// `create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The VE's number.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// The template, of those that 'vzpkg list' shows (default: DEF_OSTEMPLATE).
    #[arg(long, value_name = "NAME")]
    pub(crate) ostemplate: Option<String>,
    /// Take what is not given from the sample ve-NAME.conf-sample (default: CONFIGFILE).
    #[arg(long, value_name = "NAME")]
    pub(crate) config: Option<String>,
    /// The private area (default: VE_PRIVATE).
    #[arg(long, value_name = "DIR")]
    pub(crate) private: Option<String>,
    /// Where it is mounted (default: VE_ROOT).
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<String>,
    /// Accepted: every VE lies on simfs.
    #[arg(long, hide = true, value_parser = ["simfs"])]
    layout: Option<String>,
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
}

/// `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// The VE's number or name.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// Start it although it is disabled.
    #[arg(long)]
    pub(crate) force: bool,
    /// Accepted for old scripts: a started VE runs when the command returns.
    #[arg(long, hide = true)]
    wait: bool,
    /// First program of the VE (default: /sbin/init, else a shell that only waits).
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `stop` and `restart`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The VE's number or name.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// End its processes at once.
    #[arg(long)]
    pub(crate) fast: bool,
    /// Leave it mounted.
    #[arg(long)]
    pub(crate) skip_umount: bool,
}

impl StopArgs {
    /// What `restart` does afterwards.
    pub(crate) fn start(&self) -> StartArgs {
        StartArgs {
            veid: self.veid.clone(),
            force: false,
            wait: false,
            command: Vec::new(),
        }
    }
}

/// `set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The VE's number or name.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// Keep the values in the VE's configuration.
    #[arg(long)]
    pub(crate) save: bool,
    /// Apply the sample ve-NAME.conf-sample, or without a name the VE's own configuration.
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    pub(crate) applyconfig: Option<Option<String>>,
    /// Accepted for old scripts: nothing here needs a restart by force.
    #[arg(long, hide = true)]
    force: bool,
    /// Accepted for old scripts.
    #[arg(long, hide = true)]
    setmode: Option<String>,
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
}

/// `exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The VE's number or name.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// A command for the VE's shell; '-': commands from standard input.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// `enter`.
#[derive(Debug, Args)]
pub(crate) struct EnterArgs {
    /// The VE's number or name.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// Run this first.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) exec: Option<String>,
}

/// `ubc`.
#[derive(Debug, Args)]
pub(crate) struct UbcArgs {
    /// The VE's number or name.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: Option<String>,
}

/// `serve-ubc`.
#[derive(Debug, Args)]
pub(crate) struct ServeUbcArgs {
    /// The VE's number.
    pub(crate) veid: String,
    /// Owner of the file.
    pub(crate) uid: u32,
    /// Its group.
    pub(crate) gid: u32,
}

/// `runscript`.
#[derive(Debug, Args)]
pub(crate) struct ScriptArgs {
    /// The VE's number or name.
    #[arg(allow_negative_numbers = true)]
    pub(crate) veid: String,
    /// The script, a file of the host.
    pub(crate) script: PathBuf,
}

/// What is to be set, as typed: flag and value.
#[derive(Debug)]
pub(crate) struct SettingArgs(Vec<(&'static str, String)>);

impl SettingArgs {
    /// The same by key and in the stored form.
    ///
    /// # Errors
    /// `Value`: not of the setting's form.
    pub(crate) fn changes(&self) -> Fallible<Changes> {
        let read = |(flag, value): &(&'static str, String)| {
            let setting = of_flag(flag)?;
            let stored = setting.typed(value).map_err(|error| {
                Failure::new(VzctlExit::Value, error.to_string()).about(format_args!("--{flag}"))
            });
            Some(stored.map(|stored| (setting.key, stored)))
        };
        self.0.iter().filter_map(read).collect()
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = SETTINGS.iter().filter_map(|setting| {
            let values: Vec<&str> = matches
                .get_many::<String>(setting.flag)?
                .map(String::as_str)
                .collect();
            Some((setting.flag, values.join(" ")))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for SettingArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        SETTINGS.iter().fold(command, |command, setting| {
            command.arg(
                Arg::new(setting.flag)
                    .long(setting.flag)
                    .value_name(setting.value_name)
                    .help(setting.help)
                    .action(ArgAction::Append)
                    .allow_hyphen_values(true),
            )
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

//! Completion at the shell's prompt: the shell asks the program itself, so commands, options, VEs and templates are
//! those of this program and this host at that moment.

use std::ffi::OsString;

use clap::Command;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::CompleteEnv;

use crate::paths::Paths;
use crate::value::parse_ve;
use crate::ve_state::known;

/// The variable by which a shell asks.
pub(super) const VARIABLE: &str = "SIMFS_COMPLETE";

/// Which VEs make sense for a command.
#[derive(Clone, Copy)]
enum Wanted {
    Any,
    Mounted,
    Unmounted,
    New,
}

/// Answers a shell that asks; whether one did.
pub(super) fn answer(arguments: &[OsString], command: fn() -> Command) -> bool {
    if std::env::var_os(VARIABLE).is_none() {
        return false;
    }
    CompleteEnv::with_factory(|| offering(command()))
        .var(VARIABLE)
        .try_complete(arguments.to_vec(), None)
        .unwrap_or(false)
}

/// The parser, its arguments knowing what they can stand for.
fn offering(command: Command) -> Command {
    let name = command.get_name().to_owned();
    let command = command.mut_args(|argument| {
        let wanted = match name.as_str() {
            "create" | "init" => Wanted::New,
            "start" | "mount" | "destroy" | "delete" | "drop" => Wanted::Unmounted,
            "stop" | "umount" | "exec" | "exec2" | "enter" | "upgrade" | "oci" | "stat" => {
                Wanted::Mounted
            }
            _ => Wanted::Any,
        };
        match argument.get_id().as_str() {
            "veid" | "ves" => argument.add(ArgValueCandidates::new(move || ves(wanted))),
            "ostemplate" | "template" => argument.add(ArgValueCandidates::new(templates)),
            _ => argument,
        }
    });
    command.mut_subcommands(offering)
}

fn ves(wanted: Wanted) -> Vec<CompletionCandidate> {
    let Ok(paths) = Paths::open(None) else {
        return Vec::new();
    };
    let is_mounted = |ve| paths.run_dir(ve).join(simfs::control::SOCKET_NAME).exists();
    let mut all = known(&paths);
    let records = std::fs::read_dir(paths.states()).into_iter().flatten();
    all.extend(
        records
            .flatten()
            .filter_map(|entry| parse_ve(entry.file_name().to_str()?).ok()),
    );
    all.into_iter()
        .filter(|ve| match wanted {
            Wanted::Any => true,
            Wanted::New => false,
            Wanted::Mounted => is_mounted(*ve),
            Wanted::Unmounted => !is_mounted(*ve),
        })
        .map(|ve| CompletionCandidate::new(ve.to_string()))
        .collect()
}

fn templates() -> Vec<CompletionCandidate> {
    let Ok(paths) = Paths::open(None) else {
        return Vec::new();
    };
    let names = crate::template::names(&paths.template().join("cache"));
    names.into_iter().map(CompletionCandidate::new).collect()
}

//! What the command lines of all programs have in common.

use std::path::PathBuf;

use clap::error::ErrorKind;

/// Options of every program, before the command or after it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Common {
    /// Everything (configuration, stores, sockets, VEs) lies below DIR; also SIMFS_PREFIX=DIR.
    #[arg(long, value_name = "DIR", global = true)]
    pub prefix: Option<PathBuf>,
}

/// What to do with a command line that clap did not take: show `Ok(text)` and end well, or complain of `Err(line)`.
///
/// # Errors
/// The complaint, in one line that names the argument and the remedy.
pub fn explain(error: &clap::Error, program: &str) -> Result<String, String> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(error.to_string()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            Err(format!("no command given: see {program} --help"))
        }
        _ => {
            let text = error.to_string();
            let words: Vec<&str> = text
                .lines()
                .take_while(|line| {
                    let line = line.trim_start();
                    let is_over = ["Usage:", "For more", "tip: to pass"];
                    !is_over.iter().any(|start| line.starts_with(start))
                })
                .flat_map(str::split_whitespace)
                .collect();
            let line = words.join(" ");
            let line = line.strip_prefix("error: ").unwrap_or(&line);
            Err(format!("{line}: see {program} --help"))
        }
    }
}

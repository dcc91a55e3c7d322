//! `vzpkg`: templates to make VEs from. Also called as `vzpkgls` (list), `vzpkgcache` (cache) and `vzyum`, which says
//! what to use in its place.
//!
//! A template is a tar file, or a directory that can be cloned, in the cache; it appears there under its name only
//! when it is whole.

mod args;
mod debian;
mod import;
mod manual;
mod oci;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, ExitCode, Stdio};

use clap::Parser;
use simfs_tools::cli;
use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::paths::Paths;
use simfs_tools::report::{complain, print};
use simfs_tools::{archive, template};

use crate::args::{Cli, Command, Form};

type Fallible<T> = Result<T, Failure<VzctlExit>>;

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(failure) => return ended(failure).into(),
    };
    if let Some(done) = manual::answer(&arguments) {
        return done.into();
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return explained(&error).into(),
    };
    match run(&cli) {
        Ok(()) => VzctlExit::Ok.into(),
        Err(failure) => ended(failure).into(),
    }
}

fn ended(failure: Failure<VzctlExit>) -> VzctlExit {
    complain(&format!("vzpkg: {}", failure.message));
    failure.exit
}

/// The command line; under an old name the command that it stood for is put in.
///
/// # Errors
/// `vzyum` stands for nothing here.
fn arguments() -> Fallible<Vec<OsString>> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    let command = match name.and_then(|name| name.to_str()) {
        Some("vzpkgls") => "list",
        Some("vzpkgcache") => "cache",
        Some("vzyum") => {
            return Err(Failure::new(
                VzctlExit::Usage,
                "vzyum managed packages of OpenVZ's RPM templates: use the VE's own package manager, as in \
                 'vzctl exec VEID apt-get install NAME', or 'vzpkg cache NAME --include PACKAGES' for new VEs",
            ));
        }
        _ => return Ok(arguments),
    };
    let is_version = |word: &OsString| word == "--version" || word == "-V";
    if !arguments.get(1).is_some_and(is_version) {
        arguments.insert(1, command.into());
    }
    Ok(arguments)
}

fn explained(error: &clap::Error) -> VzctlExit {
    match cli::explain(error, "vzpkg") {
        Ok(text) => print(&text).map_or(VzctlExit::System, |()| VzctlExit::Ok),
        Err(line) => {
            complain(&format!("vzpkg: {line}"));
            VzctlExit::Usage
        }
    }
}

fn run(cli: &Cli) -> Fallible<()> {
    let paths = Paths::open(cli.common.prefix.as_deref())
        .map_err(|error| Failure::new(VzctlExit::Config, error.to_string()))?;
    let cache = paths.template().join("cache");
    match &cli.command {
        Command::List => list(&cache),
        Command::Cache(args) => debian::cache(&cache, args),
        Command::Import(args) => import::import(&cache, args),
        Command::Remove { name } => remove(&cache, name),
    }
}

fn list(cache: &Path) -> Fallible<()> {
    let names = template::names(cache);
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    print(&text).map_err(system)
}

fn remove(cache: &Path, name: &str) -> Fallible<()> {
    check_name(name)?;
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| template::name(path).as_deref() == Some(name))
        .collect();
    if files.is_empty() {
        let message = format!("template '{name}' is not in {}", cache.display());
        return Err(Failure::new(VzctlExit::NoTemplate, message));
    }
    for path in files {
        if path.is_dir() {
            fs::remove_dir_all(&path).map_err(system)?;
        } else {
            fs::remove_file(&path).map_err(system)?;
        }
    }
    Ok(())
}

/// Refuses what cannot be the name of a template.
fn check_name(name: &str) -> Fallible<()> {
    let is_name = !name.is_empty()
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_name {
        return Ok(());
    }
    Err(Failure::new(
        VzctlExit::Value,
        format!("'{name}' is not a name for a template: give letters, digits, '.', '_' and '-'"),
    ))
}

/// A place to work in, on the cache's file system; it goes with the value.
struct Workshop {
    dir: PathBuf,
}

impl Workshop {
    fn open(cache: &Path, name: &str) -> Fallible<Self> {
        let dir = cache.join(format!(".{name}.making"));
        remove_tree(&dir).map_err(system)?;
        fs::create_dir_all(&dir).map_err(system)?;
        Ok(Self { dir })
    }

    /// Makes a tree a template.
    fn publish(&self, tree: &Path, cache: &Path, name: &str, form: Form) -> Fallible<()> {
        let target = cache.join(format!("{name}{}", form.suffix()));
        if form == Form::Tree {
            remove_tree(&target).map_err(system)?;
            return fs::rename(tree, &target).map_err(system);
        }
        let file = self.dir.join("template");
        archive::pack(tree, &file, form.compression()).map_err(system)?;
        fs::rename(&file, &target).map_err(system)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.dir) {
            complain(&format!("vzpkg: {}: {error}", self.dir.display()));
        }
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Runs a program that must end well; its output goes where this program's errors go.
fn program(command: &mut Program) -> Fallible<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::new(VzctlExit::System, format!("{name}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    Err(Failure::new(
        VzctlExit::System,
        format!("{name}: {}", line.unwrap_or("failed and said nothing")),
    ))
}

/// A failure of the system, in its own words.
fn system(error: impl ToString) -> Failure<VzctlExit> {
    Failure::new(VzctlExit::System, error.to_string())
}

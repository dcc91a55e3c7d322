//! The container runtime: crun or runc, unchanged, driven by its command line.
//!
//! A VE's container has the VE's number as its name; the runtime keeps its state below the VE's instance directory, so
//! VEs of another prefix cannot be mistaken for it.
//!
//! On hosts that mount both generations of cgroups, crun refuses to work. There it is run in a mount namespace of its
//! own that shows it the second generation only, and is put into the VE's groups of the first before it starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use quota::VeId;
use serde::Deserialize;
use thiserror::Error;

use crate::cgroup::{Layout, ResourceGroups};
use crate::paths::Paths;
use crate::ve_state::in_table;

mod first_process;

use first_process::FirstProcess;

/// Joins groups, shows the second generation of cgroups only, and becomes the runtime.
///
/// The namespace that it does this in may live as long as a session in the VE. So it lets go of the roots of all VEs
/// but the one to start: none could be unmounted to the end otherwise.
const WRAPPER: &str = "groups=$1; keep=$2; shift 2; IFS=:\n\
    for group in $groups; do [ -d \"$group\" ] && { echo $$ > \"$group/cgroup.procs\" || exit 125; }; done\n\
    unset IFS\n\
    roots=$(while read -r source place kind rest; do\n\
    [ \"$kind\" != fuse.simfs ] || [ \"$place\" = \"$keep\" ] || printf '%b\\n' \"$place\"\n\
    done < /proc/self/mounts)\n\
    IFS='\n'; set -f; [ -z \"$roots\" ] || umount -l $roots; set +f; unset IFS\n\
    mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 125\n\
    exec \"$@\"";

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// crun.
    Crun,
    /// runc.
    Runc,
}

impl Kind {
    /// The program's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
        }
    }

    /// The kind of a name.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Crun, Self::Runc]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// What a VE's container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// The runtime does not know it.
    Absent,
    /// Its first process runs, or is frozen.
    Running,
    /// Its first process has ended, or was never started.
    Stopped,
}

/// Why the runtime cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// None is installed, or not the wanted one.
    #[error("no container runtime: install {wanted}, or name another with RUNTIME= in vz.conf")]
    Missing {
        /// Which.
        wanted: String,
    },
    /// It cannot be run.
    #[error("{program}: {error}")]
    Start {
        /// Which.
        program: &'static str,
        /// Why.
        error: io::Error,
    },
    /// It failed.
    #[error("{program} {verb}: {message}")]
    Failed {
        /// Which.
        program: &'static str,
        /// What it was to do.
        verb: &'static str,
        /// What it said.
        message: String,
    },
}

/// One VE's way to its runtime.
#[derive(Clone, Debug)]
pub struct Runtime {
    kind: Kind,
    id: String,
    root: PathBuf,
    /// Where the first process is noted.
    first: PathBuf,
    groups: ResourceGroups,
}

/// Whose resources the runtime's process uses, and those that it starts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    Host,
    Ve,
    /// The VE's, and its root, mounted here, is needed.
    Start(&'a Path),
}

#[derive(Deserialize)]
struct StateJson {
    status: String,
    pid: Option<u32>,
}

impl Runtime {
    /// The runtime that the VE was started with, else the wanted one, else what is installed.
    ///
    /// # Errors
    /// `Missing`.
    pub fn choose(paths: &Paths, ve: VeId, wanted: Option<&str>) -> Result<Self, RuntimeError> {
        let used = fs::read_to_string(paths.instance_dir(ve).join("runtime")).ok();
        let named = used.as_deref().map(str::trim).or(wanted);
        let kind = match named {
            Some(name) => Kind::of(name).filter(|kind| is_installed(kind.name())),
            None => [Kind::Crun, Kind::Runc]
                .into_iter()
                .find(|kind| is_installed(kind.name())),
        };
        let kind = kind.ok_or_else(|| RuntimeError::Missing {
            wanted: named.unwrap_or("crun or runc").to_owned(),
        })?;
        Ok(Self {
            kind,
            id: ve.to_string(),
            root: paths.instance_dir(ve).join("containers"),
            first: paths.instance_dir(ve).join("first-process"),
            groups: ResourceGroups::of(paths, ve),
        })
    }

    /// Which program it is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The VE's resource groups.
    pub const fn groups(&self) -> &ResourceGroups {
        &self.groups
    }

    /// Whether the runtime is shown the second generation of cgroups only, although the host has both.
    pub fn is_kept_from_first_generation(&self) -> bool {
        self.kind == Kind::Crun && self.groups.layout() == Layout::Hybrid
    }

    /// Starts the container of a bundle in the background, rooted at a mount; its output goes to the console file.
    ///
    /// # Errors
    /// What the runtime says; nothing is left of the container then.
    pub fn run(&self, bundle: &Path, root: &Path, console: &Path) -> Result<(), RuntimeError> {
        let failed = |error| self.cannot_start(error);
        let output = fs::File::create(console).map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        let pid_file = bundle.join("pid");
        let status = self
            .command(Place::Start(root))
            .args(["run", "--detach", "--pid-file"])
            .arg(&pid_file)
            .arg("--bundle")
            .arg(bundle)
            .arg(&self.id)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .status()
            .map_err(failed)?;
        if status.success() {
            self.note_first(&pid_file);
            return Ok(());
        }
        let text = fs::read_to_string(console).unwrap_or_default();
        let _nothing_left = self.delete();
        Err(self.said("run", &text))
    }

    fn note_first(&self, pid_file: &Path) {
        let text = fs::read_to_string(pid_file).unwrap_or_default();
        let process = text.trim().parse().ok().and_then(FirstProcess::of);
        if let Some(process) = process {
            // Without it the runtime is asked.
            let _slower = process.note(&self.first);
        }
    }

    /// What the container does, and the host's number of its first process.
    pub fn state(&self) -> (ContainerState, Option<u32>) {
        if !self.root.join(&self.id).exists() {
            return (ContainerState::Absent, None);
        }
        if let Some(process) = FirstProcess::noted(&self.first) {
            return (ContainerState::Running, Some(process.pid()));
        }
        let output = self
            .command(Place::Host)
            .args(["state", &self.id])
            .stdin(Stdio::null())
            .output();
        let state = output
            .ok()
            .and_then(|output| serde_json::from_slice::<StateJson>(&output.stdout).ok());
        match state {
            Some(state) if matches!(state.status.as_str(), "running" | "paused") => {
                (ContainerState::Running, state.pid)
            }
            Some(_) => (ContainerState::Stopped, None),
            None => (ContainerState::Absent, None),
        }
    }

    /// Sends a signal to the container's first process.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn kill(&self, signal: &str) -> Result<(), RuntimeError> {
        self.finish("kill", &["kill", &self.id, signal])
    }

    /// Ends the container by force if it runs, and forgets it.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn delete(&self) -> Result<(), RuntimeError> {
        if !self.root.join(&self.id).exists() {
            return Ok(());
        }
        self.finish("delete", &["delete", "--force", &self.id])
    }

    /// Gives the container other resources: `linux.resources` of an OCI configuration, in part.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn update(&self, resources: &str) -> Result<(), RuntimeError> {
        let file = self.first.with_file_name("resources.json");
        fs::write(&file, resources).map_err(|error| self.cannot_start(error))?;
        let path = file.display().to_string();
        self.finish("update", &["update", "--resources", &path, &self.id])
    }

    /// The command that runs a program in the container and becomes it; the program's words follow.
    pub fn exec(&self, environment: &[String], is_terminal: bool) -> Command {
        let mut command = self.command(Place::Ve);
        command.arg("exec");
        if is_terminal {
            command.arg("--tty");
        }
        for variable in environment {
            command.args(["--env", variable]);
        }
        command.arg(&self.id);
        command
    }

    fn finish(&self, verb: &'static str, args: &[&str]) -> Result<(), RuntimeError> {
        let output = self
            .command(Place::Host)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| self.cannot_start(error))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(self.said(verb, &String::from_utf8_lossy(&output.stderr)))
        }
    }

    /// The runtime's command line so far, see [`WRAPPER`].
    fn command(&self, place: Place<'_>) -> Command {
        if !self.is_kept_from_first_generation() {
            let mut command = Command::new(self.kind.name());
            command.arg("--root").arg(&self.root);
            return command;
        }
        let (members, keep) = match place {
            Place::Start(root) => (self.groups.first_generation_members(), in_table(root)),
            Place::Ve => (self.groups.first_generation_members(), String::new()),
            Place::Host => (Vec::new(), String::new()),
        };
        let groups: Vec<String> = members
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "slave",
                "sh",
                "-c",
                WRAPPER,
                "sh",
            ])
            .args([&groups.join(":"), &keep, self.kind.name(), "--root"])
            .arg(&self.root);
        command
    }

    const fn cannot_start(&self, error: io::Error) -> RuntimeError {
        RuntimeError::Start {
            program: self.kind.name(),
            error,
        }
    }

    /// The last line of what the runtime said.
    fn said(&self, verb: &'static str, text: &str) -> RuntimeError {
        let line = text.lines().rfind(|line| !line.trim().is_empty());
        RuntimeError::Failed {
            program: self.kind.name(),
            verb,
            message: line.unwrap_or("failed and said nothing").trim().to_owned(),
        }
    }
}

/// Whether a program is in the search path, or where administrators' programs are.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/bin"])
        .any(|dir| Path::new(dir).join(program).exists())
}

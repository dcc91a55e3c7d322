//! Which VEs there are, and what each is doing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use quota::VeId;

use crate::config::ConfigError;
use crate::paths::Paths;
use crate::runtime::{ContainerState, Runtime};
use crate::value::{ValueError, parse_ve};

/// What a VE is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VeState {
    /// It has a private area.
    pub exists: bool,
    /// Something is mounted at its root.
    pub is_mounted: bool,
    /// Its container.
    pub container: ContainerState,
    /// The host's number of its first process.
    pub pid: Option<u32>,
}

impl VeState {
    /// Looks at a VE.
    ///
    /// # Errors
    /// A configuration that cannot be read.
    pub fn of(paths: &Paths, ve: VeId) -> Result<Self, ConfigError> {
        let (container, pid) = match Runtime::choose(paths, ve, None) {
            Ok(runtime) => runtime.state(),
            Err(_) => (ContainerState::Absent, None),
        };
        Ok(Self {
            exists: paths.private(ve)?.is_dir(),
            is_mounted: is_mount_point(&paths.root(ve)?),
            container,
            pid,
        })
    }

    /// Whether its first process runs.
    pub fn is_running(&self) -> bool {
        self.container == ContainerState::Running
    }
}

/// Whether another file system begins there; also when its server is dead.
pub fn is_mount_point(path: &Path) -> bool {
    let Ok(here) = path.symlink_metadata() else {
        // A mount whose server has ended answers nothing, but is there.
        return is_in_table(path);
    };
    let above = path.parent().and_then(|parent| parent.metadata().ok());
    above.is_some_and(|above| above.dev() != here.dev())
}

/// Whether something is mounted there that is no VE's root.
pub fn is_foreign_mount(path: &Path) -> bool {
    is_mount_point(path) && table_type(path).is_none_or(|kind| kind != simfs::mount::FS_TYPE)
}

fn is_in_table(path: &Path) -> bool {
    table_type(path).is_some()
}

/// The type of what is mounted there, the last of several.
fn table_type(path: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let written = in_table(path);
    let mut lines = table.lines().rev().map(|line| line.split(' '));
    lines.find_map(|mut fields| {
        let is_there = fields.nth(1) == Some(&written);
        let kind = fields.next()?;
        is_there.then(|| kind.to_owned())
    })
}

/// A path as the mount table writes it (proc_pid_mounts(5)).
pub fn in_table(path: &Path) -> String {
    path.display()
        .to_string()
        .replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011")
        .replace('\n', "\\012")
}

/// Every VE with a configuration file, by number.
pub fn known(paths: &Paths) -> BTreeSet<VeId> {
    let entries = fs::read_dir(paths.conf_dir())
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name();
            parse_ve(name.to_str()?.strip_suffix(".conf")?).ok()
        })
        .collect()
}

/// The VE of a number or name.
///
/// # Errors
/// Neither a number of a VE nor a name that leads to a configuration file.
pub fn resolve(paths: &Paths, number_or_name: &str) -> Result<VeId, ValueError> {
    let numbered = parse_ve(number_or_name);
    if numbered.is_ok() || number_or_name.contains('/') {
        return numbered;
    }
    named(paths, number_or_name).map_or(numbered, Ok)
}

/// The VE that a name belongs to.
pub fn named(paths: &Paths, name: &str) -> Option<VeId> {
    let target = fs::read_link(paths.names_dir().join(name)).ok()?;
    let number = target.file_name()?.to_str()?.strip_suffix(".conf")?;
    parse_ve(number).ok()
}

//! A VE's resource groups, on hosts with either generation of cgroups or both.
//!
//! ```text
//! CONTROLLER/simfs/101/          the VE's limits of CPU, memory and disk
//!                      ve        its processes, and the limit of their number
//!                         root   the first group that it sees: placed there by the runtime
//!                      daemon    the daemon that serves its files, and its keeper: under the same limits, never frozen with it
//! ```
//!
//! Limits stand above the processes, so the VE cannot reach them from inside its cgroup namespace. That of their number
//! leaves the daemon out: a full VE must not keep it, or its successor, from starting a thread.
//!
//! # Source
//! Linux `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/`; vzctl `src/lib/cgroup.c` for what a value means.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quota::VeId;

use crate::paths::Paths;

mod devices;
pub mod limits;
pub mod usage;

/// The controllers that limits are written to.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "memory", "pids", "io", "devices"];
/// The group of the VE's processes.
const MEMBERS: &str = "ve";
/// The group below it that the VE has for its root.
const ROOT: &str = "root";
/// The group of the VE's daemon and its keeper.
const DAEMON: &str = "daemon";
/// How often an emptied group is tried to be removed, and the pause between.
const REMOVE_TRIES: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// Which generations of cgroups the host has mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Only the first.
    First,
    /// Only the second, at /sys/fs/cgroup.
    Second,
    /// Both.
    Hybrid,
}

/// The groups of one VE.
#[derive(Clone, Debug)]
pub struct ResourceGroups {
    /// Where each controller of the first generation is mounted.
    first: BTreeMap<String, PathBuf>,
    second: Option<PathBuf>,
    /// Where any cgroups are mounted: a runtime makes groups in all of them.
    all: Vec<PathBuf>,
    name: PathBuf,
}

impl ResourceGroups {
    /// The groups of a VE on this host; nothing is made yet.
    pub fn of(paths: &Paths, ve: VeId) -> Self {
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self::in_table(&table, paths.prefix(), ve)
    }

    fn in_table(table: &str, prefix: &Path, ve: VeId) -> Self {
        let mut first = BTreeMap::new();
        let (mut second, mut all) = (None, Vec::new());
        for line in table.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, place, kind, options, ..] = fields.as_slice() else {
                continue;
            };
            // A mount covers what was mounted there and below before it: the names then lead elsewhere.
            first.retain(|_, mount: &mut PathBuf| !mount.starts_with(place));
            second = second.filter(|mount: &PathBuf| !mount.starts_with(place));
            all.retain(|mount: &PathBuf| !mount.starts_with(place));
            if kind.starts_with("cgroup") {
                all.push(PathBuf::from(place));
            }
            match *kind {
                "cgroup2" if second.is_none() => second = Some(PathBuf::from(place)),
                "cgroup" => {
                    for option in options.split(',') {
                        let controller = match option {
                            "blkio" => "io",
                            name => name,
                        };
                        if CONTROLLERS.contains(&controller) {
                            first.insert(controller.to_owned(), PathBuf::from(place));
                        }
                    }
                }
                _ => {}
            }
        }
        Self {
            first,
            second,
            all,
            name: Path::new(&slice_name(prefix)).join(ve.to_string()),
        }
    }

    /// Which generations there are.
    pub fn layout(&self) -> Layout {
        match (self.first.is_empty(), &self.second) {
            (true, _) => Layout::Second,
            (false, None) => Layout::First,
            (false, Some(_)) => Layout::Hybrid,
        }
    }

    /// The path for `linux.cgroupsPath` of an OCI configuration.
    pub fn oci_path(&self) -> PathBuf {
        Path::new("/").join(self.root())
    }

    /// The groups of the first generation that the VE's processes are put into.
    pub fn first_generation_members(&self) -> Vec<PathBuf> {
        let all = self.first.values();
        all.map(|mount| mount.join(self.root())).collect()
    }

    /// Makes the groups. What exists stays.
    ///
    /// # Errors
    /// Those of making directories.
    pub fn prepare(&self) -> io::Result<()> {
        for mount in self.mounts() {
            make(&mount.join(&self.name).join(DAEMON))?;
            make(&mount.join(self.members()))?;
        }
        if let Some(mount) = &self.second {
            self.delegate(mount);
        }
        for (controller, mount) in &self.first {
            make(&mount.join(self.root()))?;
            if controller == "cpuset" {
                self.inherit_cpuset(mount);
            }
        }
        Ok(())
    }

    /// Moves the daemon's processes into the VE's groups, but for those that would harm it: a limit of processes
    /// could keep it from serving, and without protection it could be what is killed when the VE's memory is full.
    pub fn adopt_daemon(&self, pids: &[u32]) {
        for pid in pids {
            let is_safe = fs::write(format!("/proc/{pid}/oom_score_adj"), "-1000").is_ok();
            for (controller, mount) in &self.first {
                let takes = match controller.as_str() {
                    "cpu" | "io" => true,
                    "memory" => is_safe,
                    _ => false,
                };
                if takes {
                    self.put(mount, *pid);
                }
            }
            if let Some(mount) = self
                .second
                .as_deref()
                .filter(|_| is_safe && self.first.is_empty())
            {
                self.put(mount, *pid);
            }
        }
    }

    fn put(&self, mount: &Path, pid: u32) {
        let procs = mount.join(&self.name).join(DAEMON).join("cgroup.procs");
        if let Err(error) = fs::write(&procs, pid.to_string()) {
            tracing::warn!(pid, file = %procs.display(), %error, "the daemon stays outside the VE's groups");
        }
    }

    /// Removes the groups when their processes have ended.
    pub fn remove(&self) {
        for mount in &self.all {
            let group = mount.join(&self.name);
            remove_tree(&group);
            // The parent belongs to all VEs of the prefix; it goes with the last.
            if let Some(parent) = group.parent() {
                let _others_remain = fs::remove_dir(parent);
            }
        }
    }

    /// The group of the VE's processes in any hierarchy.
    fn members(&self) -> PathBuf {
        self.name.join(MEMBERS)
    }

    /// The one of those that the VE has for its root.
    fn root(&self) -> PathBuf {
        self.members().join(ROOT)
    }

    /// The group with the VE's limit of a controller.
    fn limited(&self, controller: &str) -> Option<PathBuf> {
        let mount = self.first.get(controller).or(self.second.as_ref())?;
        Some(match controller {
            "pids" => mount.join(self.members()),
            _ => mount.join(&self.name),
        })
    }

    /// The file of the VE's limits of a controller: its name in the first generation, and in the second.
    fn file(&self, controller: &str, first: &str, second: &str) -> Option<PathBuf> {
        let name = if self.is_first(controller) {
            first
        } else {
            second
        };
        let file = self.limited(controller)?.join(name);
        file.exists().then_some(file)
    }

    fn is_first(&self, controller: &str) -> bool {
        self.first.contains_key(controller)
    }

    fn mounts(&self) -> impl Iterator<Item = &PathBuf> {
        self.first.values().chain(&self.second)
    }

    /// Lets the VE's groups of the second generation use what controllers there are; one that is missing is noticed
    /// when a limit needs it.
    fn delegate(&self, mount: &Path) {
        let mut dir = mount.to_owned();
        let mut steps = vec![dir.clone()];
        for part in &self.members() {
            dir.push(part);
            steps.push(dir.clone());
        }
        for step in steps {
            for controller in CONTROLLERS {
                let _noticed_later = fs::write(
                    step.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                );
            }
        }
    }

    /// A cpuset of the first generation begins empty and takes no process until it is filled.
    fn inherit_cpuset(&self, mount: &Path) {
        let mut dir = mount.to_owned();
        for part in &self.root() {
            let parent = dir.clone();
            dir.push(part);
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let is_empty =
                    fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim().is_empty());
                if is_empty && let Ok(value) = fs::read_to_string(parent.join(file)) {
                    let _noticed_by_the_runtime = fs::write(dir.join(file), value.trim());
                }
            }
        }
    }
}

/// The group above all VEs of a prefix: another prefix has another.
fn slice_name(prefix: &Path) -> String {
    if prefix == Path::new("/") {
        return "simfs".into();
    }
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in prefix.as_os_str().as_encoded_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    format!("simfs-{hash:016x}")
}

/// Makes a group and those above it, also while the last other VE takes the group above all away.
fn make(group: &Path) -> io::Result<()> {
    for _ in 0..REMOVE_TRIES {
        match fs::create_dir_all(group) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            made => return made,
        }
    }
    fs::create_dir_all(group)
}

fn remove_tree(group: &Path) {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    for _ in 0..REMOVE_TRIES {
        match fs::remove_dir(group) {
            // The last process is still on its way out.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(REMOVE_PAUSE);
            }
            _ => return,
        }
    }
    tracing::warn!(group = %group.display(), "processes remain in a resource group");
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
                         cgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0\n";
    const SECOND: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
    const BESIDE: &str = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";

    fn groups(table: &str) -> ResourceGroups {
        ResourceGroups::in_table(table, Path::new("/"), VeId::new(101))
    }

    #[test]
    fn the_layout_is_read_from_the_mount_table() {
        assert_eq!(groups(FIRST).layout(), Layout::First);
        assert_eq!(groups(SECOND).layout(), Layout::Second);
        let both = groups(&format!("{FIRST}{BESIDE}"));
        assert_eq!(both.layout(), Layout::Hybrid);
        assert!(both.is_first("io") && both.is_first("cpu") && !both.is_first("memory"));
        assert_eq!(both.oci_path(), Path::new("/simfs/101/ve/root"));
        assert_eq!(
            both.first_generation_members(),
            [
                Path::new("/sys/fs/cgroup/cpu,cpuacct/simfs/101/ve/root"),
                Path::new("/sys/fs/cgroup/blkio/simfs/101/ve/root"),
            ]
        );
    }

    #[test]
    fn what_is_mounted_over_does_not_count() {
        let over = groups(&format!("{FIRST}{BESIDE}{SECOND}"));
        assert_eq!(over.layout(), Layout::Second);
        assert_eq!(over.second.as_deref(), Some(Path::new("/sys/fs/cgroup")));
        assert_eq!(over.all, [Path::new("/sys/fs/cgroup")]);
        let hidden = groups(&format!(
            "{SECOND}tmpfs /sys/fs/cgroup tmpfs rw 0 0\n{FIRST}"
        ));
        assert_eq!(hidden.layout(), Layout::First);
        let similar = groups(&format!("{FIRST}tmpfs /sys/fs/cgroup/blk tmpfs rw 0 0\n"));
        assert_eq!(similar.layout(), Layout::First);
        assert!(similar.is_first("io"));
    }

    #[test]
    fn prefixes_do_not_share_groups() {
        assert_ne!(slice_name(Path::new("/a")), slice_name(Path::new("/b")));
    }
}

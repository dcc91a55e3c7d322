//! What a VE uses, as its resource groups and its network namespace count it.
//!
//! A value that the host does not count is absent. Where the kernel keeps no peak, the peak is what is used now.
//!
//! # Source
//! Linux `Documentation/admin-guide/cgroup-v1/memory.rst`, `cgroup-v1/pids.rst`, `cgroup-v2.rst`; proc_pid_net(5).

use std::fs;
use std::path::{Path, PathBuf};

use super::{ROOT, ResourceGroups};

/// One counted resource. Bytes, or numbers of things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Used now.
    pub held: u64,
    /// The most that was ever used.
    pub peak: u64,
    /// What is allowed; `None`: anything.
    pub limit: Option<u64>,
    /// How often the limit was met.
    pub failures: u64,
}

impl Counted {
    /// What is only counted, never limited.
    pub const fn of(held: u64) -> Self {
        Self {
            held,
            peak: held,
            limit: None,
            failures: 0,
        }
    }
}

/// Sockets of a VE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// TCP sockets, without those that only wait for a late packet.
    pub tcp: u64,
    /// All others.
    pub other: u64,
}

impl ResourceGroups {
    /// Memory with the page cache, in bytes.
    pub fn memory_used(&self) -> Option<Counted> {
        let dir = self.dir("memory")?;
        if self.is_first("memory") {
            return first_generation(&dir, "memory");
        }
        let held = number(&dir.join("memory.current"))?;
        Some(Counted {
            held,
            peak: number(&dir.join("memory.peak")).unwrap_or(held),
            limit: number(&dir.join("memory.max")),
            failures: keyed(&dir.join("memory.events"), "max").unwrap_or(0),
        })
    }

    /// Swap space, in bytes.
    pub fn swap_used(&self) -> Option<Counted> {
        let dir = self.dir("memory")?;
        if self.is_first("memory") {
            // The first generation counts memory and swap space together.
            let both = first_generation(&dir, "memory.memsw")?;
            let memory = first_generation(&dir, "memory")?;
            let held = both.held.saturating_sub(memory.held);
            let limit = both
                .limit
                .map(|both| both.saturating_sub(memory.limit.unwrap_or(0)));
            return Some(Counted {
                limit,
                failures: both.failures,
                ..Counted::of(held)
            });
        }
        let held = number(&dir.join("memory.swap.current"))?;
        Some(Counted {
            held,
            peak: number(&dir.join("memory.swap.peak")).unwrap_or(held),
            limit: number(&dir.join("memory.swap.max")),
            failures: keyed(&dir.join("memory.swap.events"), "fail").unwrap_or(0),
        })
    }

    /// Memory of the kernel, in bytes.
    pub fn kernel_memory_used(&self) -> Option<Counted> {
        let dir = self.dir("memory")?;
        if self.is_first("memory") {
            return first_generation(&dir, "memory.kmem");
        }
        keyed(&dir.join("memory.stat"), "kernel").map(Counted::of)
    }

    /// A row of the memory statistics, in bytes: its name in the second generation.
    pub fn memory_part(&self, name: &str) -> Option<u64> {
        let file = self.dir("memory")?.join("memory.stat");
        // The first generation counts a group and all below it under names of their own.
        keyed(&file, &format!("total_{name}")).or_else(|| keyed(&file, name))
    }

    /// Processes and threads.
    pub fn tasks_used(&self) -> Option<Counted> {
        let dir = self.dir("pids")?;
        let held = number(&dir.join("pids.current"))?;
        // Depending on the kernel, a refusal is counted where the limit stands or where the process is.
        let refused = |dir: &Path| keyed(&dir.join("pids.events"), "max").unwrap_or(0);
        Some(Counted {
            held,
            peak: number(&dir.join("pids.peak")).unwrap_or(held),
            limit: number(&dir.join("pids.max")),
            failures: refused(&dir).max(refused(&dir.join(ROOT))),
        })
    }

    /// Sockets in the network namespace of the VE's processes.
    pub fn sockets(&self) -> Option<Sockets> {
        let pid = self.member()?;
        let net = Path::new("/proc").join(pid.to_string()).join("net");
        let text = fs::read_to_string(net.join("sockstat")).ok()?;
        // Absent where the kernel has no IPv6.
        let sixth = fs::read_to_string(net.join("sockstat6")).unwrap_or_default();
        Some(parse_sockets(&text, &sixth))
    }

    /// Any process of the VE.
    fn member(&self) -> Option<u32> {
        let mounts = self.first.values().chain(&self.second);
        mounts
            .map(|mount| mount.join(self.members()))
            .find_map(|group| any_process(&group))
    }

    /// The VE's group of a controller, if it has one.
    fn dir(&self, controller: &str) -> Option<PathBuf> {
        self.limited(controller).filter(|dir| dir.is_dir())
    }
}

/// A process of a group or of one below it.
fn any_process(group: &Path) -> Option<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    if let Some(pid) = text.lines().find_map(|line| line.parse().ok()) {
        return Some(pid);
    }
    let below = fs::read_dir(group).ok()?.flatten();
    below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .find_map(|entry| any_process(&entry.path()))
}

/// A counter of the first generation's memory controller.
fn first_generation(dir: &Path, name: &str) -> Option<Counted> {
    let file = |what: &str| dir.join(format!("{name}.{what}"));
    let held = number(&file("usage_in_bytes"))?;
    Some(Counted {
        held,
        peak: number(&file("max_usage_in_bytes")).unwrap_or(held),
        limit: number(&file("limit_in_bytes")).filter(|limit| *limit < UNLIMITED),
        failures: number(&file("failcnt")).unwrap_or(0),
    })
}

/// The first generation's largest limit: the largest signed number, less a page of up to 64 KiB.
const UNLIMITED: u64 = i64::MAX.unsigned_abs() - 65535;

/// A file of one number; `None` also for `max`.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number beside a key in a file of such lines.
fn keyed(file: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

fn parse_sockets(text: &str, sixth: &str) -> Sockets {
    let after = |text: &str, key: &str, word: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let mut words = line.split_ascii_whitespace();
        words.find(|found| *found == word)?;
        words.next()?.parse::<u64>().ok()
    };
    let all = after(text, "sockets:", "used").unwrap_or(0);
    let tcp = [after(text, "TCP:", "inuse"), after(sixth, "TCP6:", "inuse")];
    let tcp = tcp.into_iter().flatten().sum::<u64>();
    Sockets {
        tcp,
        other: all.saturating_sub(tcp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quota::VeId;

    /// Groups of VE 101 whose controllers lie in directories of their own.
    fn host(kind: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, ResourceGroups) {
        let dir = tempfile::tempdir().unwrap();
        let table = match kind {
            "first" => format!(
                "c {0}/memory cgroup rw,memory 0 0\nc {0}/pids cgroup rw,pids 0 0\n",
                dir.path().display()
            ),
            _ => format!("c {} cgroup2 rw 0 0\n", dir.path().display()),
        };
        for (name, text) in files {
            let path = match kind {
                "first" => {
                    let file = name.trim_start_matches("ve/");
                    let controller = file.split('.').next().unwrap();
                    dir.path().join(controller).join("simfs/101").join(name)
                }
                _ => dir.path().join("simfs/101").join(name),
            };
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let groups = ResourceGroups::in_table(&table, Path::new("/"), VeId::new(101));
        (dir, groups)
    }

    #[test]
    fn the_second_generation_is_read() {
        let (_dir, groups) = host(
            "second",
            &[
                ("memory.current", "4096\n"),
                ("memory.peak", "8192\n"),
                ("memory.max", "max\n"),
                ("memory.events", "low 1\nhigh 2\nmax 3\noom 4\n"),
                ("memory.swap.current", "100\n"),
                ("memory.swap.max", "200\n"),
                ("memory.stat", "anon 1\nkernel 7\nkernel_stack 9\nshmem 5\n"),
                ("ve/pids.current", "4\n"),
                ("ve/pids.max", "10\n"),
                ("ve/pids.events", "max 6\n"),
            ],
        );
        let memory = groups.memory_used().unwrap();
        assert_eq!((memory.held, memory.peak, memory.limit), (4096, 8192, None));
        assert_eq!(memory.failures, 3);
        let swap = groups.swap_used().unwrap();
        assert_eq!((swap.held, swap.peak, swap.limit), (100, 100, Some(200)));
        assert_eq!(groups.kernel_memory_used(), Some(Counted::of(7)));
        assert_eq!(groups.memory_part("shmem"), Some(5));
        let tasks = groups.tasks_used().unwrap();
        assert_eq!((tasks.held, tasks.limit, tasks.failures), (4, Some(10), 6));
    }

    #[test]
    fn the_first_generation_is_read() {
        let (_dir, groups) = host(
            "first",
            &[
                ("memory.usage_in_bytes", "4096\n"),
                ("memory.max_usage_in_bytes", "8192\n"),
                ("memory.limit_in_bytes", "1048576\n"),
                ("memory.failcnt", "3\n"),
                ("memory.memsw.usage_in_bytes", "5000\n"),
                ("memory.memsw.limit_in_bytes", "1148576\n"),
                ("memory.kmem.usage_in_bytes", "7\n"),
                ("memory.kmem.limit_in_bytes", "9223372036854771712\n"),
                ("memory.stat", "shmem 1\ntotal_shmem 5\n"),
                ("ve/pids.current", "4\n"),
                ("ve/pids.max", "max\n"),
            ],
        );
        let memory = groups.memory_used().unwrap();
        assert_eq!((memory.peak, memory.limit), (8192, Some(1 << 20)));
        assert_eq!(memory.failures, 3);
        let swap = groups.swap_used().unwrap();
        assert_eq!((swap.held, swap.limit), (904, Some(100_000)));
        let kernel = groups.kernel_memory_used().unwrap();
        assert_eq!((kernel.held, kernel.limit), (7, None));
        assert_eq!(groups.memory_part("shmem"), Some(5));
        assert_eq!(groups.tasks_used().unwrap().limit, None);
    }

    #[test]
    fn what_is_not_counted_is_absent() {
        let (_dir, groups) = host("second", &[("cgroup.procs", "")]);
        assert_eq!(groups.memory_used(), None);
        assert_eq!(groups.swap_used(), None);
        assert_eq!(groups.tasks_used(), None);
        assert_eq!(groups.sockets(), None);
    }

    #[test]
    fn sockets_are_counted_by_kind() {
        let text =
            "sockets: used 21\nTCP: inuse 3 orphan 0 tw 9 alloc 4 mem 0\nUDP: inuse 2 mem 0\n";
        let sixth = "TCP6: inuse 2\nUDP6: inuse 0\n";
        let expected = Sockets { tcp: 5, other: 16 };
        assert_eq!(parse_sockets(text, sixth), expected);
        assert_eq!(parse_sockets("", ""), Sockets::default());
    }
}

//! What a VE's configured limits mean to the controllers.

use std::fs;
use std::path::PathBuf;

use super::{MEMBERS, ROOT, ResourceGroups};
use crate::ve_config::{Changes, VeConfig};

/// The period of CPU bandwidth control, in microseconds.
const PERIOD_US: u64 = 100_000;
/// Size of the pages that beancounters count.
const PAGE: u64 = 4096;
/// The limits of memory and of swap space.
const MEMORY_KEYS: [&str; 2] = ["PHYSPAGES", "SWAPPAGES"];

/// One value for one file of a group.
struct Order {
    /// The key of the configuration that asks for it.
    key: &'static str,
    file: Option<PathBuf>,
    value: String,
}

impl ResourceGroups {
    /// Writes what is configured; returns what this host cannot do, by name. The rest is applied. `device` is the
    /// disk below the private area, major and minor.
    pub fn apply(&self, config: &VeConfig, device: Option<(u32, u32)>) -> Vec<String> {
        let mut orders = self.separate(config, device);
        if self.is_first("memory") {
            let [ram, swap] = MEMORY_KEYS.map(|key| hard(config, key));
            if let Some(swap) = swap {
                orders.push(self.sum(MEMORY_KEYS[1], ram.flatten(), swap));
            }
        }
        carry_out(orders)
    }

    /// The same for the changed keys of a configuration that has the changes already; what is in force besides stays.
    pub fn apply_changes(
        &self,
        config: &VeConfig,
        changes: &Changes,
        device: Option<(u32, u32)>,
    ) -> Vec<String> {
        let is_changed = |key: &str| changes.iter().any(|(changed, _)| *changed == key);
        let mut orders = self.separate(config, device);
        orders.retain(|order| is_changed(order.key));
        if self.is_first("memory") && MEMORY_KEYS.into_iter().any(is_changed) {
            orders.extend(self.changed_sum(config, is_changed));
        }
        carry_out(orders)
    }

    /// The orders that need no value but that of their key.
    fn separate(&self, config: &VeConfig, device: Option<(u32, u32)>) -> Vec<Order> {
        let mut orders = self.cpu(config);
        orders.extend(self.memory(config));
        orders.extend(self.disk(config, device));
        orders
    }

    /// The first generation limits memory and swap space together: the sum of what was changed and what is in force.
    fn changed_sum(&self, config: &VeConfig, is_changed: impl Fn(&str) -> bool) -> Option<Order> {
        let [ram_key, swap_key] = MEMORY_KEYS;
        let ram = self.pages_in_force("memory.limit_in_bytes");
        let sum = self.pages_in_force("memory.memsw.limit_in_bytes");
        if is_changed(swap_key) {
            let ram = if is_changed(ram_key) {
                hard(config, ram_key).flatten()
            } else {
                ram
            };
            return Some(self.sum(swap_key, ram, hard(config, swap_key).flatten()));
        }
        // Without a limit of memory there was no sum that could tell the limit of swap space.
        let swap = match (ram, sum) {
            (None, _) => hard(config, swap_key).flatten(),
            (Some(ram), sum) => sum.map(|sum| sum.saturating_sub(ram)),
        };
        let order = self.sum(ram_key, hard(config, ram_key).flatten(), swap);
        (order.file.is_some() && (swap.is_some() || sum.is_some())).then_some(order)
    }

    fn sum(&self, key: &'static str, ram: Option<u64>, swap: Option<u64>) -> Order {
        let pages = ram.zip(swap).map(|(ram, swap)| ram.saturating_add(swap));
        let files = ["memory.memsw.limit_in_bytes"; 2];
        self.order(key, "memory", files, bytes(pages, "-1"))
    }

    /// A limit of the first generation as the kernel has it; `None` is no limit.
    fn pages_in_force(&self, file: &str) -> Option<u64> {
        let text = fs::read_to_string(self.file("memory", file, file)?).ok()?;
        let pages = text.trim().parse::<u64>().ok()? / PAGE;
        // No limit reads as the largest number of whole pages.
        (pages < i64::MAX.unsigned_abs() / PAGE).then_some(pages)
    }

    fn cpu(&self, config: &VeConfig) -> Vec<Order> {
        let mut orders = Vec::new();
        if let Some(units) = config.number("CPUUNITS") {
            let shares = (units * 1024 / 1000).clamp(2, 262_144);
            let value = if self.is_first("cpu") {
                shares
            } else {
                1 + (shares - 2) * 9999 / 262_142
            };
            orders.push(self.order("CPUUNITS", "cpu", ["cpu.shares", "cpu.weight"], value));
        }
        if let Some(percent) = config.number("CPULIMIT") {
            let quota = percent * PERIOD_US / 100;
            let value = match (percent, self.is_first("cpu")) {
                (0, true) => "-1".into(),
                (_, true) => quota.to_string(),
                (0, false) => format!("max {PERIOD_US}"),
                (_, false) => format!("{quota} {PERIOD_US}"),
            };
            let files = ["cpu.cfs_quota_us", "cpu.max"];
            orders.push(self.order("CPULIMIT", "cpu", files, value));
        }
        if let Some(cpus) = config.number("CPUS") {
            let all = std::thread::available_parallelism().map_or(1, usize::from);
            let all = u64::try_from(all).unwrap_or(1);
            let last = if cpus == 0 { all } else { cpus.min(all) } - 1;
            let value = format!("0-{last}");
            orders.push(self.order("CPUS", "cpuset", ["cpuset.cpus"; 2], &value));
            if self.is_first("cpuset") {
                // No group may have fewer than one below it.
                let below = [MEMBERS.into(), format!("{MEMBERS}/{ROOT}")].map(|group: String| {
                    let file = format!("{group}/cpuset.cpus");
                    self.order("CPUS", "cpuset", [&file; 2], &value)
                });
                orders.extend(below.into_iter().filter(|order| order.file.is_some()));
            }
        }
        orders
    }

    fn memory(&self, config: &VeConfig) -> Vec<Order> {
        let first = self.is_first("memory");
        let unlimited = if first { "-1" } else { "max" };
        let [ram, swap] = MEMORY_KEYS.map(|key| hard(config, key));
        let mut orders = Vec::new();
        if let Some(pages) = ram {
            let files = ["memory.limit_in_bytes", "memory.max"];
            let value = bytes(pages, unlimited);
            orders.push(self.order("PHYSPAGES", "memory", files, value));
        }
        if let Some(pages) = swap.filter(|_| !first) {
            let value = bytes(pages, unlimited);
            orders.push(self.order("SWAPPAGES", "memory", ["memory.swap.max"; 2], value));
        }
        if let Some((_, count)) = config.pair("NUMPROC") {
            let value = count.map_or_else(|| "max".into(), |count| count.to_string());
            orders.push(self.order("NUMPROC", "pids", ["pids.max"; 2], value));
        }
        orders
    }

    fn disk(&self, config: &VeConfig, device: Option<(u32, u32)>) -> Vec<Order> {
        let mut orders = Vec::new();
        if let Some(priority) = config.number("IOPRIO") {
            let weight = 320 + priority * 320 / 7;
            let files = ["blkio.bfq.weight", "io.bfq.weight"];
            orders.push(self.order("IOPRIO", "io", files, weight));
        }
        let rows = [
            ("IOLIMIT", ["read_bps", "write_bps"], ["rbps", "wbps"]),
            ("IOPSLIMIT", ["read_iops", "write_iops"], ["riops", "wiops"]),
        ];
        for (key, first, second) in rows {
            let Some(rate) = config.number(key) else {
                continue;
            };
            let Some((major, minor)) = device else {
                orders.push(Order {
                    key,
                    file: None,
                    value: String::new(),
                });
                continue;
            };
            for (first, second) in first.into_iter().zip(second) {
                let value = match (self.is_first("io"), rate) {
                    (true, rate) => format!("{major}:{minor} {rate}"),
                    (false, 0) => format!("{major}:{minor} {second}=max"),
                    (false, rate) => format!("{major}:{minor} {second}={rate}"),
                };
                let file = format!("blkio.throttle.{first}_device");
                orders.push(self.order(key, "io", [&file, "io.max"], value));
            }
        }
        orders
    }

    fn order(
        &self,
        key: &'static str,
        controller: &str,
        [first, second]: [&str; 2],
        value: impl ToString,
    ) -> Order {
        Order {
            key,
            file: self.file(controller, first, second),
            value: value.to_string(),
        }
    }
}

/// Carries the orders out; returns those that this host cannot, by name.
fn carry_out(mut orders: Vec<Order>) -> Vec<String> {
    // Of limits that may not pass each other, one can be set only after the other.
    loop {
        let before = orders.len();
        orders.retain(|order| order.carry_out().is_err());
        if orders.len() == before {
            break;
        }
    }
    let mut refused = Vec::new();
    for order in orders {
        if let Err(why) = order.carry_out() {
            refused.push(format!("{}: {why}", order.key));
        }
    }
    refused
}

/// The second part of a pair; the inner `None` is no limit.
fn hard(config: &VeConfig, key: &str) -> Option<Option<u64>> {
    config.pair(key).map(|(_, limit)| limit)
}

fn bytes(pages: Option<u64>, unlimited: &str) -> String {
    pages.map_or_else(
        || unlimited.to_owned(),
        |pages| pages.saturating_mul(PAGE).to_string(),
    )
}

impl Order {
    fn carry_out(&self) -> Result<(), String> {
        let file = self.file.as_ref();
        let file = file.ok_or("this host has no controller for it")?;
        fs::write(file, &self.value).map_err(|error| format!("{}: {error}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Paths;
    use quota::VeId;
    use std::path::Path;

    const FILES: [&str; 8] = [
        "cpu.weight",
        "cpu.max",
        "cpuset.cpus",
        "memory.max",
        "memory.swap.max",
        "ve/pids.max",
        "io.bfq.weight",
        "io.max",
    ];

    #[test]
    fn values_of_the_second_generation() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("simfs/101");
        fs::create_dir_all(group.join("ve")).unwrap();
        for file in FILES {
            fs::write(group.join(file), "").unwrap();
        }
        let table = format!("c {} cgroup2 rw 0 0\n", dir.path().display());
        let groups = ResourceGroups::in_table(&table, Path::new("/"), VeId::new(101));
        let paths = Paths::open(Some(dir.path())).unwrap();
        let empty = VeConfig::open(&paths, VeId::new(101)).unwrap();
        let rows = [
            ("CPUUNITS", "1000", "cpu.weight", "39"),
            ("CPUUNITS", "500000", "cpu.weight", "10000"),
            ("CPUUNITS", "8", "cpu.weight", "1"),
            ("CPULIMIT", "150", "cpu.max", "150000 100000"),
            ("CPULIMIT", "0", "cpu.max", "max 100000"),
            ("CPUS", "1", "cpuset.cpus", "0-0"),
            ("PHYSPAGES", "0:16384", "memory.max", "67108864"),
            ("PHYSPAGES", "0:unlimited", "memory.max", "max"),
            ("SWAPPAGES", "0:16384", "memory.swap.max", "67108864"),
            ("NUMPROC", "77", "ve/pids.max", "77"),
            ("IOPRIO", "7", "io.bfq.weight", "640"),
            ("IOLIMIT", "10485760", "io.max", "8:0 wbps=10485760"),
            ("IOLIMIT", "0", "io.max", "8:0 wbps=max"),
            ("IOPSLIMIT", "100", "io.max", "8:0 wiops=100"),
        ];
        for (key, value, file, expected) in rows {
            let config = empty.with(&[(key, value.to_owned())]);
            let refused = groups.apply(&config, Some((8, 0)));
            assert!(refused.is_empty(), "{key}={value}: {refused:?}");
            let text = fs::read_to_string(group.join(file)).unwrap();
            assert_eq!(text, expected, "{key}={value}");
        }
        // What has no controller is named, and the rest is applied.
        fs::remove_file(group.join("ve/pids.max")).unwrap();
        let config = empty.with(&[("NUMPROC", "5".into()), ("CPULIMIT", "70".into())]);
        let refused = groups.apply(&config, None);
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused.iter().all(|line| line.starts_with("NUMPROC: ")));
        let text = fs::read_to_string(group.join("cpu.max")).unwrap();
        assert_eq!(text, "70000 100000");
    }
}

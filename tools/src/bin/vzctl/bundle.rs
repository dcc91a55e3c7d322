//! The OCI bundle of a VE: config.json for crun and runc.
//!
//! A VE has its own mount, pid, net, ipc, uts and cgroup namespaces and root's usual capabilities, without those that
//! lead to the host. Devices are refused but for the usual ones and those given to it; what /proc and /sys tell of the
//! host is hidden or read only.
//!
//! # Source
//! OCI runtime specification: config.md, config-linux.md.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use simfs::sys::user_namespace::IdRange;
use simfs_tools::runtime::{Kind, Runtime};
use simfs_tools::ve_config::VeConfig;

use crate::devices::{self, Access, Device};
use crate::{Context, Fallible, program, system, ubc};

/// Capabilities of a VE's root for which nothing is configured.
const CAPABILITIES: [&str; 21] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_OWNER",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_BOOT",
    "SYS_NICE",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
];
const HIDDEN: [&str; 8] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The search path of a VE's programs.
pub(crate) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a start has made ready.
pub(crate) struct Parts<'a> {
    /// The first program.
    pub(crate) command: &'a [String],
    /// The VE's root directory, as it is to see it.
    pub(crate) root: &'a Path,
    /// The file of beancounters.
    pub(crate) counters: &'a Path,
}

/// Writes the bundle of a mounted VE.
pub(crate) fn write(
    context: &Context,
    config: &VeConfig,
    runtime: &Runtime,
    parts: &Parts<'_>,
    bundle: &Path,
) -> Fallible<()> {
    let given = devices::given(config)?;
    let nodes: Vec<Value> = given.iter().map(Device::node).collect();
    let capabilities = capabilities(config, &permitted());
    let namespaces =
        ["mount", "pid", "ipc", "uts", "network", "cgroup"].map(|kind| json!({ "type": kind }));
    let hostname = config
        .get("HOSTNAME")
        .unwrap_or_else(|| format!("ve{}", context.ve));
    let mut value = json!({
        "ociVersion": "1.0.2",
        "hostname": hostname,
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": parts.command,
            "env": [PATH, "HOME=/root", "container=simfs"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
        },
        "root": { "path": parts.root, "readonly": false },
        "mounts": mounts(parts.counters),
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": runtime.groups().oci_path(),
            "devices": nodes,
            "maskedPaths": HIDDEN,
            "readonlyPaths": READ_ONLY,
        },
    });
    let range = config.id_range();
    if let Some(range) = range {
        add_user_namespace(range, &mut value);
    }
    limit_devices(runtime, &devices::access(&given), &mut value)?;
    add_quota(context, runtime.kind(), range.is_some(), &mut value)?;
    fs::create_dir_all(bundle).map_err(system)?;
    fs::write(bundle.join("config.json"), format!("{value:#}")).map_err(system)
}

/// Root of the VE is an ordinary user of the host then.
fn add_user_namespace(range: IdRange, config: &mut Value) {
    let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(list) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
        list.push(json!({ "type": "user" }));
    }
    for (key, first) in [("uidMappings", range.uid), ("gidMappings", range.gid)] {
        let map = json!([{ "containerID": 0, "hostID": first, "size": range.count }]);
        linux.insert(key.into(), map);
    }
}

/// Refuses all other devices: here if the runtime does not see the host's list of devices, else by the runtime.
fn limit_devices(runtime: &Runtime, access: &[Access], config: &mut Value) -> Fallible<()> {
    if runtime.is_kept_from_first_generation() && runtime.groups().has_device_lists() {
        let lines: Vec<String> = access.iter().map(Access::line).collect();
        return runtime.groups().allow_devices(&lines).map_err(system);
    }
    let rules = devices::rules(access);
    if let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) {
        linux.insert("resources".into(), json!({ "devices": rules }));
    }
    Ok(())
}

/// Lets quota tools work in the VE. A VE without them starts all the same.
fn add_quota(
    context: &Context,
    kind: Kind,
    has_user_namespace: bool,
    config: &mut Value,
) -> Fallible<()> {
    let socket = context
        .paths
        .run_dir(context.ve)
        .join(simfs::quotactl::SOCKET_NAME);
    if !socket.exists() {
        return Ok(());
    }
    let mut command = program::own(context, "simfs");
    command.args(["oci", &context.ve.to_string(), "--json"]);
    if kind == Kind::Runc {
        command.arg("--no-flags");
    }
    if has_user_namespace {
        command.arg("--userns");
    }
    let text = match program::run_own(context, &mut command) {
        Ok(text) => text,
        Err(why) => {
            context.warn(&format!("quota tools will not work in the VE: {why}"));
            return Ok(());
        }
    };
    let fragments = serde_json::from_str(&text).map_err(system)?;
    simfs::oci::merge(config, &fragments).map_err(system)
}

fn mounts(counters: &Path) -> Value {
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
          "options": ["nosuid", "noexec", "nodev", "mode=1777"] },
        { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
          "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/sys", "type": "sysfs", "source": "sysfs",
          "options": ["nosuid", "noexec", "nodev", "ro"] },
        { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
          "options": ["nosuid", "noexec", "nodev", "relatime"] },
        { "destination": "/run", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "nodev", "mode=755"] },
        { "destination": "/run/lock", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=5m"] },
        { "destination": ubc::INSIDE, "type": "bind", "source": counters,
          "options": ["bind", "ro", "nosuid", "nodev", "noexec"] },
    ])
}

/// The usual capabilities with the configured changes, as far as this host's root has them.
fn capabilities(config: &VeConfig, permitted: &[String]) -> Vec<String> {
    let mut names: Vec<String> = CAPABILITIES
        .iter()
        .map(|name| format!("CAP_{name}"))
        .collect();
    for word in config
        .get("CAPABILITY")
        .unwrap_or_default()
        .split_whitespace()
    {
        let Some((name, switch)) = word.split_once(':') else {
            continue;
        };
        let name = format!("CAP_{}", name.to_ascii_uppercase());
        names.retain(|known| *known != name);
        if switch == "on" {
            names.push(name);
        }
    }
    names.retain(|name| permitted.contains(name));
    names
}

/// The capabilities that this process may hand on.
fn permitted() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapPrm:")?.trim(), 16).ok());
    let bits = bits.unwrap_or(0);
    NAMES
        .iter()
        .enumerate()
        .filter(|(number, _)| bits >> number & 1 == 1)
        .map(|(_, name)| format!("CAP_{name}"))
        .collect()
}

/// Every capability, by number (Linux `include/uapi/linux/capability.h`).
#[rustfmt::skip]
const NAMES: [&str; 41] = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use super::*;
    use quota::VeId;
    use simfs_tools::paths::Paths;

    #[test]
    fn capabilities_can_be_given_and_taken_but_not_invented() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::open(Some(dir.path())).unwrap();
        let config = VeConfig::open(&paths, VeId::new(101)).unwrap();
        let config = config.with(&[(
            "CAPABILITY",
            "net_raw:off sys_time:on sys_admin:on".to_owned(),
        )]);
        let permitted = ["CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_TIME"].map(str::to_owned);
        assert_eq!(
            capabilities(&config, &permitted),
            ["CAP_CHOWN", "CAP_SYS_TIME"]
        );
    }
}

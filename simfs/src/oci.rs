//! What an OCI container needs so that quota tools work inside: a decoy line in its mount table, the node
//! `/dev/simfs`, and a seccomp rule that notifies quotactl(2) and syncfs(2).
//!
//! [`fragments`] has the shape of a config.json; [`merge`] puts it into one. Merging twice changes nothing.
//!
//! # Source
//! OCI runtime specification: config.md, config-linux.md.

use std::io;
use std::path::{Path, PathBuf};

use quota::VeId;
use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Map, Value, json};

use crate::quotactl::serve::DEVICE_PATH;
use crate::sys::task::DeviceNumber;

/// Where the decoy appears in the VE.
pub const DECOY_DESTINATION: &str = "/run/.quota";
/// The node that VEs with a user namespace bind, in the VE's run directory.
const HOST_NODE: &str = "device";
const CALLS: [&str; 3] = ["quotactl", "quotactl_fd", "syncfs"];
const KILLABLE_WAIT: &str = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";

/// How the node `/dev/simfs` gets into the VE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceNode {
    /// The runtime makes it.
    Make,
    /// A node of the host is bound, see [`make_host_node`]: in a VE with a user namespace nobody may make one.
    Bind(PathBuf),
}

/// What the fragments depend on.
#[derive(Clone, Debug)]
pub struct OciInput {
    /// Number of the VE.
    pub ve: VeId,
    /// The decoy's mount point on the host.
    pub decoy: PathBuf,
    /// Where the VE's quotactl service listens.
    pub socket: PathBuf,
    /// Device number of the VE's mount. It changes with every mount, so fragments are made after mounting.
    pub device: DeviceNumber,
    /// How to show it.
    pub node: DeviceNode,
    /// Whether the runtime knows seccomp flags: crun does, runc from 1.5 on (1.1 refuses to start with any).
    /// Without, a signal can interrupt a call that is being served, and the caller tries again.
    pub seccomp_flags: bool,
}

/// A config.json that does not let itself be merged into.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// Something has not the type that the specification gives it.
    #[error("config.json: {at} is not {expected}")]
    Malformed {
        /// Which field.
        at: String,
        /// What it should be.
        expected: &'static str,
    },
    /// There is one listener per filter, and it is somebody else's.
    #[error(
        "config.json: linux.seccomp.listenerPath is {found} already: one VE can have one listener only"
    )]
    ListenerTaken {
        /// The other listener.
        found: String,
    },
}

/// The fragments to merge into a container's config.json.
pub fn fragments(input: &OciInput) -> Value {
    let options = ["bind", "ro", "nosuid", "nodev", "noexec"];
    let mut mounts = vec![json!({
        "destination": DECOY_DESTINATION,
        "type": "bind",
        "source": input.decoy,
        "options": options,
    })];
    let (major, minor) = input.device;
    let mut devices = Vec::new();
    match &input.node {
        DeviceNode::Make => devices.push(json!({
            "path": DEVICE_PATH,
            "type": "b",
            "major": major,
            "minor": minor,
            "fileMode": 0o600,
            "uid": 0,
            "gid": 0,
        })),
        DeviceNode::Bind(node) => mounts.push(json!({
            "destination": DEVICE_PATH,
            "type": "bind",
            "source": node,
            "options": ["bind", "nosuid", "noexec"],
        })),
    }
    let mut seccomp = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": architectures(),
        "listenerPath": input.socket,
        "listenerMetadata": format!("ve={}", input.ve),
        "syscalls": [{ "names": CALLS, "action": "SCMP_ACT_NOTIFY" }],
    });
    if let (true, Some(seccomp)) = (input.seccomp_flags, seccomp.as_object_mut()) {
        seccomp.insert("flags".into(), json!([KILLABLE_WAIT]));
    }
    let mut linux = json!({ "seccomp": seccomp });
    if let (false, Some(linux)) = (devices.is_empty(), linux.as_object_mut()) {
        linux.insert("devices".into(), devices.into());
    }
    json!({ "mounts": mounts, "linux": linux })
}

/// All architectures whose programs run in the VE: a call by another one would pass the filter by.
const fn architectures() -> &'static [&'static str] {
    if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64"]
    } else {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    }
}

/// Makes the node to bind into a VE with a user namespace, in the VE's run directory. It is never opened, only looked
/// at, so the directory's `nodev` does not matter.
///
/// # Errors
/// Those of mknodat(2). A node of an earlier mount is replaced.
pub fn make_host_node(run_dir: &Path, (major, minor): DeviceNumber) -> io::Result<PathBuf> {
    let path = run_dir.join(HOST_NODE);
    remove_host_node(run_dir)?;
    let mode = Mode::from_raw_mode(0o600);
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, &path, FileType::BlockDevice, mode, device)?;
    Ok(path)
}

/// Removes that node, if it is there.
///
/// # Errors
/// Those of unlink(2).
pub fn remove_host_node(run_dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(run_dir.join(HOST_NODE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Merges fragments into a config.json.
///
/// Mounts of the same destination and devices of the same path are replaced. An existing seccomp profile stays, but
/// for its rules on these calls: there may be one action per system call only.
///
/// # Errors
/// [`MergeError`]; the config is then unchanged.
pub fn merge(config: &mut Value, fragments: &Value) -> Result<(), MergeError> {
    let mut merged = config.clone();
    let root = object(&mut merged, "config")?;
    merge_list(root, fragments.get("mounts"), "mounts", "destination")?;
    if let Some(source) = fragments.get("linux") {
        let linux = object(root.entry("linux").or_insert_with(|| json!({})), "linux")?;
        merge_list(linux, source.get("devices"), "devices", "path")?;
        if let Some(seccomp) = source.get("seccomp") {
            merge_seccomp(linux, seccomp)?;
        }
    }
    *config = merged;
    Ok(())
}

fn merge_list(
    into: &mut Map<String, Value>,
    source: Option<&Value>,
    name: &str,
    key: &str,
) -> Result<(), MergeError> {
    let Some(items) = source.and_then(Value::as_array) else {
        return Ok(());
    };
    let list = array(into, name)?;
    for item in items {
        list.retain(|known| known.get(key) != item.get(key));
        list.push(item.clone());
    }
    Ok(())
}

fn merge_seccomp(linux: &mut Map<String, Value>, source: &Value) -> Result<(), MergeError> {
    let present = linux
        .get("seccomp")
        .is_some_and(|profile| !profile.is_null());
    if !present {
        linux.insert("seccomp".into(), source.clone());
        return Ok(());
    }
    let profile = linux.entry("seccomp").or_insert(Value::Null);
    let profile = object(profile, "linux.seccomp")?;
    if let Some(found) = profile
        .get("listenerPath")
        .filter(|path| source.get("listenerPath") != Some(path))
    {
        return Err(MergeError::ListenerTaken {
            found: found.to_string(),
        });
    }
    for name in ["listenerPath", "listenerMetadata"] {
        if let Some(value) = source.get(name) {
            profile.insert(name.into(), value.clone());
        }
    }
    for name in ["architectures", "flags"] {
        for item in source
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let list = array(profile, name)?;
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
    }
    let rules = array(profile, "syscalls")?;
    rules.retain_mut(keeps_other_calls);
    rules.extend(
        source
            .get("syscalls")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .cloned(),
    );
    Ok(())
}

/// Takes the notified calls out of a rule; false if nothing is left of it.
fn keeps_other_calls(rule: &mut Value) -> bool {
    let Some(names) = rule.get_mut("names").and_then(Value::as_array_mut) else {
        return true;
    };
    let before = names.len();
    names.retain(|name| !CALLS.iter().any(|call| name == call));
    before == names.len() || !names.is_empty()
}

fn object<'a>(value: &'a mut Value, at: &str) -> Result<&'a mut Map<String, Value>, MergeError> {
    let malformed = MergeError::Malformed {
        at: at.to_owned(),
        expected: "an object",
    };
    value.as_object_mut().ok_or(malformed)
}

/// The list of this name, made if missing or null.
fn array<'a>(
    parent: &'a mut Map<String, Value>,
    name: &str,
) -> Result<&'a mut Vec<Value>, MergeError> {
    let malformed = MergeError::Malformed {
        at: name.to_owned(),
        expected: "a list",
    };
    let value = parent.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut().ok_or(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> OciInput {
        OciInput {
            ve: VeId::new(101),
            decoy: "/run/simfs/decoy/mnt".into(),
            socket: "/run/simfs/101/quotactl.sock".into(),
            device: (0, 57),
            node: DeviceNode::Make,
            seccomp_flags: true,
        }
    }

    #[test]
    fn fragments_have_the_shape_of_a_config() {
        let made = fragments(&input());
        let expected = json!({
            "mounts": [{
                "destination": "/run/.quota", "type": "bind", "source": "/run/simfs/decoy/mnt",
                "options": ["bind", "ro", "nosuid", "nodev", "noexec"]
            }],
            "linux": {
                "devices": [{
                    "path": "/dev/simfs", "type": "b", "major": 0, "minor": 57,
                    "fileMode": 384, "uid": 0, "gid": 0
                }],
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                    "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
                    "listenerPath": "/run/simfs/101/quotactl.sock",
                    "listenerMetadata": "ve=101",
                    "syscalls": [{
                        "names": ["quotactl", "quotactl_fd", "syncfs"], "action": "SCMP_ACT_NOTIFY"
                    }]
                }
            }
        });
        assert_eq!(made, expected);
    }

    #[test]
    fn runtimes_without_flags_and_user_namespaces() {
        let made = fragments(&OciInput {
            seccomp_flags: false,
            node: DeviceNode::Bind("/run/simfs/101/device".into()),
            ..input()
        });
        assert_eq!(made.pointer("/linux/seccomp/flags"), None);
        assert_eq!(made.pointer("/linux/devices"), None);
        let node = made.pointer("/mounts/1").unwrap();
        assert_eq!(node["destination"], "/dev/simfs");
        assert_eq!(node["source"], "/run/simfs/101/device");
    }

    #[test]
    fn an_empty_config_takes_all_and_merging_again_changes_nothing() {
        let made = fragments(&input());
        let mut config = json!({ "ociVersion": "1.0.2" });
        merge(&mut config, &made).unwrap();
        assert_eq!(config["mounts"], made["mounts"]);
        assert_eq!(config["linux"], made["linux"]);
        assert_eq!(config["ociVersion"], "1.0.2");
        let once = config.clone();
        merge(&mut config, &made).unwrap();
        assert_eq!(config, once);
    }

    #[test]
    fn an_existing_profile_loses_its_rules_on_quotactl_only() {
        // The default profiles of podman and Docker list quotactl twice.
        let mut config = json!({
            "mounts": [{ "destination": "/proc", "type": "proc" }, { "destination": "/run/.quota" }],
            "linux": {
                "devices": [{ "path": "/dev/simfs", "minor": 3 }, { "path": "/dev/fuse" }],
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ERRNO",
                    "architectures": ["SCMP_ARCH_X86_64"],
                    "syscalls": [
                        { "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" },
                        { "names": ["mount", "quotactl", "quotactl_fd"], "action": "SCMP_ACT_ALLOW" },
                        { "names": ["quotactl"], "action": "SCMP_ACT_ERRNO" }
                    ]
                }
            }
        });
        merge(&mut config, &fragments(&input())).unwrap();
        let seccomp = &config["linux"]["seccomp"];
        assert_eq!(seccomp["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(
            seccomp["syscalls"],
            json!([
                { "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" },
                { "names": ["mount"], "action": "SCMP_ACT_ALLOW" },
                { "names": ["quotactl", "quotactl_fd", "syncfs"], "action": "SCMP_ACT_NOTIFY" }
            ])
        );
        assert_eq!(seccomp["architectures"].as_array().unwrap().len(), 3);
        assert_eq!(config["linux"]["devices"].as_array().unwrap().len(), 2);
        assert_eq!(config["linux"]["devices"][1]["minor"], 57);
        assert_eq!(config["mounts"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn what_cannot_be_merged_stays_as_it_was() {
        let rows = [
            json!([]),
            json!({ "mounts": 5 }),
            json!({ "linux": [] }),
            json!({ "linux": { "devices": {} } }),
            json!({ "linux": { "seccomp": "x" } }),
            json!({ "linux": { "seccomp": { "syscalls": 1 } } }),
            json!({ "linux": { "seccomp": { "listenerPath": "/other.sock" } } }),
        ];
        for config in rows {
            let mut merged = config.clone();
            assert!(
                merge(&mut merged, &fragments(&input())).is_err(),
                "{config}"
            );
            assert_eq!(merged, config);
        }
    }

    #[test]
    fn a_stale_host_node_is_replaced() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        make_host_node(dir.path(), (0, 5)).unwrap();
        let node = make_host_node(dir.path(), (0, 57)).unwrap();
        assert_eq!(
            std::fs::metadata(node).unwrap().rdev(),
            rustix::fs::makedev(0, 57)
        );
        remove_host_node(dir.path()).unwrap();
        remove_host_node(dir.path()).unwrap();
        assert!(!dir.path().join(HOST_NODE).exists());
    }
}

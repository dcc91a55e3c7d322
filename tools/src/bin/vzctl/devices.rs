//! The devices that a VE may use: the usual ones, and those of the host that were given to it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use rustix::fs::FileType;
use serde_json::{Value, json};
use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::runtime::{Kind, Runtime};
use simfs_tools::ve_config::VeConfig;

use crate::guest::{Node, Tree};
use crate::{Fallible, system};

/// One device, or several, and what may be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    kind: &'static str,
    major: Option<u32>,
    minor: Option<u32>,
    letters: String,
}

impl Access {
    fn new(kind: &'static str, major: Option<u32>, minor: Option<u32>, letters: &str) -> Self {
        Self {
            kind,
            major,
            minor,
            letters: letters.into(),
        }
    }

    /// In the form of an OCI configuration.
    fn rule(&self) -> Value {
        let mut rule = json!({ "allow": true, "type": self.kind, "access": self.letters });
        for (key, number) in [("major", self.major), ("minor", self.minor)] {
            if let (Some(number), Some(rule)) = (number, rule.as_object_mut()) {
                rule.insert(key.into(), number.into());
            }
        }
        rule
    }

    /// In the form of the devices controller.
    pub(crate) fn line(&self) -> String {
        let shown =
            |number: Option<u32>| number.map_or_else(|| "*".into(), |number| number.to_string());
        format!(
            "{} {}:{} {}",
            self.kind,
            shown(self.major),
            shown(self.minor),
            self.letters
        )
    }
}

/// A device of the host, and what the VE may do with it.
#[derive(Debug)]
pub(crate) struct Device {
    /// Below /dev.
    name: String,
    access: Access,
    node: Node,
}

impl Device {
    /// Looks a device of the host up.
    fn find(name: &str, letters: &str) -> Fallible<Self> {
        let path = PathBuf::from("/dev").join(name);
        let wrong = |why: &str| {
            let message = format!("DEVNODES: {}: {why}", path.display());
            Failure::new(VzctlExit::Config, message)
        };
        let data = fs::metadata(&path).map_err(|error| wrong(&error.to_string()))?;
        let (letter, kind) = match data.file_type() {
            kind if kind.is_char_device() => ("c", FileType::CharacterDevice),
            kind if kind.is_block_device() => ("b", FileType::BlockDevice),
            _ => return Err(wrong("not a device")),
        };
        let (major, minor) = (
            rustix::fs::major(data.rdev()),
            rustix::fs::minor(data.rdev()),
        );
        Ok(Self {
            name: name.to_owned(),
            access: Access::new(letter, Some(major), Some(minor), &letters.replace('q', "")),
            node: Node {
                kind,
                number: data.rdev(),
                mode: data.mode() & 0o777,
                uid: data.uid(),
                gid: data.gid(),
            },
        })
    }

    /// Its node in the form of an OCI configuration.
    pub(crate) fn node(&self) -> Value {
        json!({
            "path": format!("/dev/{}", self.name), "type": self.access.kind,
            "major": self.access.major, "minor": self.access.minor,
            "fileMode": self.node.mode, "uid": self.node.uid, "gid": self.node.gid,
        })
    }
}

/// The words of a configuration: name and letters, or `none`.
fn words(config: &VeConfig) -> Vec<(String, String)> {
    let text = config.get("DEVNODES").unwrap_or_default();
    text.split_whitespace()
        .filter_map(|word| word.split_once(':'))
        .map(|(name, letters)| (name.to_owned(), letters.to_owned()))
        .collect()
}

/// The devices that are given to the VE.
///
/// # Errors
/// `Config`: one that the host has not.
pub(crate) fn given(config: &VeConfig) -> Fallible<Vec<Device>> {
    let words = words(config);
    words
        .iter()
        .filter(|(_, letters)| letters != "none")
        .map(|(name, letters)| Device::find(name, letters))
        .collect()
}

/// The devices that every VE has, and these. Nodes of others may be made, as package managers do, but not used.
pub(crate) fn access(given: &[Device]) -> Vec<Access> {
    let known = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];
    let mut list = vec![
        Access::new("c", None, None, "m"),
        Access::new("b", None, None, "m"),
        Access::new("c", Some(136), None, "rwm"),
    ];
    list.extend(known.map(|(major, minor)| Access::new("c", Some(major), Some(minor), "rwm")));
    list.extend(given.iter().map(|device| device.access.clone()));
    list
}

/// The same in the form of an OCI configuration: all others are refused.
pub(crate) fn rules(access: &[Access]) -> Value {
    let refused = json!({ "allow": false, "access": "rwm" });
    let allowed = access.iter().map(Access::rule);
    std::iter::once(refused).chain(allowed).collect()
}

/// Brings a VE that runs from one configuration to another; what this host cannot do is returned by name.
///
/// # Errors
/// As [`given`]; nothing was changed then.
pub(crate) fn apply(
    runtime: &Runtime,
    before: &VeConfig,
    after: &VeConfig,
    pid: u32,
) -> Fallible<Vec<String>> {
    let given = given(after)?;
    if after.id_range().is_some() {
        let why = "DEVNODES: nodes do not work that are made in a user namespace: takes effect at the next start";
        return Ok(vec![why.to_owned()]);
    }
    let former = words(before).into_iter().chain(words(after));
    let taken: Vec<Device> = former
        .filter_map(|(name, letters)| Device::find(&name, &letters).ok())
        .filter(|device| !given.iter().any(|kept| kept.access == device.access))
        .collect();
    if let Err(why) = limit(runtime, &taken, &access(&given)) {
        return Ok(vec![format!("DEVNODES: {why}")]);
    }
    let tree = Tree::devices_of(pid).map_err(system)?;
    let mut refused = Vec::new();
    let is_kept = |device: &Device| given.iter().any(|kept| kept.name == device.name);
    for device in taken.iter().filter(|device| !is_kept(device)) {
        tree.remove_node(&device.name, &device.node);
    }
    for device in &given {
        if let Err(error) = tree.make_node(&device.name, &device.node) {
            refused.push(format!("DEVNODES: /dev/{} of the VE: {error}", device.name));
        }
    }
    Ok(refused)
}

/// Has the kernel refuse what was taken, and allow the rest.
fn limit(runtime: &Runtime, taken: &[Device], access: &[Access]) -> Result<(), String> {
    if runtime.groups().has_device_lists() {
        let everything = |device: &Device| Access {
            letters: "rwm".into(),
            ..device.access.clone()
        };
        let taken: Vec<String> = taken.iter().map(|one| everything(one).line()).collect();
        let lines: Vec<String> = access.iter().map(Access::line).collect();
        let changed = runtime.groups().change_devices(&taken, &lines);
        return changed.map_err(|error| error.to_string());
    }
    if runtime.kind() != Kind::Crun {
        return Err(
            "runc cannot change the devices of a VE that runs: takes effect at the next start"
                .into(),
        );
    }
    let resources = json!({ "devices": rules(access) });
    runtime
        .update(&resources.to_string())
        .map_err(|error| error.to_string())
}

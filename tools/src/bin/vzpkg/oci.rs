//! The root directory of an OCI image.
//!
//! An image is not trusted: each layer is unpacked into a directory of its own, and the kernel's overlay puts them
//! together, so a link of one layer cannot lead a file of another out of the tree.
//!
//! # Source
//! OCI image specification: image-layout.md, manifest.md, layer.md ("Whiteouts"); Linux
//! `Documentation/filesystems/overlayfs.rst`.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use serde_json::Value;
use sha2::{Digest, Sha256};
use simfs_tools::archive;
use simfs_tools::exit::{Failure, VzctlExit};

use crate::{Fallible, program, system};

/// More layers than any image has; the overlay's options must fit one page.
const LAYERS_MAX: usize = 64;
/// Longest description of an image that is read.
const JSON_MAX: u64 = 4 * 1024 * 1024;
/// Mounts the layers where only this process sees it, and copies what they make together.
const MERGE: &str = "cd \"$1\" && mount -t overlay overlay -o \"lowerdir=$2\" merged && cp --archive merged/. \"$3\"";

/// Puts the layers of the layout's image together in an empty directory.
pub(crate) fn unpack(layout: &Path, workshop: &Path, tree: &Path) -> Fallible<()> {
    let blobs = layers(layout)?;
    let mut dirs = Vec::new();
    for (number, blob) in blobs.iter().enumerate() {
        let name = format!("layer{number}");
        let dir = workshop.join(&name);
        fs::create_dir(&dir).map_err(system)?;
        archive::unpack(blob, &dir).map_err(system)?;
        convert_whiteouts(&dir)?;
        dirs.push(name);
    }
    // The overlay wants the uppermost first, and at least two.
    let bottom = workshop.join("bottom");
    fs::create_dir(&bottom).map_err(system)?;
    fs::create_dir(workshop.join("merged")).map_err(system)?;
    dirs.insert(0, "bottom".into());
    dirs.reverse();
    let mut merge = Command::new("unshare");
    merge
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            MERGE,
            "sh",
        ])
        .arg(workshop)
        .arg(dirs.join(":"))
        .arg(tree);
    program(&mut merge)
}

/// The layers of the layout's image for this machine, the lowest first.
fn layers(layout: &Path) -> Fallible<Vec<PathBuf>> {
    let index = json(&layout.join("index.json"))?;
    let mut found = blob(layout, Some(image(layout, &index)?))?;
    let mut manifest = json(&found)?;
    // The index may lead to another: one for each architecture.
    if manifest.get("manifests").is_some() {
        found = blob(layout, Some(image(layout, &manifest)?))?;
        manifest = json(&found)?;
    }
    let list = manifest.get("layers").and_then(Value::as_array);
    let list = list.filter(|list| !list.is_empty() && list.len() <= LAYERS_MAX);
    let list = list.ok_or_else(|| wrong(&found, "no image of 1 to 64 layers"))?;
    list.iter().map(|layer| blob(layout, Some(layer))).collect()
}

/// The entry of an index for this machine; one that names no platform is for all.
fn image<'a>(layout: &Path, index: &'a Value) -> Fallible<&'a Value> {
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let list = index.get("manifests").and_then(Value::as_array);
    let is_for_here = |entry: &&Value| match entry.pointer("/platform/architecture") {
        None => true,
        Some(architecture) => {
            architecture == here
                && entry
                    .pointer("/platform/os")
                    .is_none_or(|system| system == "linux")
        }
    };
    list.and_then(|list| list.iter().find(is_for_here))
        .ok_or_else(|| wrong(layout, &format!("no image for linux/{here} in it")))
}

/// The file of a descriptor, which is what its digest says.
fn blob(layout: &Path, descriptor: Option<&Value>) -> Fallible<PathBuf> {
    let digest = descriptor
        .and_then(|descriptor| descriptor.get("digest"))
        .and_then(Value::as_str)
        .and_then(|digest| digest.strip_prefix("sha256:"));
    let is_hash =
        |hash: &&str| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hash = digest
        .filter(is_hash)
        .ok_or_else(|| wrong(layout, "a descriptor without a sha256 digest"))?;
    let path = layout.join("blobs/sha256").join(hash);
    let mut hasher = Sha256::new();
    let copied = fs::File::open(&path).and_then(|mut file| io::copy(&mut file, &mut hasher));
    copied.map_err(|error| wrong(&path, &error.to_string()))?;
    let found: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found.eq_ignore_ascii_case(hash) {
        Ok(path)
    } else {
        Err(wrong(
            &path,
            "damaged: its content is not what its digest says: fetch the image again",
        ))
    }
}

fn json(path: &Path) -> Fallible<Value> {
    let length = path
        .metadata()
        .map_err(|error| wrong(path, &error.to_string()))?
        .len();
    if length > JSON_MAX {
        return Err(wrong(path, "too long"));
    }
    let bytes = fs::read(path).map_err(|error| wrong(path, &error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| wrong(path, &error.to_string()))
}

fn wrong(path: &Path, why: &str) -> Failure<VzctlExit> {
    Failure::new(VzctlExit::Value, format!("{}: {why}", path.display()))
}

/// Marks what a layer takes away in the overlay's way. Links are not followed.
fn convert_whiteouts(dir: &Path) -> Fallible<()> {
    for entry in fs::read_dir(dir).map_err(system)? {
        let entry = entry.map_err(system)?;
        let path = entry.path();
        let name = entry.file_name();
        if name == ".wh..wh..opq" {
            fs::remove_file(&path).map_err(system)?;
            rustix::fs::lsetxattr(dir, c"trusted.overlay.opaque", b"y", XattrFlags::empty())
                .map_err(system)?;
        } else if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            fs::remove_file(&path).map_err(system)?;
            let hidden = dir.join(std::ffi::OsStr::from_bytes(hidden));
            rustix::fs::mknodat(CWD, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(system)?;
        } else if entry.file_type().map_err(system)?.is_dir() {
            convert_whiteouts(&path)?;
        }
    }
    Ok(())
}

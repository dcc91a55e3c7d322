//! What a successor must know that is no file operation: how the VE was mounted, and where.
//!
//! JSON with a version: one that another program wrote in another way is refused, never guessed at. The configuration is the
//! keeper's, in memory that is sealed against writing; what the first daemon learnt of the mount stands in the shared memory.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use quota::{Timestamp, VeId};
use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};

use super::Config;
use crate::fault;
use crate::fuse::handshake::Handshake;
use crate::mount::MountOptions;
use crate::shared::{CellName, Shared};
use crate::sys::task::DeviceNumber;

const VERSION: u32 = 1;
/// Longer than four paths, each byte written as a number.
const CONFIG_MAX: usize = 128 * 1024;

/// A path, which need not be text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum SavedPath {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&Path> for SavedPath {
    fn from(path: &Path) -> Self {
        let bytes = path.as_os_str().as_bytes().to_vec();
        String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
    }
}

impl From<SavedPath> for PathBuf {
    fn from(path: SavedPath) -> Self {
        match path {
            SavedPath::Text(text) => text.into(),
            SavedPath::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedConfig {
    version: u32,
    ve: VeId,
    private: SavedPath,
    mountpoint: SavedPath,
    state_dir: SavedPath,
    run_dir: SavedPath,
    options: MountOptions,
    quota: bool,
    foreground: bool,
}

/// The mount as it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MountRecord {
    version: u32,
    /// `st_dev` of its root.
    pub(super) device: DeviceNumber,
    /// When it was made.
    pub(super) since: Timestamp,
}

/// Why what was saved cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SavedError {
    #[error("the saved state has no {0}, or it is damaged")]
    Missing(&'static str),
    #[error(
        "this program does not read the saved {what}: {error}: start the one that wrote it, or unmount and mount again"
    )]
    Unreadable {
        what: &'static str,
        error: serde_json::Error,
    },
    #[error(
        "the saved {what} has version {found}, this program reads {reads}: unmount and mount again to use it"
    )]
    Version {
        what: &'static str,
        found: u32,
        reads: u32,
    },
    #[error("the saved {0} is longer than there is room for")]
    TooLong(&'static str),
}

/// Puts the configuration into memory that nobody can change any more.
pub(super) fn seal(config: &Config) -> io::Result<OwnedFd> {
    let saved = SavedConfig {
        version: VERSION,
        ve: config.ve,
        private: config.private.as_path().into(),
        mountpoint: config.mountpoint.as_path().into(),
        state_dir: config.state_dir.as_path().into(),
        run_dir: config.run_dir.as_path().into(),
        options: config.options.clone(),
        quota: config.quota,
        foreground: config.foreground,
    };
    sealed(&serde_json::to_vec(&saved)?)
}

fn sealed(text: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("simfs-config", flags)?;
    let mut file = File::from(memory);
    file.write_all(text)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// The configuration of the predecessor.
pub(super) fn config(memory: &OwnedFd) -> Result<Config, SavedError> {
    let what = "configuration";
    let mut text = vec![0; CONFIG_MAX];
    let length = rustix::io::pread(memory, &mut text, 0).map_err(|_| SavedError::Missing(what))?;
    text.truncate(length);
    let saved: SavedConfig =
        serde_json::from_slice(&text).map_err(|error| SavedError::Unreadable { what, error })?;
    check_version(what, saved.version)?;
    Ok(Config {
        ve: saved.ve,
        private: saved.private.into(),
        mountpoint: saved.mountpoint.into(),
        state_dir: saved.state_dir.into(),
        run_dir: saved.run_dir.into(),
        options: saved.options,
        quota: saved.quota,
        foreground: saved.foreground,
    })
}

/// Keeps where the mount is, and what was agreed on with the kernel.
pub(super) fn keep_mount(
    shared: &Shared,
    device: DeviceNumber,
    since: Timestamp,
    handshake: &Handshake,
) -> Result<MountRecord, SavedError> {
    let record = MountRecord {
        version: VERSION,
        device,
        since,
    };
    keep(shared, CellName::Mount, "mount", &record)?;
    for (cell, bytes) in [
        (CellName::InitRequest, &handshake.request),
        (CellName::InitReply, &handshake.reply),
    ] {
        if !shared.cell(cell).write(bytes) {
            return Err(SavedError::TooLong("handshake"));
        }
    }
    Ok(record)
}

/// Where the mount is, and what was agreed on with the kernel.
pub(super) fn mount(shared: &Shared) -> Result<(MountRecord, Handshake), SavedError> {
    let what = "mount";
    let record: MountRecord = read(shared, CellName::Mount, what)?;
    check_version(what, record.version)?;
    let bytes = |cell| shared.cell(cell).read();
    let request = bytes(CellName::InitRequest).ok_or(SavedError::Missing("handshake"))?;
    let reply = bytes(CellName::InitReply).ok_or(SavedError::Missing("handshake"))?;
    Ok((record, Handshake { request, reply }))
}

fn keep(
    shared: &Shared,
    cell: CellName,
    what: &'static str,
    saved: &impl Serialize,
) -> Result<(), SavedError> {
    let text = serde_json::to_vec(saved).map_err(|error| SavedError::Unreadable { what, error })?;
    if !shared.cell(cell).write(&text) {
        return Err(SavedError::TooLong(what));
    }
    Ok(())
}

fn read<T: for<'a> Deserialize<'a>>(
    shared: &Shared,
    cell: CellName,
    what: &'static str,
) -> Result<T, SavedError> {
    let text = shared.cell(cell).read().ok_or(SavedError::Missing(what))?;
    serde_json::from_slice(&text).map_err(|error| SavedError::Unreadable { what, error })
}

fn check_version(what: &'static str, found: u32) -> Result<(), SavedError> {
    let reads = VERSION + u32::from(fault::is_newer());
    match found == reads {
        true => Ok(()),
        false => Err(SavedError::Version { what, found, reads }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_config() -> Config {
        Config {
            ve: VeId::new(101),
            private: OsString::from_vec(b"/vz/\xff\xfe".to_vec()).into(),
            mountpoint: "/vz/root/101".into(),
            state_dir: "/var/lib/simfs/101".into(),
            run_dir: "/run/simfs/101".into(),
            options: MountOptions::parse("ro,noatime,watchdog=off,quotaadmin=strict").unwrap(),
            quota: true,
            foreground: false,
        }
    }

    #[test]
    fn a_configuration_arrives_as_it_was_and_cannot_be_changed() {
        let before = some_config();
        let memory = seal(&before).unwrap();
        let after = config(&memory).unwrap();
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
        assert!(rustix::io::pwrite(&memory, b"x", 0).is_err());
        assert!(rustix::fs::ftruncate(&memory, 0).is_err());
    }

    #[test]
    fn what_is_unknown_is_refused_and_named() {
        let memory = seal(&some_config()).unwrap();
        let mut text = vec![0; CONFIG_MAX];
        let length = rustix::io::pread(&memory, &mut text, 0).unwrap();
        let good = std::str::from_utf8(&text[..length]).unwrap();
        for (from, to, said) in [
            ("\"version\":1", "\"version\":2", "version 2"),
            ("\"quota\":true", "\"quota\":true,\"colour\":1", "colour"),
            ("\"quota\":true,", "", "quota"),
            ("\"read_only\":true", "\"read_only\":true,\"new\":1", "new"),
        ] {
            let other = sealed(good.replace(from, to).as_bytes()).unwrap();
            let error = config(&other).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(config(&sealed(b"").unwrap()).is_err());
    }
}

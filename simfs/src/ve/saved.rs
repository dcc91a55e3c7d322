//! What a successor must know that is no file operation: how the VE was mounted, and where.
//!
//! Texts in the shared memory, as JSON with a version. One that another program wrote in another way is refused, never
//! guessed at.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use quota::{Timestamp, VeId};
use serde::{Deserialize, Serialize};

use super::Config;
use crate::fuse::handshake::Handshake;
use crate::mount::MountOptions;
use crate::shared::{CellName, Shared};
use crate::sys::task::DeviceNumber;

const VERSION: u32 = 1;

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
        "the saved {what} has version {found}, this program reads {VERSION}: unmount and mount again to use it"
    )]
    Version { what: &'static str, found: u32 },
    #[error("the saved {0} is longer than there is room for")]
    TooLong(&'static str),
}

/// Keeps the configuration.
pub(super) fn keep_config(shared: &Shared, config: &Config) -> Result<(), SavedError> {
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
    keep(shared, CellName::Config, "configuration", &saved)
}

/// The configuration of the predecessor.
pub(super) fn config(shared: &Shared) -> Result<Config, SavedError> {
    let what = "configuration";
    let saved: SavedConfig = read(shared, CellName::Config, what)?;
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
    if found == VERSION {
        Ok(())
    } else {
        Err(SavedError::Version { what, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Shape;

    fn shared() -> Shared {
        let shape = Shape {
            ve: VeId::new(101),
            handle_bytes: 32,
        };
        Shared::create(shape).unwrap()
    }

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
    fn a_configuration_arrives_as_it_was() {
        let (shared, before) = (shared(), some_config());
        keep_config(&shared, &before).unwrap();
        let after = config(&shared).unwrap();
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
    }

    #[test]
    fn what_is_unknown_is_refused_and_named() {
        let shared = shared();
        assert!(matches!(config(&shared), Err(SavedError::Missing(_))));
        keep_config(&shared, &some_config()).unwrap();
        let cell = shared.cell(CellName::Config);
        let good = String::from_utf8(cell.read().unwrap()).unwrap();
        for (from, to, said) in [
            ("\"version\":1", "\"version\":2", "version 2"),
            ("\"quota\":true", "\"quota\":true,\"colour\":1", "colour"),
            ("\"quota\":true,", "", "quota"),
            ("\"read_only\":true", "\"read_only\":true,\"new\":1", "new"),
        ] {
            assert!(cell.write(good.replace(from, to).as_bytes()));
            let error = config(&shared).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}

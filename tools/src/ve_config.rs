//! One VE's configuration: its own file above the global one.
//!
//! Invariants:
//! 1. Every value that is handed out has passed the table of [`crate::setting`].
//! 2. A file is replaced as a whole, durably; lines that were not changed stay as they were.
//!
//! Limits of disk space here are only what was asked for: the quota record decides.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use quota::VeId;
use simfs::sys::user_namespace::IdRange;
use thiserror::Error;

use crate::config::{Config, ConfigError};
use crate::keys::{KEYS, complaint};
use crate::paths::Paths;
use crate::setting::{self, SETTINGS};
use crate::value::ValueError;

/// Keys and values to store.
pub type Changes = Vec<(&'static str, String)>;

/// What is configured for one VE.
#[derive(Clone, Debug)]
pub struct VeConfig {
    own: Config,
    global: Config,
}

/// Why a VE's configuration cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VeConfigError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// A value makes no sense.
    #[error("{}: line {line}: {key}: {error}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key.
        key: &'static str,
        /// What is wrong, and what to write.
        error: ValueError,
    },
    /// The file cannot be written.
    #[error("{}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl VeConfig {
    /// The configuration of a VE; a file that does not exist is empty.
    ///
    /// # Errors
    /// A file that cannot be read, or a value in it that makes no sense.
    pub fn open(paths: &Paths, ve: VeId) -> Result<Self, VeConfigError> {
        Self::read(paths, &paths.ve_config_file(ve))
    }

    /// The configuration in any file, such as a sample.
    ///
    /// # Errors
    /// As [`VeConfig::open`].
    pub fn read(paths: &Paths, path: &Path) -> Result<Self, VeConfigError> {
        let this = Self {
            own: Config::read(path)?,
            global: paths.config().clone(),
        };
        check(&this.global, &paths.global_config_file())?;
        check(&this.own, path)?;
        Ok(this)
    }

    /// Lines of the VE's own file that do not count because their key stands above them, with that key.
    pub fn repeated(&self) -> &[(usize, String)] {
        self.own.repeated()
    }

    /// A value in its stored form: the VE's own, else the global one.
    pub fn get(&self, key: &str) -> Option<String> {
        let value = self
            .own
            .get(key)
            .or_else(|| self.global.get(key))
            .filter(|value| !value.is_empty())?;
        match setting::of_key(key) {
            Some(setting) => setting.stored(value).ok(),
            None => Some(value.into()),
        }
    }

    /// A value that is a number.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }

    /// Both parts of a value `barrier:limit`; `None` in a part is no limit.
    pub fn pair(&self, key: &str) -> Option<(Option<u64>, Option<u64>)> {
        let value = self.get(key)?;
        let (soft, hard) = value.split_once(':')?;
        Some((soft.parse().ok(), hard.parse().ok()))
    }

    /// The ids of the VE's user namespace, if it has one of its own.
    pub fn id_range(&self) -> Option<IdRange> {
        let first = |key| u32::try_from(self.number(key)?).ok();
        let uid = first("LOCAL_UID").filter(|first| *first > 0)?;
        Some(IdRange {
            uid,
            gid: first("LOCAL_GID").filter(|first| *first > 0).unwrap_or(uid),
            count: setting::IDS,
        })
    }

    /// Whether a switch is on.
    pub fn is_on(&self, key: &str) -> bool {
        self.get(key).as_deref() == Some("yes")
    }

    /// The same with other values; nothing is written.
    #[must_use]
    pub fn with(&self, changes: &[(&'static str, String)]) -> Self {
        let mut text = String::new();
        for (key, value) in changes {
            text += &assignment(key, value);
        }
        for (key, value) in self.own.iter() {
            text += &assignment(key, value);
        }
        Self {
            // Of a repeated key the first counts. What is assembled from checked values can be read.
            own: Config::parse(&text).unwrap_or_else(|_| self.own.clone()),
            ..self.clone()
        }
    }

    /// Every setting that the VE's own file or the changes above it assign, in the order of the table.
    pub fn assigned(&self) -> Changes {
        let mut list: Changes = Vec::new();
        for setting in SETTINGS {
            let is_new = !list.iter().any(|(key, _)| *key == setting.key);
            if let Some(value) = self.own.get(setting.key).filter(|_| is_new) {
                list.push((setting.key, value.to_owned()));
            }
        }
        list
    }

    /// Writes changed values into a VE's file, which is made if absent.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn save(
        paths: &Paths,
        ve: VeId,
        changes: &[(&'static str, String)],
    ) -> Result<(), VeConfigError> {
        let path = paths.ve_config_file(ve);
        replace_text(&path, changes).map_err(|error| VeConfigError::Write { path, error })
    }

    /// Makes a VE's file what it was: this text, or none.
    ///
    /// # Errors
    /// Those of writing or removing a file.
    pub fn put_back(paths: &Paths, ve: VeId, text: Option<&str>) -> Result<(), VeConfigError> {
        let path = paths.ve_config_file(ve);
        let done = match text {
            Some(text) if fs::read_to_string(&path).is_ok_and(|now| now == text) => Ok(()),
            Some(text) => write_text(&path, text),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            },
        };
        done.map_err(|error| VeConfigError::Write { path, error })
    }
}

/// Every value must be of its key's form.
fn check(config: &Config, path: &Path) -> Result<(), VeConfigError> {
    let wrong = |key: &'static str, error| VeConfigError::Value {
        path: path.into(),
        line: config.line(key).unwrap_or(0),
        key,
        error,
    };
    let given = |key| config.get(key).filter(|value| !value.is_empty());
    for setting in SETTINGS {
        if let Some(value) = given(setting.key) {
            setting
                .stored(value)
                .map_err(|error| wrong(setting.key, error))?;
        }
    }
    for key in KEYS {
        if let Some(value) = given(key.name)
            && let Some(wanted) = complaint(key.name, value)
        {
            let value = value.into();
            return Err(wrong(key.name, ValueError::Form { value, wanted }));
        }
    }
    Ok(())
}

fn assignment(key: &str, value: &str) -> String {
    format!("{key}=\"{value}\"\n")
}

fn replace_text(path: &Path, changes: &[(&'static str, String)]) -> io::Result<()> {
    let old = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let text = changed(&old, changes);
    if text == old {
        return Ok(());
    }
    write_text(path, &text)
}

/// Replaces a file as a whole, durably.
fn write_text(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = dir.join(format!(".{name}.new"));
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(dir)?.sync_all()
}

/// The text with the first assignment of each key replaced, or one added at the end.
fn changed(old: &str, changes: &[(&'static str, String)]) -> String {
    let mut left: Vec<&(&'static str, String)> = changes.iter().collect();
    let mut text = String::new();
    for line in old.lines() {
        let key = line.trim_start().split('=').next().unwrap_or("");
        match left.iter().position(|(wanted, _)| *wanted == key) {
            Some(at) => {
                let (key, value) = left.remove(at);
                text += &assignment(key, value);
            }
            None => {
                text += line;
                text += "\n";
            }
        }
    }
    for (key, value) in left {
        text += &assignment(key, value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, Paths, VeId) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/vz/conf")).unwrap();
        let paths = Paths::open(Some(dir.path())).unwrap();
        (dir, paths, VeId::new(101))
    }

    #[test]
    fn saving_keeps_comments_and_other_lines() {
        let (_dir, paths, ve) = host();
        std::fs::write(
            paths.ve_config_file(ve),
            "# mine\nHOSTNAME=old\nOTHER=1\nHOSTNAME=again\n",
        )
        .unwrap();
        let changes = [("HOSTNAME", "new".to_owned()), ("ONBOOT", "yes".to_owned())];
        VeConfig::save(&paths, ve, &changes).unwrap();
        let text = std::fs::read_to_string(paths.ve_config_file(ve)).unwrap();
        assert_eq!(
            text,
            "# mine\nHOSTNAME=\"new\"\nOTHER=1\nHOSTNAME=again\nONBOOT=\"yes\"\n"
        );
        let config = VeConfig::open(&paths, ve).unwrap();
        assert_eq!(config.get("HOSTNAME").as_deref(), Some("new"));
        assert!(config.is_on("ONBOOT"));
    }

    #[test]
    fn a_wrong_value_is_an_error_with_its_line() {
        let (_dir, paths, ve) = host();
        std::fs::write(paths.ve_config_file(ve), "A=1\nDISKSPACE=\"10GB\"\n").unwrap();
        let error = VeConfig::open(&paths, ve).unwrap_err().to_string();
        assert!(error.contains("line 2: DISKSPACE: '10GB'"), "{error}");
    }

    #[test]
    fn the_hosts_file_is_checked_too() {
        for (line, what) in [
            ("DISKSPACE=much", "DISKSPACE: 'much'"),
            ("RUNTIME=podman", "crun or runc"),
            ("VE_ROOT=vz/root", "absolute"),
            ("STOP_TIMEOUT=soon", "a number"),
            ("DISK_QUOTA=maybe", "yes or no"),
        ] {
            let (dir, _, ve) = host();
            let file = dir.path().join("etc/vz/vz.conf");
            std::fs::write(&file, format!("A=1\n{line}\n")).unwrap();
            let paths = Paths::open(Some(dir.path())).unwrap();
            let error = VeConfig::open(&paths, ve).unwrap_err().to_string();
            assert!(error.contains("vz.conf: line 2: "), "{line}: {error}");
            assert!(error.contains(what), "{line}: {error}");
        }
    }

    #[test]
    fn changes_stand_above_the_file() {
        let (_dir, paths, ve) = host();
        std::fs::write(paths.ve_config_file(ve), "DISKSPACE=\"5:6\"\nCPUS=2\n").unwrap();
        let config = VeConfig::open(&paths, ve).unwrap();
        let with = config.with(&[("DISKSPACE", "7:unlimited".into())]);
        assert_eq!(with.pair("DISKSPACE"), Some((Some(7), None)));
        assert_eq!(with.number("CPUS"), Some(2));
        assert_eq!(config.pair("DISKSPACE"), Some((Some(5), Some(6))));
    }
}

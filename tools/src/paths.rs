//! Where everything lies: below one prefix, as vz.conf says.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use quota::VeId;

use crate::config::{Config, ConfigError};

/// The environment variable that moves everything below a directory, as `--prefix` does.
pub const PREFIX_VARIABLE: &str = "SIMFS_PREFIX";

/// The paths of one host.
#[derive(Clone, Debug)]
pub struct Paths {
    prefix: PathBuf,
    config: Config,
}

impl Paths {
    /// The paths below `prefix`, else below what `SIMFS_PREFIX` says, else below `/`.
    ///
    /// # Errors
    /// A vz.conf that cannot be read.
    pub fn open(prefix: Option<&Path>) -> Result<Self, ConfigError> {
        let variable = std::env::var_os(PREFIX_VARIABLE).filter(|value| !value.is_empty());
        let prefix = prefix
            .or(variable.as_deref().map(Path::new))
            .unwrap_or(Path::new("/"));
        let prefix = std::path::absolute(prefix).map_err(|error| ConfigError::Unreadable {
            path: prefix.into(),
            error,
        })?;
        let empty = Self {
            prefix,
            config: Config::default(),
        };
        let config = Config::read(&empty.global_config_file())?;
        Ok(Self { config, ..empty })
    }

    /// What everything lies below.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The global configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The file of the global configuration.
    pub fn global_config_file(&self) -> PathBuf {
        self.prefix.join("etc/vz/vz.conf")
    }

    /// The configuration file of a VE.
    pub fn ve_config_file(&self, ve: VeId) -> PathBuf {
        self.prefix.join(format!("etc/vz/conf/{ve}.conf"))
    }

    /// The directory of the VEs' configuration files, samples and action scripts.
    pub fn conf_dir(&self) -> PathBuf {
        self.prefix.join("etc/vz/conf")
    }

    /// The directory of VE names: each a symbolic link to a configuration file.
    pub fn names_dir(&self) -> PathBuf {
        self.prefix.join("etc/vz/names")
    }

    /// The directory of the locks that commands on one VE hold.
    pub fn lock_dir(&self) -> PathBuf {
        self.below(Path::new(self.config.get("LOCKDIR").unwrap_or("/vz/lock")))
    }

    /// What exists only while a VE runs: bundle, console, the runtime's state.
    pub fn instance_dir(&self, ve: VeId) -> PathBuf {
        self.instances().join(ve.to_string())
    }

    /// The directory of what belongs to running VEs.
    pub fn instances(&self) -> PathBuf {
        self.prefix.join("run/vz")
    }

    /// The directory with a VE's files.
    ///
    /// # Errors
    /// A VE configuration that cannot be read.
    pub fn private(&self, ve: VeId) -> Result<PathBuf, ConfigError> {
        self.ve_path(ve, "VE_PRIVATE", "/vz/private/$VEID")
    }

    /// Where a VE is mounted.
    ///
    /// # Errors
    /// A VE configuration that cannot be read.
    pub fn root(&self, ve: VeId) -> Result<PathBuf, ConfigError> {
        self.ve_path(ve, "VE_ROOT", "/vz/root/$VEID")
    }

    /// The directory of templates.
    pub fn template(&self) -> PathBuf {
        self.below(Path::new(
            self.config.get("TEMPLATE").unwrap_or("/vz/template"),
        ))
    }

    /// The directory of a VE's quota store.
    pub fn state_dir(&self, ve: VeId) -> PathBuf {
        self.states().join(ve.to_string())
    }

    /// The directory of all quota stores.
    pub fn states(&self) -> PathBuf {
        self.prefix.join("var/lib/simfs")
    }

    /// The directory of what exists only while a VE is mounted.
    pub fn run_dir(&self, ve: VeId) -> PathBuf {
        self.runs().join(ve.to_string())
    }

    /// The directory of all run directories.
    pub fn runs(&self) -> PathBuf {
        self.prefix.join("run/simfs")
    }

    /// A path of the VE's configuration, else of the global one, else the default.
    fn ve_path(&self, ve: VeId, key: &str, default: &str) -> Result<PathBuf, ConfigError> {
        let own = Config::read(&self.ve_config_file(ve))?;
        let pattern = own
            .get(key)
            .or_else(|| self.config.get(key))
            .unwrap_or(default);
        Ok(self.below(Path::new(&substitute(pattern, ve))))
    }

    /// The same path below the prefix; `..` is not followed upwards.
    fn below(&self, path: &Path) -> PathBuf {
        let inside: PathBuf = path
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(name),
                _ => None,
            })
            .collect::<Vec<&OsStr>>()
            .iter()
            .collect();
        self.prefix.join(inside)
    }
}

/// The pattern with `$VEID` and `${VEID}` replaced by the VE's number.
pub fn substitute(pattern: &str, ve: VeId) -> String {
    let number = ve.to_string();
    pattern
        .replace("${VEID}", &number)
        .replace("$VEID", &number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(vz_conf: &str) -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/vz/conf")).unwrap();
        std::fs::write(dir.path().join("etc/vz/vz.conf"), vz_conf).unwrap();
        let paths = Paths::open(Some(dir.path())).unwrap();
        (dir, paths)
    }

    #[test]
    fn defaults_lie_below_the_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::open(Some(dir.path())).unwrap();
        let ve = VeId::new(101);
        assert_eq!(
            paths.private(ve).unwrap(),
            dir.path().join("vz/private/101")
        );
        assert_eq!(paths.root(ve).unwrap(), dir.path().join("vz/root/101"));
        assert_eq!(paths.template(), dir.path().join("vz/template"));
        assert_eq!(paths.state_dir(ve), dir.path().join("var/lib/simfs/101"));
        assert_eq!(paths.run_dir(ve), dir.path().join("run/simfs/101"));
    }

    #[test]
    fn the_configuration_moves_paths_and_the_ves_own_wins() {
        let (dir, paths) = host("VE_PRIVATE=\"/srv/${VEID}/fs/\"\nVE_ROOT=/mnt/$VEID\n");
        std::fs::write(
            dir.path().join("etc/vz/conf/102.conf"),
            "VE_ROOT=/other/$VEID\n",
        )
        .unwrap();
        assert_eq!(
            paths.private(VeId::new(101)).unwrap(),
            dir.path().join("srv/101/fs")
        );
        assert_eq!(
            paths.root(VeId::new(101)).unwrap(),
            dir.path().join("mnt/101")
        );
        assert_eq!(
            paths.root(VeId::new(102)).unwrap(),
            dir.path().join("other/102")
        );
    }

    #[test]
    fn a_bad_vz_conf_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/vz")).unwrap();
        std::fs::write(dir.path().join("etc/vz/vz.conf"), "A=1\nB 2\n").unwrap();
        let error = Paths::open(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}

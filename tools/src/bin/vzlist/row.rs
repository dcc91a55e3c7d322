//! What is known of one VE.

use quota::{Account, GracePeriods, Resource, Scope, Subject, VeId};
use serde_json::{Map, Value};
use simfs_tools::cgroup::ResourceGroups;
use simfs_tools::exit::{Failure, VzlistExit};
use simfs_tools::paths::Paths;
use simfs_tools::ubc::{self, Beancounters};
use simfs_tools::ve_config::VeConfig;
use simfs_tools::ve_handle::{VeError, VeHandle};
use simfs_tools::ve_state::VeState;

use crate::column::{self, counted};

/// One VE, as it was when it was looked at.
pub(crate) struct Row {
    pub(crate) ve: VeId,
    pub(crate) config: VeConfig,
    pub(crate) state: VeState,
    pub(crate) account: Option<(Account, GracePeriods)>,
    counters: Beancounters,
    pub(crate) private: String,
    root: String,
}

impl Row {
    pub(crate) fn look(paths: &Paths, ve: VeId) -> Result<Self, Failure<VzlistExit>> {
        let account = account(paths, ve).ok();
        let shown = |path: std::path::PathBuf| path.display().to_string();
        let groups = ResourceGroups::of(paths, ve);
        Ok(Self {
            ve,
            counters: Beancounters::read(ve, &groups, account.as_ref().map(|(account, _)| account)),
            config: VeConfig::open(paths, ve).map_err(wrong)?,
            state: VeState::of(paths, ve).map_err(wrong)?,
            account,
            private: shown(paths.private(ve).map_err(wrong)?),
            root: shown(paths.root(ve).map_err(wrong)?),
        })
    }

    /// Whether there is anything of the VE: files, configuration or quota record.
    pub(crate) fn exists(&self, paths: &Paths) -> bool {
        self.state.exists || self.account.is_some() || paths.ve_config_file(self.ve).exists()
    }

    /// A column's value; `None` is shown as `-`.
    pub(crate) fn value(&self, column: &str) -> Option<String> {
        let config = |key: &str| self.config.get(key);
        match column {
            "ctid" => Some(self.ve.to_string()),
            "status" => Some(self.status().into()),
            "numproc" => processes(&self.state).map(|number| number.to_string()),
            "private" => Some(self.private.clone()),
            "root" => Some(self.root.clone()),
            "layout" => Some("simfs".into()),
            "smart_name" => config("NAME").or_else(|| Some(self.ve.to_string())),
            "diskspace" | "diskspace.s" | "diskspace.h" | "diskinodes" | "diskinodes.s"
            | "diskinodes.h" => self.disk(column),
            other => match other.split_once('.') {
                Some((name, letter)) => self.counter(name, letter),
                None if counted().any(|known| known == other) => self.counter(other, ""),
                None => config(&other.to_ascii_uppercase()),
            },
        }
    }

    /// A beancounter: of a VE that runs as it is, else what is configured.
    fn counter(&self, name: &str, letter: &str) -> Option<String> {
        if self.state.is_running() || name.starts_with("disk") {
            let value = self.counters.get(name)?.value(letter)?;
            return Some(shown(Some(value).filter(|value| *value < ubc::UNLIMITED)));
        }
        let (barrier, limit) = self.config.pair(&name.to_ascii_uppercase())?;
        match letter {
            "b" => Some(shown(barrier)),
            "l" => Some(shown(limit)),
            _ => None,
        }
    }

    /// Every column, disk figures and beancounters as objects; space in KiB, no limit is null.
    pub(crate) fn json(&self) -> Value {
        let mut object = Map::new();
        for column in column::all() {
            if column.name.contains('.') || is_object(&column.name) {
                continue;
            }
            let value = match self.value(&column.name) {
                Some(value) if column.is_number => {
                    value.parse::<u64>().map_or(Value::Null, Value::from)
                }
                Some(value) => Value::from(value),
                None => Value::Null,
            };
            object.insert(column.name, value);
        }
        for name in ["diskspace", "diskinodes"] {
            let parts = [
                ("usage", ""),
                ("softlimit", ".s"),
                ("hardlimit", ".h"),
                ("maxheld", ".m"),
                ("failcnt", ".f"),
            ];
            object.insert(name.into(), self.figures(name, &parts));
        }
        let parts = [
            ("held", ""),
            ("maxheld", ".m"),
            ("barrier", ".b"),
            ("limit", ".l"),
            ("failcnt", ".f"),
        ];
        for name in counted().filter(|name| !name.starts_with("disk")) {
            object.insert(name.into(), self.figures(name, &parts));
        }
        Value::Object(object)
    }

    /// Some columns of one resource, by other names.
    fn figures(&self, name: &str, parts: &[(&str, &str)]) -> Value {
        let figure =
            |letter: &str| -> Option<u64> { self.value(&format!("{name}{letter}"))?.parse().ok() };
        let pairs = parts
            .iter()
            .map(|(key, letter)| ((*key).to_owned(), Value::from(figure(letter))));
        Value::Object(pairs.collect())
    }

    const fn status(&self) -> &'static str {
        use simfs_tools::runtime::ContainerState as C;
        match (self.state.container, self.state.is_mounted) {
            (C::Running, _) => "running",
            (_, true) => "mounted",
            (_, false) => "stopped",
        }
    }

    /// A disk figure: space in KiB.
    fn disk(&self, column: &str) -> Option<String> {
        let (account, _) = self.account.as_ref()?;
        let (name, part) = column.split_once('.').unwrap_or((column, ""));
        let (resource, unit) = match name {
            "diskspace" => (Resource::Space, 1024),
            _ => (Resource::Inodes, 1),
        };
        let limit = account.limits.get(resource);
        let amount = match part {
            "s" => limit.soft,
            "h" => limit.hard,
            _ => Some(account.usage.get(resource)),
        };
        Some(shown(amount.map(|amount| amount.div_ceil(unit))))
    }
}

/// An amount, or none.
fn shown(amount: Option<u64>) -> String {
    amount.map_or_else(|| "unlimited".into(), |amount| amount.to_string())
}

/// Threads in the VE: those that share its first process's pid namespace.
fn processes(state: &VeState) -> Option<usize> {
    let home = std::fs::read_link(format!("/proc/{}/ns/pid", state.pid?)).ok()?;
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let members = entries.filter(|entry| {
        std::fs::read_link(entry.path().join("ns/pid")).is_ok_and(|space| space == home)
    });
    Some(members.count())
}

/// The VE's account with its grace periods.
fn account(paths: &Paths, ve: VeId) -> Result<(Account, GracePeriods), VeError> {
    let mut handle = VeHandle::open(paths, ve)?;
    let grace = handle.info()?.grace_periods(Scope::Ve);
    Ok((handle.account(Subject::Ve)?, grace))
}

/// Whether JSON shows it as an object.
fn is_object(name: &str) -> bool {
    counted().any(|known| known == name)
}

fn wrong(error: impl ToString) -> Failure<VzlistExit> {
    Failure::new(VzlistExit::Config, error.to_string())
}

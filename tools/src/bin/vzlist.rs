//! `vzlist`: the VEs of this host, one a line.
//!
//! # Source
//! vzlist(8). Limits and usage are those of the quota record or of the running mount, not of the configuration; space
//! is in KiB.

#[path = "vzlist/manual.rs"]
mod manual;

use std::cmp::Ordering;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use quota::{Account, Resource, Subject, VeId};
use serde_json::{Map, Value, json};
use simfs_tools::cli::{self, Common};
use simfs_tools::exit::{self, Failure, VzctlExit};
use simfs_tools::paths::Paths;
use simfs_tools::report::{complain, json, print};
use simfs_tools::ve_config::VeConfig;
use simfs_tools::ve_handle::VeHandle;
use simfs_tools::ve_state::{VeState, known, resolve};

/// The codes that this program ends with.
const EXITS: &[VzctlExit] = &[
    VzctlExit::Ok,
    VzctlExit::System,
    VzctlExit::Denied,
    VzctlExit::Config,
    VzctlExit::Usage,
    VzctlExit::Value,
];

/// The columns that are shown unless others are named.
const DEFAULT: &str = "ctid,numproc,status,ip,hostname";
/// The same with names.
const NAMED: &str = "ctid,numproc,status,ip,name";

/// A column: its name in `-o`, its heading, its width (to the left when negative), and whether its values are numbers.
type Column = (&'static str, &'static str, usize, bool);

#[rustfmt::skip]
const COLUMNS: &[Column] = &[
    ("ctid", "CTID", 10, true), ("status", "STATUS", 9, false), ("numproc", "NPROC", 6, true),
    ("ip", "IP_ADDR", 15, false), ("hostname", "HOSTNAME", 16, false), ("name", "NAME", 16, false),
    ("smart_name", "SMARTNAME", 16, false), ("description", "DESCRIPTION", 16, false),
    ("ostemplate", "OSTEMPLATE", 24, false), ("private", "PRIVATE", 24, false), ("root", "ROOT", 24, false),
    ("nameserver", "NAMESERVER", 16, false), ("searchdomain", "SEARCHDOMAIN", 16, false),
    ("layout", "LAYOUT", 6, false), ("onboot", "ONBOOT", 6, false), ("bootorder", "BOOTORDER", 9, true),
    ("disabled", "DISABLED", 8, false), ("cpulimit", "CPULIM", 8, true), ("cpuunits", "CPUUNI", 8, true),
    ("cpus", "CPUS", 6, true), ("ioprio", "IOP", 3, true), ("iolimit", "IOLIMIT", 10, true),
    ("iopslimit", "IOPSLIMIT", 9, true),
    ("diskspace", "DSPACE", 10, true), ("diskspace.s", "DSPACE_S", 10, true), ("diskspace.h", "DSPACE_H", 10, true),
    ("diskinodes", "DINODES", 10, true), ("diskinodes.s", "DINODES_S", 10, true),
    ("diskinodes.h", "DINODES_H", 10, true),
    ("numproc.l", "NPROC_L", 10, true), ("physpages.l", "PHYSP_L", 12, true), ("swappages.l", "SWAPP_L", 12, true),
];

/// VEs of this host.
#[derive(Debug, Parser)]
#[command(
    name = "vzlist",
    version,
    max_term_width = 110,
    disable_help_flag = true,
    after_help = exit::help(EXITS)
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    /// All VEs, not only those that run.
    #[arg(short, long)]
    all: bool,
    /// Only those that do not run.
    #[arg(short = 'S', long)]
    stopped: bool,
    /// Names in place of host names.
    #[arg(short, long)]
    name: bool,
    /// No heading.
    #[arg(short = 'H', long)]
    no_header: bool,
    /// JSON.
    #[arg(short, long)]
    json: bool,
    /// Only numbers.
    #[arg(short = '1')]
    only_numbers: bool,
    /// Columns, separated by commas; -L lists them.
    #[arg(short, long, value_name = "FIELDS")]
    output: Option<String>,
    /// Sort by this column; '-' before it: downwards.
    #[arg(short, long, value_name = "FIELD", allow_hyphen_values = true)]
    sort: Option<String>,
    /// Only VEs of this host name.
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Show the names of all columns.
    #[arg(short = 'L', long)]
    list: bool,
    /// Only these VEs, whether they run or not: numbers or names.
    #[arg(allow_negative_numbers = true)]
    ves: Vec<String>,
}

/// One VE, as it was when it was looked at.
struct Row {
    ve: VeId,
    config: VeConfig,
    state: VeState,
    account: Option<Account>,
    private: String,
    root: String,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(done) = manual::answer(&arguments) {
        return done.into();
    }
    let exit = match Cli::try_parse_from(&arguments) {
        Ok(cli) => run(&cli),
        Err(error) => match cli::explain(&error, "vzlist") {
            Ok(text) => print(&text).map_err(failed(VzctlExit::System)),
            Err(line) => Err(Failure::new(VzctlExit::Usage, line)),
        },
    };
    match exit {
        Ok(()) => VzctlExit::Ok.into(),
        Err(failure) => {
            complain(&format!("vzlist: {}", failure.message));
            failure.exit.into()
        }
    }
}

fn failed<E: ToString>(exit: VzctlExit) -> impl Fn(E) -> Failure<VzctlExit> {
    move |error| Failure::new(exit, error.to_string())
}

fn run(cli: &Cli) -> Result<(), Failure<VzctlExit>> {
    if cli.list {
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.0).collect();
        return print(&(names.join("\n") + "\n")).map_err(failed(VzctlExit::System));
    }
    let default = if cli.name { NAMED } else { DEFAULT };
    let wanted = if cli.only_numbers {
        "ctid"
    } else {
        cli.output.as_deref().unwrap_or(default)
    };
    let columns = wanted
        .split(',')
        .map(column)
        .collect::<Result<Vec<Column>, _>>()?;
    let sort = cli.sort.as_deref().unwrap_or("ctid");
    let (sort, is_downwards) = match sort.strip_prefix('-') {
        Some(sort) => (sort, true),
        None => (sort, false),
    };
    let sort = column(sort)?;
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(VzctlExit::Denied, "only root can do this"));
    }
    let paths = Paths::open(cli.common.prefix.as_deref()).map_err(failed(VzctlExit::Config))?;
    let mut rows = rows(cli, &paths)?;
    rows.sort_by(|one, other| {
        let order = compare(one, other, sort);
        if is_downwards { order.reverse() } else { order }
    });
    let text = if cli.json {
        let list: Vec<Value> = rows.iter().map(row_json).collect();
        json(&list).map_err(failed(VzctlExit::System))?
    } else {
        table(&rows, &columns, cli.no_header || cli.only_numbers)
    };
    print(&text).map_err(failed(VzctlExit::System))
}

/// The column of a name, also of an old one.
fn column(name: &str) -> Result<Column, Failure<VzctlExit>> {
    let name = match name {
        "veid" | "vpsid" => "ctid",
        name => name,
    };
    let found = COLUMNS.iter().find(|column| column.0 == name);
    found.copied().ok_or_else(|| {
        Failure::new(
            VzctlExit::Value,
            format!("'{name}' is no column: see vzlist -L"),
        )
    })
}

fn rows(cli: &Cli, paths: &Paths) -> Result<Vec<Row>, Failure<VzctlExit>> {
    let named = cli
        .ves
        .iter()
        .map(|name| resolve(paths, name))
        .collect::<Result<Vec<VeId>, _>>()
        .map_err(failed(VzctlExit::Value))?;
    let all: Vec<VeId> = if named.is_empty() {
        known(paths).into_iter().collect()
    } else {
        named.clone()
    };
    let mut rows = Vec::new();
    for ve in all {
        let row = match Row::look(paths, ve) {
            Ok(row) => row,
            // One wrong file does not hide the other VEs.
            Err(failure) => {
                complain(&format!("vzlist: VE {ve}: {}", failure.message));
                continue;
            }
        };
        let is_wanted = match (cli.stopped, cli.all || !named.is_empty()) {
            (true, _) => !row.state.is_running(),
            (false, true) => true,
            (false, false) => row.state.is_running(),
        };
        let has_name = cli
            .hostname
            .as_ref()
            .is_none_or(|name| row.config.get("HOSTNAME").as_ref() == Some(name));
        if is_wanted && has_name {
            rows.push(row);
        }
    }
    Ok(rows)
}

impl Row {
    fn look(paths: &Paths, ve: VeId) -> Result<Self, Failure<VzctlExit>> {
        let account = VeHandle::open(paths, ve)
            .and_then(|mut handle| handle.account(Subject::Ve))
            .ok();
        let shown = |path: std::path::PathBuf| path.display().to_string();
        Ok(Self {
            ve,
            config: VeConfig::open(paths, ve).map_err(failed(VzctlExit::Config))?,
            state: VeState::of(paths, ve).map_err(failed(VzctlExit::Config))?,
            account,
            private: shown(paths.private(ve).map_err(failed(VzctlExit::Config))?),
            root: shown(paths.root(ve).map_err(failed(VzctlExit::Config))?),
        })
    }

    /// A column's value; `None` is shown as `-`.
    fn value(&self, column: &str) -> Option<String> {
        let config = |key: &str| self.config.get(key);
        let counter = |key: &str| Some(shown(self.config.pair(key)?.1));
        match column {
            "ctid" => Some(self.ve.to_string()),
            "status" => Some(self.status().into()),
            "numproc" => processes(&self.state).map(|number| number.to_string()),
            "private" => Some(self.private.clone()),
            "root" => Some(self.root.clone()),
            "layout" => Some("simfs".into()),
            "smart_name" => config("NAME").or_else(|| Some(self.ve.to_string())),
            "numproc.l" => counter("NUMPROC"),
            "physpages.l" => counter("PHYSPAGES"),
            "swappages.l" => counter("SWAPPAGES"),
            disk if disk.starts_with("disk") && disk != "disabled" => self.disk(disk),
            other => config(&other.to_ascii_uppercase()),
        }
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
        let account = self.account.as_ref()?;
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

/// Numbers by their worth, others by their letters; what is absent comes first.
fn compare(one: &Row, other: &Row, (name, _, _, is_number): Column) -> Ordering {
    let (one, other) = (one.value(name), other.value(name));
    if !is_number {
        return one.cmp(&other);
    }
    let worth = |value: Option<String>| value.map(|value| value.parse().unwrap_or(u64::MAX));
    worth(one).cmp(&worth(other))
}

fn table(rows: &[Row], columns: &[Column], no_header: bool) -> String {
    let mut text = String::new();
    let line = |cells: Vec<String>| {
        let cells: Vec<String> = cells
            .iter()
            .zip(columns)
            .map(|(cell, (_, _, width, is_number))| {
                if *is_number {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        cells.join(" ").trim_end().to_owned() + "\n"
    };
    if !no_header {
        text += &line(columns.iter().map(|column| column.1.to_owned()).collect());
    }
    for row in rows {
        let cells = columns
            .iter()
            .map(|column| row.value(column.0).unwrap_or_else(|| "-".into()));
        text += &line(cells.collect());
    }
    text
}

/// Every column, disk figures as objects; space in KiB, no limit is null.
fn row_json(row: &Row) -> Value {
    let mut object = Map::new();
    for (name, _, _, is_number) in COLUMNS {
        if name.contains('.') || *name == "diskspace" || *name == "diskinodes" {
            continue;
        }
        let value = match row.value(name) {
            Some(value) if *is_number => value.parse::<u64>().map_or(Value::Null, Value::from),
            Some(value) => Value::from(value),
            None => Value::Null,
        };
        object.insert((*name).to_owned(), value);
    }
    for name in ["diskspace", "diskinodes"] {
        let figure =
            |part: &str| -> Option<u64> { row.value(&format!("{name}{part}"))?.parse().ok() };
        let figures =
            json!({ "usage": figure(""), "softlimit": figure(".s"), "hardlimit": figure(".h") });
        object.insert(name.into(), figures);
    }
    Value::Object(object)
}

//! `vzlist`: the VEs of this host, one a line.
//!
//! # Source
//! vzlist(8). Limits and usage are those of the quota record or of the running mount, not of the configuration; space
//! is in KiB.

mod column;
mod manual;
mod quota_list;
mod row;

use std::cmp::Ordering;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use quota::VeId;
use serde_json::Value;
use simfs_tools::absent;
use simfs_tools::cli::{self, Common};
use simfs_tools::exit::{self, Failure, VzlistExit};
use simfs_tools::paths::Paths;
use simfs_tools::report::{complain, json, print};
use simfs_tools::ve_state::{known, resolve};

use crate::column::Column;
use crate::row::Row;

/// The columns that are shown unless others are named.
const DEFAULT: &str = "ctid,numproc,status,ip,hostname";
/// The same with names.
const NAMED: &str = "ctid,numproc,status,ip,name";

/// VEs of this host.
#[derive(Debug, Parser)]
#[command(
    name = "vzlist",
    version,
    max_term_width = 110,
    disable_help_flag = true,
    after_help = exit::help(VzlistExit::ALL)
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
    /// Usage, limits and deadlines in the form of OpenVZ's /proc/vz/vzquota.
    #[arg(long)]
    vzquota: bool,
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

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(done) = manual::answer(&arguments) {
        return done.into();
    }
    let exit = match Cli::try_parse_from(&arguments) {
        Ok(cli) => run(&cli),
        Err(error) => match cli::explain(&error, "vzlist") {
            Ok(text) => print(&text)
                .map(|()| VzlistExit::Ok)
                .map_err(failed(VzlistExit::System)),
            Err(line) => Err(Failure::new(VzlistExit::Usage, line)),
        },
    };
    match exit {
        Ok(exit) => exit.into(),
        Err(failure) => {
            complain(&format!("vzlist: {}", failure.message));
            failure.exit.into()
        }
    }
}

fn failed<E: ToString>(exit: VzlistExit) -> impl Fn(E) -> Failure<VzlistExit> {
    move |error| Failure::new(exit, error.to_string())
}

fn run(cli: &Cli) -> Result<VzlistExit, Failure<VzlistExit>> {
    if cli.list {
        let names: Vec<String> = column::all()
            .into_iter()
            .map(|column| column.name)
            .collect();
        return print(&(names.join("\n") + "\n"))
            .map(|()| VzlistExit::Ok)
            .map_err(failed(VzlistExit::System));
    }
    let default = if cli.name { NAMED } else { DEFAULT };
    let wanted = if cli.only_numbers {
        "ctid"
    } else {
        cli.output.as_deref().unwrap_or(default)
    };
    let columns = wanted
        .split(',')
        .map(named)
        .collect::<Result<Vec<Column>, _>>()?;
    let sort = cli.sort.as_deref().unwrap_or("ctid");
    let (sort, is_downwards) = match sort.strip_prefix('-') {
        Some(sort) => (sort, true),
        None => (sort, false),
    };
    let sort = named(sort)?;
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(VzlistExit::Denied, "only root can do this"));
    }
    let paths = Paths::open(cli.common.prefix.as_deref()).map_err(failed(VzlistExit::Config))?;
    let (mut rows, exit) = rows(cli, &paths)?;
    rows.sort_by(|one, other| {
        let order = compare(one, other, &sort);
        if is_downwards { order.reverse() } else { order }
    });
    if rows.is_empty() && exit == VzlistExit::NotFound && !cli.json {
        return Ok(exit);
    }
    let text = if cli.vzquota {
        quota_list::text(&rows)
    } else if cli.json {
        let list: Vec<Value> = rows.iter().map(Row::json).collect();
        json(&list).map_err(failed(VzlistExit::System))?
    } else {
        table(&rows, &columns, cli.no_header || cli.only_numbers)
    };
    print(&text)
        .map(|()| exit)
        .map_err(failed(VzlistExit::System))
}

/// The column of this name.
fn named(name: &str) -> Result<Column, Failure<VzlistExit>> {
    column::column(name).ok_or_else(|| {
        let why = match absent::reason(absent::COLUMNS, name) {
            Some(why) => format!("column '{name}': not supported: {why}"),
            None => format!("'{name}' is no column: see vzlist -L"),
        };
        Failure::new(VzlistExit::Value, why)
    })
}

/// The VEs to list, and whether all that were named exist.
fn rows(cli: &Cli, paths: &Paths) -> Result<(Vec<Row>, VzlistExit), Failure<VzlistExit>> {
    let named = cli
        .ves
        .iter()
        .map(|name| resolve(paths, name))
        .collect::<Result<Vec<VeId>, _>>()
        .map_err(failed(VzlistExit::Value))?;
    let all: Vec<VeId> = if named.is_empty() {
        known(paths).into_iter().collect()
    } else {
        named.clone()
    };
    let (mut rows, mut exit) = (Vec::new(), VzlistExit::Ok);
    for ve in all {
        let row = match Row::look(paths, ve) {
            Ok(row) => row,
            // One wrong file does not hide the other VEs.
            Err(failure) => {
                complain(&format!("vzlist: VE {ve}: {}", failure.message));
                continue;
            }
        };
        if !row.exists(paths) {
            complain(&format!("vzlist: VE {ve}: Container(s) not found"));
            exit = VzlistExit::NotFound;
            continue;
        }
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
    Ok((rows, exit))
}

/// Numbers by their worth, others by their letters; what is absent comes first.
fn compare(one: &Row, other: &Row, column: &Column) -> Ordering {
    let (one, other) = (one.value(&column.name), other.value(&column.name));
    if !column.is_number {
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
            .map(|(cell, column)| {
                let width = column.width;
                if column.is_number {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        cells.join(" ").trim_end().to_owned() + "\n"
    };
    if !no_header {
        text += &line(
            columns
                .iter()
                .map(|column| column.heading.clone())
                .collect(),
        );
    }
    for row in rows {
        let cells = columns
            .iter()
            .map(|column| row.value(&column.name).unwrap_or_else(|| "-".into()));
        text += &line(cells.collect());
    }
    text
}

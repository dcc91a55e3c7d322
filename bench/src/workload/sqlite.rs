//! A database in a file: transactions in both of SQLite's journal modes.

use std::fmt::Write as _;
use std::fs::{self, File};

use anyhow::Result;

use super::{Place, Workload};
use crate::measure::{Sample, Unit, timed};
use crate::programs::{Program, command};

pub(super) struct Sqlite;

/// Rows of one transaction.
const ROWS: u32 = 20;

impl Workload for Sqlite {
    fn name(&self) -> String {
        "sqlite".to_owned()
    }

    fn about(&self) -> &'static str {
        "transactions of 20 inserts and a look-up: write-ahead log and rollback journal, each on the disk; log, not synced (lazy)"
    }

    fn programs(&self) -> &'static [Program] {
        const { &[Program::new("sqlite3", "sqlite3")] }
    }

    fn run(&self, place: Place<'_>) -> Result<Vec<Sample>> {
        let measure = |phase: &str, pragmas: &str, count: u32| {
            let script = tempfile::NamedTempFile::new()?;
            fs::write(script.path(), statements(pragmas, count))?;
            timed(phase, count, Unit::Ops, || {
                let mut sqlite = command("sqlite3", ["-bail", phase]);
                sqlite
                    .current_dir(place.dir)
                    .stdin(File::open(script.path())?);
                let said = sqlite.output()?;
                anyhow::ensure!(
                    said.status.success(),
                    "sqlite3: {}",
                    String::from_utf8_lossy(&said.stderr)
                );
                Ok(())
            })
        };
        Ok(vec![
            measure(
                "sqlite-wal",
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
                place.scale.pick(50, 300),
            )?,
            // Transactions that a loss of power may take: one fsync in a thousand pages, all else small writes.
            measure(
                "sqlite-lazy",
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
                place.scale.pick(500, 3_000),
            )?,
            measure(
                "sqlite-rollback",
                "PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL;",
                place.scale.pick(15, 100),
            )?,
        ])
    }
}

fn statements(pragmas: &str, count: u32) -> String {
    let mut text = format!(
        "{pragmas}\nCREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, v TEXT);\nCREATE INDEX i ON t(k);\n"
    );
    for transaction in 0..count {
        text.push_str("BEGIN;\n");
        for row in 0..ROWS {
            let key = (transaction * 7919 + row * 104_729) % 65_521;
            let _ = writeln!(
                text,
                "INSERT INTO t(k, v) VALUES({key}, printf('%0100d', {key}));"
            );
        }
        text.push_str("COMMIT;\n");
        let _ = writeln!(
            text,
            "SELECT count(*) FROM t WHERE k = {};",
            transaction * 31 % 65_521
        );
    }
    text
}

//! What the manual page says beyond the command line.

use std::ffi::OsString;

use clap::CommandFactory;
use simfs_tools::absent;
use simfs_tools::exit::VzlistExit;
use simfs_tools::manual::{self, Page, Part};

use crate::{Cli, column};

/// Answers who asks for the page, or a shell that asks at TAB.
pub(crate) fn answer(arguments: &[OsString]) -> Option<VzlistExit> {
    let done = manual::answer(arguments, "vzlist", Cli::command, pages)?;
    Some(if done {
        VzlistExit::Ok
    } else {
        VzlistExit::Usage
    })
}

fn pages() -> Vec<Page> {
    let names: Vec<&str> = column::FIXED.iter().map(|column| column.0).collect();
    let counted: Vec<&str> = column::counted().collect();
    let page = Page::of_program(Cli::command(), VzlistExit::ALL, "vzctl(8), vzquota(8), vz.conf(5)")
        .describing(&[DESCRIPTION])
        .with(
            "COLUMNS",
            vec![
                Part::text(&names.join(", ")),
                Part::text(&format!(
                    "User beancounters: {}. The name alone is what is held; with .m what was held at most, .b the \
                     barrier, .l the limit, .f the number of refusals.",
                    counted.join(", ")
                )),
            ],
        )
        .with(
            "NOT SUPPORTED",
            absent::COLUMNS.iter().map(|absent| Part::item(&absent.names.join(", "), absent.why)),
        );
    vec![page]
}

const DESCRIPTION: &str = "Lists the VEs that run, or with options others. Usage and limits of disk space (in KiB) and \
     inodes are those in force: diskspace and diskinodes are usage, with .s the soft and with .h the hard limit.";

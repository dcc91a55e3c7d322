//! Manual pages and shell completion, made from the parsers of the programs themselves.
//!
//! Each program answers `--generate PAGE` with a page in roff, and the shell's questions at TAB, before it reads its
//! command line in earnest. So neither can say anything else than the program does, and nothing generated is kept in
//! the sources: `scripts/install.sh` asks the programs that it installs.
//!
//! Not here: what a page says beyond the command line stands with each program (`manual.rs` beside its `args.rs`).

mod completion;
mod page;

use std::ffi::OsString;

use clap::Command;

use crate::report::{complain, print};

pub use page::{Page, Part};

/// Answers a command line that asks for a page or for completion; whether it did, and how well.
///
/// `name` is that of the program, `command` its parser.
pub fn answer(
    arguments: &[OsString],
    name: &str,
    command: fn() -> Command,
    pages: fn() -> Vec<Page>,
) -> Option<bool> {
    if completion::answer(arguments, command) {
        return Some(true);
    }
    let [_, flag, rest @ ..] = arguments else {
        return None;
    };
    if flag != "--generate" {
        return None;
    }
    let pages = pages();
    let wanted = rest.first().and_then(|wanted| wanted.to_str());
    let found = pages.iter().find(|page| wanted == Some(&*page.file()));
    match found.map(|page| print(&page.render())) {
        Some(printed) => Some(printed.is_ok()),
        None => {
            let names: Vec<String> = pages.iter().map(Page::file).collect();
            complain(&format!(
                "{name}: --generate: give the name of a page: {}",
                names.join(", ")
            ));
            Some(false)
        }
    }
}

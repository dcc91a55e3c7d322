//! What the manual page says beyond the command line.

use std::ffi::OsString;

use clap::CommandFactory;
use simfs_tools::exit::VzctlExit;
use simfs_tools::manual::{self, Page, Part};

use crate::args::{Cli, EXITS};

/// Answers who asks for the page, or a shell that asks at TAB.
pub(crate) fn answer(arguments: &[OsString]) -> Option<VzctlExit> {
    let done = manual::answer(arguments, "vzpkg", Cli::command, pages)?;
    Some(if done {
        VzctlExit::Ok
    } else {
        VzctlExit::Usage
    })
}

fn pages() -> Vec<Page> {
    let page = Page::of_program(
        Cli::command(),
        EXITS,
        "vzctl(8), vz.conf(5), debootstrap(8)",
    )
    .describing(&DESCRIPTION)
    .with(
        "FILES",
        vec![Part::item(
            "/vz/template/cache/NAME.tar, .tar.gz, .tar.xz, .tar.zst, or a directory NAME",
            "the templates; whatever is put there can be used",
        )],
    )
    .with("EXAMPLES", vec![Part::Example(EXAMPLE)]);
    vec![page]
}

const DESCRIPTION: [&str; 2] = [
    "A template is the root directory that 'vzctl create' makes VEs from. It appears under its name only when it is whole.",
    "Called as vzpkgls it is 'vzpkg list', as vzpkgcache 'vzpkg cache'. Called as vzyum it says that packages are \
     installed in the VE itself.",
];

const EXAMPLE: &str = "\
vzpkg cache debian-12-minbase
vzpkg cache web --suite bookworm --variant minbase --include systemd-sysv,nginx --form tar.zst
vzpkg import alpine ./oci-layout --form tree
vzpkg import mine root.tar.xz
vzpkg list
";

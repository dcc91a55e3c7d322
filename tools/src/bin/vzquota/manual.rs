//! What the manual page says beyond the command line.

use std::ffi::OsString;

use clap::CommandFactory;
use simfs_tools::exit::VzquotaExit;
use simfs_tools::manual::{self, Page, Part};

use crate::args::{Cli, FORMS};

/// Answers who asks for the page, or a shell that asks at TAB.
pub(crate) fn answer(arguments: &[OsString]) -> Option<VzquotaExit> {
    let done = manual::answer(arguments, "vzquota", Cli::command, pages)?;
    Some(if done {
        VzquotaExit::Ok
    } else {
        VzquotaExit::Usage
    })
}

fn pages() -> Vec<Page> {
    let page = Page::of_program(Cli::command(), VzquotaExit::ALL, SEE_ALSO)
        .describing(&DESCRIPTION)
        .with("VALUES", vec![Part::text(FORMS)])
        .with("EXAMPLES", vec![Part::Example(EXAMPLE)]);
    vec![page]
}

const SEE_ALSO: &str = "simfs(8), vzctl(8), quota(1), setquota(8), repquota(8)";

const DESCRIPTION: [&str; 3] = [
    "Every VE has limits of space and of inodes: a soft one that may be passed for the grace period, and a hard one \
     that never is. What is set is on the disk before the command ends, and holds for the VE's very next request.",
    "The second level is that of the VE's users and groups. It is usually administered from inside the VE; setlimit2 and \
     'stat -t' do it from the host, whether the VE is mounted or not.",
    "With -b before the command, stat and show print two lines for scripts, of space (in KiB) and of inodes: usage, soft \
     limit, hard limit, deadline (seconds since 1970, 0: none), grace period (seconds).",
];

const EXAMPLE: &str = "\
vzquota init 101 -p /vz/private/101 -b 1G -B 1.1G -i 200000 -I 220000 -e 7d -n 7d
vzquota setlimit 101 -b 2G -B 2.2G
vzquota stat 101 -t
vzquota setlimit2 101 -u 1000 100M 110M 10000 11000
";

//! simfs, driven by its own programs. Limits are out of reach but set, on both levels: every change is checked.

use anyhow::Result;

use super::mounted::{Mounted, PATIENCE};
use super::{Ground, Tools};
use crate::programs::{command, output};

const VE: &str = "101";
/// In KiB: more than any workload needs.
const SPACE: &str = "100000000";
const INODES: &str = "10000000";

pub(super) fn mount(ground: &Ground, tools: &Tools) -> Result<Mounted> {
    let program = |name: &str, words: &[&str]| {
        let mut program = command(tools.bin_dir.join(name), ["--prefix"]);
        program.arg(&ground.state).args(words);
        program
    };
    let mut init = program(
        "vzquota",
        &[
            "init", VE, "-b", SPACE, "-B", SPACE, "-i", INODES, "-I", INODES,
        ],
    );
    init.args(["-e", "7D", "-n", "7D", "-s", "1", "-p"])
        .arg(&ground.backing);
    output(&mut init, PATIENCE)?;
    for who in ["-u", "-g"] {
        let words = ["setlimit2", VE, who, "0", SPACE, SPACE, INODES, INODES];
        output(&mut program("vzquota", &words), PATIENCE)?;
    }
    let mut mount = program("simfs", &["mount", VE]);
    mount.arg(&ground.mountpoint);
    Mounted::by(
        &mut mount,
        &ground.mountpoint,
        program("simfs", &["umount", VE]),
    )
}

//! What the manual pages say beyond the command line.

use std::ffi::OsString;

use clap::CommandFactory;
use simfs::mount::OPTIONS;
use simfs_tools::exit::{MountHelperExit, SimfsExit};
use simfs_tools::manual::{self, Page, Part};

use crate::args::{Cli, EXIT_NOTE};
use crate::helper;

/// Answers who asks for a page, or a shell that asks at TAB.
pub(crate) fn answer(arguments: &[OsString]) -> Option<SimfsExit> {
    let done = manual::answer(arguments, "simfs", Cli::command, pages)?;
    Some(if done {
        SimfsExit::Ok
    } else {
        SimfsExit::Usage
    })
}

fn pages() -> Vec<Page> {
    let files = vec![
        Part::item(
            "/vz/private/VEID",
            "the VE's files; see vz.conf(5) to move it",
        ),
        Part::item("/vz/root/VEID", "where they are mounted"),
        Part::item(
            "/var/lib/simfs/VEID",
            "the quota database, and settings.copy and limits.copy, a readable copy of what was set",
        ),
        Part::item(
            "/run/simfs/VEID",
            "while it is mounted: control socket, log, and what accounting needs after a kill",
        ),
    ];
    let simfs = Page::of_program(Cli::command(), SimfsExit::ALL, SEE_ALSO)
        .with_exit_note(EXIT_NOTE)
        .describing(&DESCRIPTION)
        .with("MOUNT OPTIONS", mount_options())
        .with("FILES", files)
        .with("EXAMPLES", vec![Part::Example(EXAMPLE)]);
    let helper = Page::of_program(helper::Call::command(), MountHelperExit::ALL, SEE_ALSO)
        .describing(&[HELPER])
        .with("MOUNT OPTIONS", mount_options())
        .with(
            "EXAMPLES",
            vec![Part::text("In /etc/fstab:"), Part::Example(FSTAB)],
        );
    vec![simfs, helper]
}

fn mount_options() -> Vec<Part> {
    let mut parts: Vec<Part> = OPTIONS
        .iter()
        .map(|(option, meaning)| Part::item(option, meaning))
        .collect();
    parts.push(Part::text(
        "Options that concern others, such as defaults, nofail, _netdev, user and x-*, are accepted. A later option \
         overrides an earlier one. 'remount' is refused; 'mount -o remount,bind,ro MOUNTPOINT' changes flags of a root in use.",
    ));
    parts
}

const SEE_ALSO: &str =
    "simfs(8), mount.simfs(8), vzquota(8), vzctl(8), vz.conf(5), mount(8), fstab(5)";

const DESCRIPTION: [&str; 3] = [
    "simfs shows a directory of the host, a VE's private area, as a file system with disk quota: blocks and inodes of the \
     whole VE (the first level, see vzquota(8)), and of its users and groups (the second level, which root of the VE \
     sets with the ordinary quota tools). One daemon serves each mounted VE.",
    "While a VE is mounted its private area belongs to the daemon: what is changed there behind its back is not charged \
     until 'simfs check --repair' finds it.",
    "With --foreground the command stays; where NOTIFY_SOCKET is set, it tells the service manager READY=1 when the mount \
     answers, and STOPPING=1 when it is being taken away (sd_notify(3)).",
];

const HELPER: &str = "The helper that mount(8) calls for 'mount -t simfs VEID MOUNTPOINT', by hand or from fstab(5). The \
     same as 'simfs mount VEID MOUNTPOINT': the VE must have a quota record. The mount is undone with umount(8).";

const EXAMPLE: &str = "\
vzquota init 101 -p /vz/private/101 -b 1G -B 1.1G -i 200000 -I 220000 -e 7d -n 7d
simfs mount 101
simfs status 101
simfs check 101
simfs umount 101
";

const FSTAB: &str = "101  /vz/root/101  simfs  nofail  0 0\n";

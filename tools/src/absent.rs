//! What OpenVZ's programs had and these have not: refused by name, with the reason and what to do instead.
//!
//! # Source
//! vzctl(8), vzlist(8), ctid.conf(5) of OpenVZ.

use clap::error::{ContextKind, ContextValue};

/// Names that are absent for one reason.
pub struct Absent {
    /// As they are typed; options without dashes.
    pub names: &'static [&'static str],
    /// Why, and what to do instead.
    pub why: &'static str,
}

const fn absent(names: &'static [&'static str], why: &'static str) -> Absent {
    Absent { names, why }
}

/// Commands of vzctl.
#[rustfmt::skip]
pub const COMMANDS: &[Absent] = &[
    absent(&["suspend", "chkpnt", "checkpoint", "resume", "restore"],
        "the state of a VE that runs is not kept in a file; use 'vzctl stop' and 'vzctl start'"),
    absent(&["snapshot", "snapshot-create", "snapshot-delete", "snapshot-list", "snapshot-mount", "snapshot-switch", "snapshot-umount"],
        "snapshots belonged to image files; stop the VE and take one of the file system below its private area (btrfs, LVM)"),
    absent(&["convert"],
        "every VE lies on simfs; bring the files of another layout into the private area and count them with 'vzctl quotainit'"),
    absent(&["compact"],
        "there is no image file to shrink: what is deleted is the host's at once"),
    absent(&["console"],
        "a VE has no console to attach to; open a shell with 'vzctl enter', and find what its first program said in \
         /run/vz/VEID/console"),
    absent(&["reinstall"],
        "use 'vzctl destroy' and 'vzctl create'"),
];

/// Options of `vzctl create` and `set`.
#[rustfmt::skip]
pub const OPTIONS: &[Absent] = &[
    absent(&["ipadd", "ipdel", "netif_add", "netif_del", "netdev_add", "netdev_del", "netif_ifname", "netfilter", "iptables"],
        "a VE has a network of its own that vzctl does not connect; move a device into it with 'ip link set DEVICE netns PID', \
         PID being the VE's in 'lsns -t net'"),
    absent(&["kmemsize", "lockedpages", "privvmpages", "shmpages", "vmguarpages", "oomguarpages", "numtcpsock", "numflock",
             "numpty", "numsiginfo", "tcpsndbuf", "tcprcvbuf", "othersockbuf", "dgramrcvbuf", "numothersock", "dcachesize",
             "numfile", "numiptent", "avnumproc", "vm_overcommit"],
        "an ordinary kernel does not limit it for a VE; limit memory as a whole with --ram and --swap, processes with --numproc"),
    absent(&["reset_ub"],
        "limits are in force when they are set"),
    absent(&["devices"],
        "give devices by the name of their node, with --devnodes"),
    absent(&["pci_add", "pci_del"],
        "an ordinary kernel gives no PCI device to a VE; give nodes with --devnodes"),
    absent(&["features"],
        "what a VE may do is given with --capability and --devnodes"),
    absent(&["cpumask", "nodemask"],
        "CPUs are given by number, with --cpus"),
    absent(&["mount_opts"],
        "it concerned image files; options of a mount are those of 'simfs mount -o'"),
    absent(&["userpasswd"],
        "set it inside, with 'vzctl exec VEID chpasswd'"),
    absent(&["offline-resize"],
        "disk limits change at once, with --diskspace"),
];

/// Columns of vzlist.
#[rustfmt::skip]
pub const COLUMNS: &[Absent] = &[
    absent(&["laverage"], "an ordinary kernel counts it for the host only; see 'vzctl exec VEID cat /proc/loadavg'"),
    absent(&["uptime"], "an ordinary kernel counts it for the host only; see 'vzctl exec VEID ps -o etime= -p 1'"),
    absent(&["mount_opts"], "it concerned image files"),
    absent(&["origin_sample"], "the sample is not kept; what it said is in the configuration"),
    absent(&["features", "netfilter"], "there is no such setting"),
    absent(&["capability"], "see CAPABILITY in the VE's configuration"),
    absent(&["vswap", "vm_overcommit"], "memory and swap space are limited by an ordinary kernel: see physpages and swappages"),
];

/// The reason of a name in a list.
pub fn reason(list: &'static [Absent], name: &str) -> Option<&'static str> {
    let found = list.iter().find(|absent| absent.names.contains(&name))?;
    Some(found.why)
}

/// The complaint about a command line of vzctl that asks for something absent, in one line.
pub fn complaint(error: &clap::Error) -> Option<String> {
    let typed = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    let (word, why) = if let Some(command) = typed(ContextKind::InvalidSubcommand) {
        (command, reason(COMMANDS, command)?)
    } else {
        let option = typed(ContextKind::InvalidArg)?;
        (option, reason(OPTIONS, option.strip_prefix("--")?)?)
    };
    Some(format!("{word}: not supported: {why}"))
}

//! What the manual pages say beyond the command line: those of vzctl and of the configuration.

use std::ffi::OsString;

use clap::CommandFactory;
use simfs_tools::absent;
use simfs_tools::exit::VzctlExit;
use simfs_tools::keys::KEYS;
use simfs_tools::manual::{self, Page, Part};
use simfs_tools::setting::{Effect, SETTINGS};

use crate::args::{Cli, EXIT_NOTE};

/// Answers who asks for a page, or a shell that asks at TAB.
pub(crate) fn answer(arguments: &[OsString]) -> Option<VzctlExit> {
    let done = manual::answer(arguments, "vzctl", Cli::command, pages)?;
    Some(if done {
        VzctlExit::Ok
    } else {
        VzctlExit::Usage
    })
}

fn pages() -> Vec<Page> {
    let vzctl = Page::of_program(Cli::command(), VzctlExit::ALL, SEE_ALSO)
        .with_exit_note(EXIT_NOTE)
        .describing(&DESCRIPTION)
        .with("FILES", files())
        .with("NOT SUPPORTED", absent())
        .with("EXAMPLES", vec![Part::Example(EXAMPLE)]);
    vec![vzctl, configuration()]
}

fn files() -> [Part; 7] {
    [
        ("/etc/vz/vz.conf", "the host's configuration; may be absent"),
        ("/etc/vz/conf/VEID.conf", "a VE's configuration"),
        ("/etc/vz/conf/ve-NAME.conf-sample", "what 'create --config NAME' starts from"),
        (
            "/etc/vz/conf/vps.PHASE, /etc/vz/conf/VEID.PHASE",
            "action scripts of all VEs and of one, run on the host; PHASE is premount, mount, umount or postumount. \
             VEID and VE_CONFFILE are in their environment; one that fails makes the command fail with 79",
        ),
        (
            "/etc/vz/conf/VEID.start, /etc/vz/conf/VEID.stop",
            "action scripts that are run in the VE after its start and before its end",
        ),
        ("/etc/vz/names/NAME", "names, as links to configuration files"),
        (
            "/run/user_beancounters",
            "in a VE that runs: its user beancounters, in OpenVZ's form 2.5 and made anew for each reading",
        ),
    ]
    .map(|(file, meaning)| Part::item(file, meaning))
}

/// What OpenVZ's vzctl had besides.
fn absent() -> Vec<Part> {
    let commands = absent::COMMANDS
        .iter()
        .map(|absent| Part::item(&absent.names.join(", "), absent.why));
    let options = absent::OPTIONS
        .iter()
        .map(|absent| Part::item(&format!("--{}", absent.names.join(", --")), absent.why));
    commands.chain(options).collect()
}

/// vz.conf(5): every key there is.
fn configuration() -> Page {
    let keys = |of_ve: bool| {
        KEYS.iter()
            .filter(move |key| key.of_ve == of_ve)
            .map(|key| {
                let default = match key.default {
                    "" => String::new(),
                    default => format!(" Default: {default}."),
                };
                Part::item(key.name, &(key.meaning.to_owned() + &default))
            })
    };
    let mut names: Vec<&str> = Vec::new();
    let mut settings = Vec::new();
    for setting in SETTINGS {
        if names.contains(&setting.key) {
            continue;
        }
        names.push(setting.key);
        let when = match setting.effect {
            Effect::Disk => {
                "A running VE takes it over with 'vzctl set --applyconfig'; the quota record decides."
            }
            Effect::Group | Effect::Guest | Effect::Start => "Takes effect at the next start.",
            Effect::Host => "Concerns the host only.",
        };
        let help = setting.help.trim_end_matches('.');
        settings.push(Part::Item(
            format!("{}=\"{}\"", setting.key, setting.value_name),
            format!("{help}. {when}"),
        ));
    }
    Page::of_file(
        "vz.conf",
        "configuration of the host and of its VEs",
        SEE_ALSO,
    )
    .describing(&FORMAT)
    .with("KEYS OF THE HOST", keys(false))
    .with("KEYS OF THE HOST OR OF ONE VE", keys(true))
    .with("KEYS OF A VE", settings)
    .with("EXAMPLES", vec![Part::Example(CONFIGURATION)])
}

const SEE_ALSO: &str =
    "vzctl(8), vzlist(8), vzpkg(8), vzquota(8), simfs(8), vz.conf(5), crun(1), runc(8)";

const DESCRIPTION: [&str; 2] = [
    "vzctl makes VEs (containers) from templates, starts them with crun or runc on a root that simfs(8) serves, changes \
     and removes them. A VE is known by its number, or by the name that was given to it.",
    "Commands on one VE exclude each other. A command that was interrupted can be repeated.",
];

const FORMAT: [&str; 3] = [
    "/etc/vz/vz.conf holds for the host, /etc/vz/conf/VEID.conf for one VE and wins. Both may be absent. Each line is \
     KEY=\"VALUE\", empty, or a comment that begins with '#'. Of a key that is given twice the first counts; keys that \
     are not listed here are ignored. A line or value that makes no sense is an error that names file and line.",
    "A VE's settings may stand in vz.conf too, for all VEs that have none of their own. The prefix (--prefix, \
     SIMFS_PREFIX) stands before every path.",
    "Limits of disk space are kept in the quota database; what stands here is what 'vzctl create' and 'vzctl set' bring \
     into it. A file that was edited by hand is reported at the next mount, and taken over by 'vzctl set VEID \
     --applyconfig'.",
];

const EXAMPLE: &str = "\
vzpkg cache debian-12-minbase
vzctl create 101 --ostemplate debian-12-minbase --diskspace 1G:1.1G --hostname web
vzctl start 101
vzctl exec 101 df -h /
vzctl set 101 --diskspace 2G:2.2G --save
vzctl stop 101
vzctl destroy 101
";

const CONFIGURATION: &str = "\
# /etc/vz/conf/101.conf
DISKSPACE=\"1048576:1153433\"
DISKINODES=\"200000:220000\"
QUOTAUGIDLIMIT=\"1000\"
HOSTNAME=\"web\"
ONBOOT=\"yes\"
";

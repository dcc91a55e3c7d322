//! The keys of the configuration files that are no [`crate::setting`]: where things lie, and what the programs do.
//!
//! With the settings this is all that is ever read from a configuration; `tests/cli/manual.rs` compares with the
//! sources.

use crate::runtime::Kind;

/// A key.
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What holds where it is not given.
    pub default: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// Whether a VE's own file may give it.
    pub of_ve: bool,
}

const fn key(name: &'static str, default: &'static str, of_ve: bool, meaning: &'static str) -> Key {
    Key {
        name,
        default,
        meaning,
        of_ve,
    }
}

/// What is wrong with a value, and what to write; `None` if nothing is.
pub fn complaint(name: &str, value: &str) -> Option<&'static str> {
    let (is_right, wanted) = match name {
        "VE_PRIVATE" | "VE_ROOT" | "TEMPLATE" | "LOCKDIR" => {
            (value.starts_with('/'), "a place: give an absolute path")
        }
        "DISK_QUOTA" => (matches!(value, "yes" | "no"), "a switch: give yes or no"),
        "RUNTIME" => (
            Kind::of(value).is_some(),
            "a container runtime: give crun or runc",
        ),
        "VE_PARALLEL" | "STOP_TIMEOUT" => (
            value.parse::<u32>().is_ok(),
            "a number: give 0 to 4294967295",
        ),
        _ => (true, ""),
    };
    (!is_right).then_some(wanted)
}

/// All of them.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("VE_PRIVATE", "/vz/private/$VEID", true, "The directory with a VE's files. $VEID or ${VEID} stands for the number."),
    key("VE_ROOT", "/vz/root/$VEID", true, "Where it is mounted."),
    key("TEMPLATE", "/vz/template", false, "The directory of templates; they lie in cache/ below it."),
    key("LOCKDIR", "/vz/lock", false, "The directory of the locks by which commands on one VE wait for each other."),
    key("DISK_QUOTA", "yes", true, "no: VEs are mounted without limits, and df shows the host's space."),
    key("DEF_OSTEMPLATE", "", false, "The template of 'vzctl create' where none is named."),
    key("CONFIGFILE", "", false, "The sample of 'vzctl create' where none is named: NAME of conf/ve-NAME.conf-sample."),
    key("RUNTIME", "what is installed, crun before runc", true, "The container runtime: crun or runc."),
    key("VE_PARALLEL", "four for each CPU", false, "How many VEs vz-boot starts or stops at once."),
    key("STOP_TIMEOUT", "120", true, "Seconds that a VE may take to end by itself when it is stopped."),
];

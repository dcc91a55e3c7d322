//! The helper of mount(8): `mount.simfs SRC DIR [-sfnv] [-N namespace] [-o options] [-t type]`.
//!
//! # Source
//! mount(8), "EXTERNAL HELPERS".

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Parser};
use quota::VeId;
use simfs::mount::MountOptions;
use simfs_tools::cli;
use simfs_tools::ending;
use simfs_tools::exit::{self, Failure, MountHelperExit};
use simfs_tools::paths::Paths;
use simfs_tools::report::{complain, print};
use simfs_tools::value::parse_ve;
use simfs_tools::ve_state::is_mount_point;

use crate::mount::{MountRequest, plan};
use crate::start::start;

/// What mount(8) says.
#[derive(Debug, Parser)]
#[command(
    name = "mount.simfs",
    version,
    about = "The helper of mount(8) for simfs",
    after_help = exit::help(MountHelperExit::ALL),
    max_term_width = 110
)]
pub(crate) struct Call {
    /// The VE's number.
    #[arg(value_name = "VEID", allow_negative_numbers = true)]
    source: String,
    /// Where to mount it.
    mountpoint: PathBuf,
    /// Mount options, separated by commas.
    #[arg(short, value_name = "OPTIONS", allow_hyphen_values = true)]
    options: Vec<String>,
    /// Check everything, but do not mount.
    #[arg(short)]
    fake: bool,
    /// Accepted: nothing here is sloppy.
    #[arg(short, action = ArgAction::Count)]
    sloppy: u8,
    /// Accepted: no mtab is written.
    #[arg(short, action = ArgAction::Count)]
    no_mtab: u8,
    /// Accepted: there is no more to say.
    #[arg(short, action = ArgAction::Count)]
    verbose: u8,
    /// Accepted: the type is simfs.
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
    /// Not supported: mounting in another namespace.
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<String>,
}

pub(crate) fn main(arguments: &[OsString]) -> MountHelperExit {
    let call = match Call::try_parse_from(arguments) {
        Ok(call) => call,
        Err(error) => {
            return match cli::explain(&error, "mount.simfs") {
                Ok(text) => print(&text).map_or(MountHelperExit::System, |()| MountHelperExit::Ok),
                Err(line) => {
                    complain(&format!("mount.simfs: {line}"));
                    MountHelperExit::Usage
                }
            };
        }
    };
    match run(&call) {
        Ok(()) => MountHelperExit::Ok,
        Err(failure) => {
            complain(&format!("mount.simfs: {}", failure.message));
            failure.exit
        }
    }
}

fn run(call: &Call) -> Result<(), Failure<MountHelperExit>> {
    if call.namespace.is_some() {
        return Err(Failure::new(
            MountHelperExit::Usage,
            "-N: mounting in another namespace is not supported: enter it with nsenter(1) first",
        ));
    }
    let ve = parse_ve(&call.source)
        .map_err(|error| Failure::new(MountHelperExit::Usage, error.to_string()))?;
    let about = |failure: Failure<_>| failure.about(format_args!("VE {ve}"));
    if is_remount(&call.options) {
        let place = call.mountpoint.display();
        return Err(about(Failure::new(
            MountHelperExit::Usage,
            format!(
                "remount: what was given at the mount stays; 'mount -o remount,bind,ro {place}' changes flags (ro rw dev nodev \
                 suid nosuid exec noexec), unmounting and mounting everything else"
            ),
        )));
    }
    let options = MountOptions::parse(&call.options.join(","))
        .map_err(|error| about(Failure::new(MountHelperExit::Usage, error.to_string())))?;
    let paths = Paths::open(None)
        .map_err(|error| about(Failure::new(MountHelperExit::System, error.to_string())))?;
    // 'mount -a' asks again for what it does not recognize: the mount table shows another source than fstab.
    if is_mounted_at(&paths, ve, &call.mountpoint) {
        let place = call.mountpoint.display();
        complain(&format!(
            "mount.simfs: VE {ve}: mounted at {place} already, with the options given then"
        ));
        return Ok(());
    }
    let request = MountRequest {
        ve,
        mountpoint: Some(&call.mountpoint),
        private: None,
        options,
        foreground: false,
        quota: true,
    };
    let failed = |why: String| about(Failure::new(MountHelperExit::Failed, why));
    let plan = plan(&paths, &request).map_err(|refusal| failed(refusal.to_string()))?;
    if call.fake {
        Ok(())
    } else {
        start(plan).map_err(failed)
    }
}

fn is_remount(options: &[String]) -> bool {
    let mut single = options.iter().flat_map(|options| options.split(','));
    single.any(|option| option.trim() == "remount")
}

/// Whether something is mounted at this place and the VE's own daemon says that it serves it. One that was just unmounted
/// still answers.
fn is_mounted_at(paths: &Paths, ve: VeId, place: &Path) -> bool {
    if !is_mount_point(place) {
        return false;
    }
    let status = ending::status(&paths.run_dir(ve));
    let place = place.canonicalize();
    matches!((status, place), (Ok(status), Ok(place)) if status.mountpoint == place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Call, String> {
        Call::try_parse_from(["mount.simfs"].into_iter().chain(line.split(' ')))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_grammar_is_that_of_mount_8() {
        let call = parsed("101 /mnt -sfnv -o rw,noatime -t simfs").unwrap();
        assert_eq!(
            (call.source.as_str(), call.mountpoint.as_path()),
            ("101", Path::new("/mnt"))
        );
        assert_eq!(call.options, ["rw,noatime"]);
        assert!(call.fake);
        assert_eq!(parsed("-orw 101 /mnt -o ro").unwrap().options, ["rw", "ro"]);
    }

    #[test]
    fn a_remount_is_refused_with_what_to_do_instead() {
        for options in ["remount,ro", "rw, remount", "remount"] {
            let call = Call::try_parse_from(["mount.simfs", "101", "/mnt", "-o", options]).unwrap();
            let failure = run(&call).unwrap_err();
            assert_eq!(failure.exit, MountHelperExit::Usage);
            assert!(
                failure.message.contains("remount,bind,ro /mnt"),
                "{options}"
            );
        }
        assert!(!is_remount(&["ro,x-remount".to_owned()]));
    }

    #[test]
    fn wrong_calls_are_named() {
        for (line, word) in [
            ("101", "MOUNTPOINT"),
            ("101 /mnt extra", "extra"),
            ("101 /mnt -z", "-z"),
            ("101 /mnt -o", "-o"),
        ] {
            assert!(parsed(line).unwrap_err().contains(word), "{line}");
        }
    }
}

//! The helper of mount(8): `mount.simfs SRC DIR [-sfnv] [-N namespace] [-o options] [-t type]`.
//!
//! # Source
//! mount(8), "EXTERNAL HELPERS".

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use simfs::mount::MountOptions;
use simfs_tools::exit::{Failure, MountHelperExit};
use simfs_tools::paths::Paths;
use simfs_tools::report::{complain, print};
use simfs_tools::value::parse_ve;

use crate::mount::{MountRequest, plan};
use crate::start::start;

const USAGE: &str = "Usage: mount.simfs VEID MOUNTPOINT [-fnsv] [-o OPTIONS]\n\
                     The helper of mount(8); see simfs(8). Exit codes are those of mount(8).\n";

/// What mount(8) says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    source: String,
    mountpoint: PathBuf,
    options: Vec<String>,
    fake: bool,
}

pub(crate) fn main(arguments: &[OsString]) -> MountHelperExit {
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        return print(USAGE).map_or(MountHelperExit::System, |()| MountHelperExit::Ok);
    }
    if arguments
        .iter()
        .any(|argument| argument == "--version" || argument == "-V")
    {
        let version = concat!("mount.simfs ", env!("CARGO_PKG_VERSION"), "\n");
        return print(version).map_or(MountHelperExit::System, |()| MountHelperExit::Ok);
    }
    match run(arguments) {
        Ok(()) => MountHelperExit::Ok,
        Err(failure) => {
            complain(&format!("mount.simfs: {}", failure.message));
            failure.exit
        }
    }
}

fn run(arguments: &[OsString]) -> Result<(), Failure<MountHelperExit>> {
    let call = parse(arguments).map_err(|error| Failure::new(MountHelperExit::Usage, error))?;
    let ve = parse_ve(&call.source)
        .map_err(|error| Failure::new(MountHelperExit::Usage, error.to_string()))?;
    let about = |failure: Failure<_>| failure.about(format_args!("VE {ve}"));
    let options = MountOptions::parse(&call.options.join(","))
        .map_err(|error| about(Failure::new(MountHelperExit::Usage, error.to_string())))?;
    let paths = Paths::open(None)
        .map_err(|error| about(Failure::new(MountHelperExit::System, error.to_string())))?;
    let request = MountRequest {
        ve,
        mountpoint: Some(&call.mountpoint),
        private: None,
        options,
        foreground: false,
        quota: true,
    };
    let failed = |error: String| about(Failure::new(MountHelperExit::Failed, error));
    let plan = plan(&paths, &request).map_err(failed)?;
    if call.fake {
        Ok(())
    } else {
        start(plan).map_err(failed)
    }
}

/// Reads the command line; errors are one line that names the argument.
fn parse(arguments: &[OsString]) -> Result<Call, String> {
    let mut call = Call::default();
    let mut positional: Vec<&OsString> = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        if bytes.len() < 2 || !bytes.starts_with(b"-") {
            positional.push(argument);
            continue;
        }
        let letters = argument
            .to_str()
            .ok_or_else(|| format!("unknown option {}", argument.display()))?
            .trim_start_matches('-');
        for (at, letter) in letters.char_indices() {
            match letter {
                'f' => call.fake = true,
                // Nothing here is sloppy, writes an mtab, or has more to say.
                's' | 'n' | 'v' => {}
                'o' | 't' | 'N' => {
                    let attached = letters.get(at + 1..).unwrap_or("");
                    let value = value_of(letter, attached, &mut rest)?;
                    if letter == 'o' {
                        call.options.push(value);
                    } else if letter == 'N' {
                        return Err("-N: mounting in another namespace is not supported".into());
                    }
                    break;
                }
                _ => return Err(format!("unknown option -{letter}")),
            }
        }
    }
    let [source, mountpoint] = positional.as_slice() else {
        return Err("give a VE's number and a mountpoint".into());
    };
    call.source = source.to_str().unwrap_or("(not UTF-8)").to_owned();
    call.mountpoint = Path::new(mountpoint).to_owned();
    Ok(call)
}

fn value_of(
    letter: char,
    attached: &str,
    rest: &mut std::slice::Iter<'_, OsString>,
) -> Result<String, String> {
    if !attached.is_empty() {
        return Ok(attached.to_owned());
    }
    let value = rest
        .next()
        .ok_or_else(|| format!("-{letter} needs a value"))?;
    value
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("-{letter}: {} is not UTF-8", value.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Call, String> {
        parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
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
    fn wrong_calls_are_named() {
        for (line, word) in [
            ("101", "mountpoint"),
            ("101 /mnt extra", "mountpoint"),
            ("101 /mnt -z", "-z"),
            ("101 /mnt -o", "-o"),
            ("101 /mnt -N 5", "-N"),
        ] {
            assert!(parsed(line).unwrap_err().contains(word), "{line}");
        }
    }
}

//! Debian templates, made by debootstrap.

use std::path::Path;
use std::process::Command;

use simfs_tools::exit::{Failure, VzctlExit};

use crate::args::CacheArgs;
use crate::{Fallible, Workshop, check_name, program};

/// Releases by number.
const SUITES: [(&str, &str); 4] = [
    ("10", "buster"),
    ("11", "bullseye"),
    ("12", "bookworm"),
    ("13", "trixie"),
];

pub(crate) fn cache(cache: &Path, args: &CacheArgs) -> Fallible<()> {
    check_name(&args.name)?;
    let (suite, variant) = release(args)?;
    let workshop = Workshop::open(cache, &args.name)?;
    let tree = workshop.dir.join("root");
    let mut command = Command::new("debootstrap");
    if variant != "standard" {
        command.arg(format!("--variant={variant}"));
    }
    if !args.include.is_empty() {
        command.arg(format!("--include={}", args.include));
    }
    command.arg(suite).arg(&tree).args(&args.mirror);
    program(&mut command)?;
    clean(&tree)?;
    workshop.publish(&tree, cache, &args.name, args.form)
}

/// The release and variant, as given or as the name says.
fn release(args: &CacheArgs) -> Fallible<(String, String)> {
    let mut parts = args.name.splitn(3, '-');
    let (system, version, variant) = (parts.next(), parts.next(), parts.next());
    let known = SUITES
        .iter()
        .find(|(number, suite)| version.is_some_and(|word| word == *number || word == *suite))
        .filter(|_| system == Some("debian"));
    let suite = args
        .suite
        .clone()
        .or_else(|| known.map(|(_, suite)| (*suite).to_owned()));
    let suite = suite.ok_or_else(|| {
        Failure::new(
            VzctlExit::Value,
            format!(
                "'{}' does not say which release: name it debian-12-minbase, or give --suite",
                args.name
            ),
        )
    })?;
    let variant = args.variant.as_deref().or(variant).unwrap_or("standard");
    if !matches!(variant, "minbase" | "buildd" | "standard") {
        return Err(Failure::new(
            VzctlExit::Value,
            format!("'{variant}' is no variant: give --variant minbase, buildd or standard"),
        ));
    }
    Ok((suite, variant.to_owned()))
}

/// Takes away what each VE must have of its own, and downloaded packages.
fn clean(tree: &Path) -> Fallible<()> {
    for file in ["etc/hostname", "etc/resolv.conf", "etc/machine-id"] {
        let path = tree.join(file);
        if path.symlink_metadata().is_ok() {
            std::fs::remove_file(&path).map_err(crate::system)?;
        }
    }
    // systemd makes a new identity where it finds an empty one (machine-id(5)).
    std::fs::write(tree.join("etc/machine-id"), "").map_err(crate::system)?;
    let archives = tree.join("var/cache/apt/archives");
    let packages = std::fs::read_dir(archives).into_iter().flatten().flatten();
    for entry in packages.filter(|entry| entry.path().extension().is_some_and(|end| end == "deb")) {
        std::fs::remove_file(entry.path()).map_err(crate::system)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Form;

    #[test]
    fn names_say_release_and_variant() {
        let release = |name: &str, suite: Option<&str>| {
            release(&CacheArgs {
                name: name.into(),
                suite: suite.map(str::to_owned),
                variant: None,
                mirror: None,
                include: String::new(),
                form: Form::Tar,
            })
            .ok()
        };
        let both = |suite: &str, variant: &str| Some((suite.to_owned(), variant.to_owned()));
        assert_eq!(
            release("debian-12-minbase", None),
            both("bookworm", "minbase")
        );
        assert_eq!(release("debian-trixie", None), both("trixie", "standard"));
        assert_eq!(release("debian-12-huge", None), None);
        assert_eq!(release("fedora-40", None), None);
        assert_eq!(release("mine", Some("sid")), both("sid", "standard"));
    }
}

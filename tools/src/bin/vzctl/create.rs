//! `create`: a VE from a template.
//!
//! Order, so that a command which was killed can be repeated: the files are unpacked beside the private area's place,
//! counted once and checked against the limits; then the quota record and the configuration are written; last the
//! files get their name. A VE exists from that moment, and what an earlier attempt left is overwritten until then.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use quota::{Inodes, Resource, Usage};
use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::progress::Bar;
use simfs_tools::record;
use simfs_tools::recount::recount;
use simfs_tools::report::complain;
use simfs_tools::ve_config::{Changes, VeConfig};

use crate::args::CreateArgs;
use crate::former::Former;
use crate::template::{Template, find, remove_tree, unpack};
use crate::{Context, Fallible, Outcome, config_failure, disk, former, ids, set, system};

pub(crate) fn run(context: &Context, args: &CreateArgs) -> Outcome {
    let given = changes(args)?;
    let _lock = context.lock("creating")?;
    let config = base(context, args)?.with(&given);
    let template = template(context, args, &config)?;
    let private = match &args.private {
        Some(private) => PathBuf::from(simfs_tools::paths::substitute(private, context.ve)),
        None => context
            .paths
            .private(context.ve)
            .map_err(|error| config_failure(error.into()))?,
    };
    if private.symlink_metadata().is_ok() {
        return Err(Failure::new(
            VzctlExit::PrivateExists,
            format!("private area {} exists already", private.display()),
        ));
    }
    former::check_name(context, &given)?;
    let beside = Beside::new(&private)?;
    context.tell(&format!("Creating container private area ({})", template.0));
    unpack(&template.1, &beside.0)?;
    let making = Making {
        context,
        config: &config,
        given: &given,
        template: &template.0,
        private: &private,
        beside: &beside,
    };
    making.finish()?;
    ids::warn_of_shared(context, &config);
    context.tell("Container private area was created");
    Ok(VzctlExit::Ok)
}

/// What the command line asks for, by key.
fn changes(args: &CreateArgs) -> Fallible<Changes> {
    let mut changes = args.settings.changes()?;
    for (key, value) in [("VE_PRIVATE", &args.private), ("VE_ROOT", &args.root)] {
        let Some(value) = value else { continue };
        if !value.starts_with('/')
            || value
                .chars()
                .any(|letter| letter.is_control() || letter == '"')
        {
            return Err(Failure::new(
                VzctlExit::Value,
                format!("'{value}' is not a place for {key}: give an absolute path"),
            ));
        }
        changes.push((key, value.clone()));
    }
    Ok(changes)
}

/// What the given values stand above: the sample, else a file that the administrator has prepared.
fn base(context: &Context, args: &CreateArgs) -> Fallible<VeConfig> {
    let sample = args
        .config
        .as_deref()
        .or_else(|| context.paths.config().get("CONFIGFILE"));
    let Some(name) = sample else {
        return context.config();
    };
    set::sample(context, name)
}

fn template(
    context: &Context,
    args: &CreateArgs,
    config: &VeConfig,
) -> Fallible<(String, Template)> {
    let default = config.get("DEF_OSTEMPLATE");
    let name = args.ostemplate.clone().or(default).ok_or_else(|| {
        Failure::new(
            VzctlExit::NoTemplateNamed,
            "no template: name one with --ostemplate, or with DEF_OSTEMPLATE in vz.conf",
        )
    })?;
    let found = find(&context.paths, &name)?;
    Ok((name, found))
}

/// What is known when the files lie beside their place.
struct Making<'a> {
    context: &'a Context,
    config: &'a VeConfig,
    given: &'a Changes,
    template: &'a str,
    private: &'a Path,
    beside: &'a Beside,
}

impl Making<'_> {
    /// Counts, checks, and makes the VE.
    fn finish(&self) -> Fallible<()> {
        let context = self.context;
        let mut bar = Bar::new(format!("VE {}: counting", context.ve));
        let tally = recount(&self.beside.0, Inodes::ZERO, &mut bar)
            .map_err(|error| Failure::new(VzctlExit::Private, error.to_string()))?;
        drop(bar);
        let wanted = disk::Wanted::of(self.config);
        check_fits(&wanted, tally.ve)?;
        let setup = wanted.setup(context, self.private.to_owned(), tally);
        record::replace(&context.paths, setup)
            .map_err(|error| Failure::new(VzctlExit::QuotaInit, error.to_string()))?;
        let settled = self.settle();
        if settled.is_err()
            && let Err(error) = record::remove(&context.paths, context.ve)
        {
            context.warn(&error.to_string());
        }
        settled
    }

    /// Writes the configuration and the name, and gives the files theirs; all or nothing.
    fn settle(&self) -> Fallible<()> {
        let context = self.context;
        let former = Former::of(context)?;
        let mut values = self.config.assigned();
        let places = self.given.iter().filter(|(key, _)| key.starts_with("VE_"));
        values.extend(places.cloned());
        values.push(("OSTEMPLATE", self.template.to_owned()));
        VeConfig::save(&context.paths, context.ve, &values).map_err(config_failure)?;
        former::link_name(context, self.given)?;
        fs::rename(&self.beside.0, self.private).map_err(|error| {
            Failure::new(
                VzctlExit::Private,
                format!("{}: {error}", self.private.display()),
            )
        })?;
        former.replace();
        Ok(())
    }
}

fn check_fits(wanted: &disk::Wanted, usage: Usage) -> Fallible<()> {
    let limits = wanted.limits();
    for (resource, option, (unit, name)) in [
        (Resource::Space, "--diskspace", (1024, "KiB")),
        (Resource::Inodes, "--diskinodes", (1, "inodes")),
    ] {
        let used = usage.get(resource);
        if let Some(hard) = limits.get(resource).hard.filter(|hard| used > *hard) {
            return Err(Failure::new(
                VzctlExit::NoSpace,
                format!(
                    "the template needs {} {name} but the hard limit is {} {name}: give more with {option}",
                    used.div_ceil(unit),
                    hard.div_ceil(unit)
                ),
            ));
        }
    }
    Ok(())
}

/// Where files are until they are a VE's; removed unless renamed.
struct Beside(PathBuf);

impl Beside {
    fn new(private: &Path) -> Fallible<Self> {
        let parent = private.parent().unwrap_or(Path::new("/"));
        let mut name: OsString = private.file_name().unwrap_or_default().to_owned();
        name.push(".tmp");
        let path = parent.join(name);
        let not_made = |error: std::io::Error| {
            Failure::new(VzctlExit::Private, format!("{}: {error}", path.display()))
        };
        if let Some(above) = parent.parent() {
            fs::create_dir_all(above).map_err(not_made)?;
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(not_made)?;
        remove_tree(&path).map_err(not_made)?;
        fs::create_dir(&path).map_err(not_made)?;
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, open).map_err(system)?;
        Ok(Self(path))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.0) {
            complain(&format!("vzctl: {}: {error}", self.0.display()));
        }
    }
}

//! `set`: changes a VE's parameters: in force at once where possible, kept with `--save`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::setting::{Effect, of_key};
use simfs_tools::ve_config::{Changes, VeConfig};
use simfs_tools::ve_state::named;

use crate::args::SetArgs;
use crate::guest::{Tree, write_files};
use crate::{Context, Fallible, Outcome, config_failure, disk, ids, program, start, system};

pub(crate) fn run(context: &Context, args: &SetArgs) -> Outcome {
    let mut changes = args.settings.changes()?;
    let _lock = context.lock("setting")?;
    let config = context.config()?;
    changes.extend(applied(context, args, &config, &changes)?);
    if changes.is_empty() {
        return Err(Failure::new(
            VzctlExit::Usage,
            "nothing to set: see vzctl set --help",
        ));
    }
    let state = context.must_exist()?;
    check_name(context, &changes)?;
    if has(&changes, Effect::Disk) {
        disk::apply(context, &only(context, &changes)?)?;
    }
    if changes.iter().any(|(key, _)| ids::KEYS.contains(key)) {
        ids::warn_of_shared(context, &config.with(&changes));
    }
    let refused = if state.is_running() {
        apply_running(context, &config.with(&changes), &changes, state.pid)?
    } else {
        check_kept(args, &config, &changes)?;
        Vec::new()
    };
    if args.save {
        let kept: Changes = changes
            .iter()
            .filter(|(key, _)| of_key(key).is_some())
            .cloned()
            .collect();
        VeConfig::save(&context.paths, context.ve, &kept).map_err(config_failure)?;
        link_name(context, &changes)?;
        context.tell("CT configuration saved");
    }
    if refused.is_empty() {
        Ok(VzctlExit::Ok)
    } else {
        Err(Failure::new(VzctlExit::Limit, refused.join("; ")))
    }
}

/// The values of `--applyconfig` that are not given themselves.
fn applied(
    context: &Context,
    args: &SetArgs,
    own: &VeConfig,
    given: &Changes,
) -> Fallible<Changes> {
    let mut values = match &args.applyconfig {
        None => Vec::new(),
        Some(None) => own.assigned(),
        Some(Some(name)) => sample(context, name)?.assigned(),
    };
    values.retain(|(key, _)| !given.iter().any(|(known, _)| known == key));
    Ok(values)
}

/// A sample by name.
pub(crate) fn sample(context: &Context, name: &str) -> Fallible<VeConfig> {
    let path = context
        .paths
        .conf_dir()
        .join(format!("ve-{name}.conf-sample"));
    if name.contains('/') || !path.is_file() {
        return Err(Failure::new(
            VzctlExit::Config,
            format!("there is no sample '{name}' ({})", path.display()),
        ));
    }
    VeConfig::read(&context.paths, &path).map_err(config_failure)
}

/// A configuration that holds the changes and nothing else.
fn only(context: &Context, changes: &Changes) -> Fallible<VeConfig> {
    let nothing = context.paths.conf_dir().join(".none");
    let empty = VeConfig::read(&context.paths, &nothing).map_err(config_failure)?;
    Ok(empty.with(changes))
}

fn has(changes: &Changes, effect: Effect) -> bool {
    changes
        .iter()
        .any(|(key, _)| of_key(key).is_some_and(|setting| setting.effect == effect))
}

/// Brings a running VE to the changes; what this host cannot do is returned by name.
fn apply_running(
    context: &Context,
    config: &VeConfig,
    changes: &Changes,
    pid: Option<u32>,
) -> Fallible<Vec<String>> {
    let mut refused = Vec::new();
    if has(changes, Effect::Group) {
        let runtime = context.runtime(config)?;
        refused = runtime
            .groups()
            .apply(&only(context, changes)?, start::device(context));
    }
    if has(changes, Effect::Guest) {
        let root = context.paths.root(context.ve).map_err(system)?;
        let tree = Tree::open(&root).map_err(system)?;
        write_files(context, &only(context, changes)?, &tree);
        let name = changes.iter().find(|(key, _)| *key == "HOSTNAME");
        if let (Some((_, name)), Some(pid)) = (name, pid) {
            let pid = pid.to_string();
            program::host("nsenter", ["--target", &pid, "--uts", "hostname", name])
                .map_err(system)?;
        }
    }
    for (key, _) in changes {
        if of_key(key).is_some_and(|setting| setting.effect == Effect::Start) {
            context.warn(&format!("{key}: takes effect at the next start"));
        }
    }
    Ok(refused)
}

/// Refuses what would be lost: of a VE that does not run, only disk limits are changed without `--save`.
fn check_kept(args: &SetArgs, config: &VeConfig, changes: &Changes) -> Fallible<()> {
    let own = config.assigned();
    let lost = changes.iter().find(|change| {
        let is_disk = of_key(change.0).is_some_and(|setting| setting.effect == Effect::Disk);
        !is_disk && !own.contains(change)
    });
    match lost {
        Some((key, _)) if !args.save => Err(Failure::new(
            VzctlExit::NotRunning,
            format!("not running, so {key} would be lost: keep it with --save"),
        )),
        _ => Ok(()),
    }
}

/// Refuses the name of another VE.
pub(crate) fn check_name(context: &Context, changes: &Changes) -> Fallible<()> {
    let Some((_, name)) = changes.iter().find(|(key, _)| *key == "NAME") else {
        return Ok(());
    };
    match named(&context.paths, name) {
        Some(other) if other != context.ve => Err(Failure::new(
            VzctlExit::NameTaken,
            format!("the name '{name}' belongs to VE {other}"),
        )),
        _ => Ok(()),
    }
}

/// Makes a name lead to the VE, in place of those it had.
pub(crate) fn link_name(context: &Context, changes: &Changes) -> Fallible<()> {
    let Some((_, name)) = changes.iter().find(|(key, _)| *key == "NAME") else {
        return Ok(());
    };
    unlink_names(context);
    let dir = context.paths.names_dir();
    let target = context.paths.ve_config_file(context.ve);
    fs::create_dir_all(&dir)
        .and_then(|()| symlink(target, dir.join(name)))
        .map_err(system)
}

/// Takes the VE's names away.
pub(crate) fn unlink_names(context: &Context) {
    let entries = fs::read_dir(context.paths.names_dir());
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_own = name.to_str().and_then(|name| named(&context.paths, name)) == Some(context.ve);
        if is_own && let Err(error) = fs::remove_file(entry.path()) {
            let _gone_already = error.kind() == io::ErrorKind::NotFound;
            context.warn(&format!("{}: {error}", entry.path().display()));
        }
    }
}

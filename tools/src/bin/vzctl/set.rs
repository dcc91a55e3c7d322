//! `set`: changes a VE's parameters: in force at once where possible, kept with `--save`.

use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::setting::{Effect, of_key};
use simfs_tools::ve_config::{Changes, VeConfig};

use crate::args::SetArgs;
use crate::former::{Former, check_name, link_name};
use crate::guest::{Tree, write_files};
use crate::{
    Context, Fallible, Outcome, config_failure, devices, disk, ids, program, start, system,
};

pub(crate) fn run(context: &Context, args: &SetArgs) -> Outcome {
    let mut changes = args.settings.changes()?;
    let _lock = context.lock("setting")?;
    let config = context.config()?;
    merge(&config, &mut changes);
    changes.extend(applied(context, args, &config, &changes)?);
    if changes.is_empty() {
        return Err(Failure::new(
            VzctlExit::Usage,
            "nothing to set: see vzctl set --help",
        ));
    }
    let state = context.must_exist()?;
    check_name(context, &changes)?;
    if !args.save {
        check_kept(state.is_running(), &config, &changes)?;
    }
    if state.is_running() && is_changed(&changes, "DEVNODES") {
        devices::given(&config.with(&changes))?;
    }
    let former = Former::of(context)?;
    if args.save {
        keep(context, &changes)?;
    }
    if has(&changes, Effect::Disk) {
        disk::apply(context, &only(context, &changes)?)?;
    }
    former.replace();
    if args.save {
        context.tell("CT configuration saved");
    }
    if changes.iter().any(|(key, _)| ids::KEYS.contains(key)) {
        ids::warn_of_shared(context, &config.with(&changes));
    }
    let refused = if state.is_running() {
        apply_running(context, &config, &changes, state.pid)?
    } else {
        Vec::new()
    };
    if refused.is_empty() {
        Ok(VzctlExit::Ok)
    } else {
        Err(Failure::new(VzctlExit::Limit, refused.join("; ")))
    }
}

/// Lists of which a change names some: the others stay.
const LISTS: [&str; 2] = ["DEVNODES", "CAPABILITY"];

/// Completes what is given of lists by what is configured.
fn merge(config: &VeConfig, changes: &mut Changes) {
    for (key, value) in changes.iter_mut().filter(|(key, _)| LISTS.contains(key)) {
        let former = config.get(key).unwrap_or_default();
        *value = merged(&former, value);
    }
}

/// Words `NAME:VALUE`, of each name the last.
fn merged(former: &str, given: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in former.split_whitespace().chain(given.split_whitespace()) {
        let name = |word: &str| word.split(':').next().map(str::to_owned);
        words.retain(|known| name(known) != name(word));
        words.push(word);
    }
    words.join(" ")
}

/// Writes the changes into the VE's configuration file, and its name.
fn keep(context: &Context, changes: &Changes) -> Fallible<()> {
    let kept: Changes = changes
        .iter()
        .filter(|(key, _)| of_key(key).is_some())
        .cloned()
        .collect();
    VeConfig::save(&context.paths, context.ve, &kept).map_err(config_failure)?;
    link_name(context, changes)
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

fn is_changed(changes: &Changes, key: &str) -> bool {
    changes.iter().any(|(changed, _)| *changed == key)
}

/// Brings a running VE to the changes; what this host cannot do is returned by name.
fn apply_running(
    context: &Context,
    before: &VeConfig,
    changes: &Changes,
    pid: Option<u32>,
) -> Fallible<Vec<String>> {
    let config = &before.with(changes);
    let mut refused = Vec::new();
    if has(changes, Effect::Group) {
        let runtime = context.runtime(config)?;
        let device = start::device(context);
        refused = runtime.groups().apply_changes(config, changes, device);
    }
    if has(changes, Effect::Guest) {
        let root = context.paths.root(context.ve).map_err(system)?;
        let tree = Tree::open(&root).map_err(system)?;
        write_files(context, config, &tree, |key| is_changed(changes, key));
        if let Some(pid) = pid.filter(|_| is_changed(changes, "DEVNODES")) {
            let runtime = context.runtime(config)?;
            refused.extend(devices::apply(&runtime, before, config, pid)?);
        }
        let name = changes.iter().find(|(key, _)| *key == "HOSTNAME");
        if let (Some((_, name)), Some(pid)) = (name, pid) {
            let pid = pid.to_string();
            program::host("nsenter", ["--target", &pid, "--uts", "hostname", name])
                .map_err(system)?;
        }
    }
    for (key, value) in changes {
        let is_late = of_key(key).is_some_and(|setting| setting.effect == Effect::Start);
        if is_late && before.get(key).as_ref() != Some(value) {
            refused.push(format!(
                "{key}: processes that run keep what they have: takes effect at the next start"
            ));
        }
    }
    Ok(refused)
}

/// Refuses what would be lost without `--save`: of a VE that does not run all but disk limits, of one that runs what
/// only its configuration holds.
fn check_kept(is_running: bool, config: &VeConfig, changes: &Changes) -> Fallible<()> {
    let own = config.assigned();
    let is_lost = |key: &str| {
        of_key(key).is_none_or(|setting| match setting.effect {
            Effect::Disk => false,
            Effect::Group | Effect::Guest => !is_running,
            Effect::Start | Effect::Host => true,
        })
    };
    let lost = changes
        .iter()
        .find(|change| is_lost(change.0) && !own.contains(change));
    let Some((key, _)) = lost else {
        return Ok(());
    };
    let why = if is_running {
        "only the configuration holds it"
    } else {
        "not running"
    };
    Err(Failure::new(
        VzctlExit::NotRunning,
        format!("{key} would be lost ({why}): keep it with --save"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_a_list_names_some_of_it() {
        let rows = [
            ("", "fuse:rw", "fuse:rw"),
            ("fuse:rw", "net/tun:rw", "fuse:rw net/tun:rw"),
            ("fuse:rw net/tun:rw", "fuse:none", "net/tun:rw fuse:none"),
            ("sys_time:on", "sys_time:off", "sys_time:off"),
        ];
        for (former, given, expected) in rows {
            assert_eq!(merged(former, given), expected, "{former} + {given}");
        }
    }
}

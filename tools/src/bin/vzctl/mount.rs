//! `mount`, `umount`: the VE's root, with its action scripts.

use simfs::control::{Client, ClientError};
use simfs_tools::cgroup::ResourceGroups;
use simfs_tools::ending::is_ending;
use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::ve_config::VeConfig;
use simfs_tools::ve_state::is_foreign_mount;

use crate::scripts::{self, Phase};
use crate::{Context, Fallible, Outcome, disk, program, system};

pub(crate) fn mount_command(context: &Context) -> Outcome {
    let _lock = context.lock("mounting")?;
    let config = context.config()?;
    refuse_foreign(context)?;
    if context.must_be_made()?.is_mounted {
        return Err(Failure::new(VzctlExit::Mounted, "mounted already"));
    }
    mount(context, &config)?;
    context.tell("Container is mounted");
    Ok(VzctlExit::Ok)
}

pub(crate) fn umount_command(context: &Context) -> Outcome {
    let _lock = context.lock("unmounting")?;
    let state = context.must_exist()?;
    if state.is_running() {
        return Err(Failure::new(
            VzctlExit::Running,
            format!("running: stop it first with 'vzctl stop {}'", context.ve),
        ));
    }
    if !state.is_mounted {
        return Err(Failure::new(VzctlExit::NotMounted, "not mounted"));
    }
    umount(context)?;
    context.tell("Container is unmounted");
    Ok(VzctlExit::Ok)
}

/// Refuses a root where something else is mounted.
pub(crate) fn refuse_foreign(context: &Context) -> Fallible<()> {
    let root = context.paths.root(context.ve).map_err(system)?;
    if !is_foreign_mount(&root) {
        return Ok(());
    }
    let message = format!(
        "{} is a mount point of something else: unmount that, or move the VE with VE_ROOT",
        root.display()
    );
    Err(Failure::new(VzctlExit::Mount, message))
}

/// Mounts; a script that fails afterwards unmounts again.
pub(crate) fn mount(context: &Context, config: &VeConfig) -> Fallible<()> {
    scripts::run(context, Phase::Premount)?;
    let has_quota = config.get("DISK_QUOTA").as_deref() != Some("no");
    let mut command = program::own(context, "simfs");
    command.args(["mount", &context.ve.to_string()]);
    if has_quota {
        disk::ensure_record(context, config)?;
        disk::report_difference(context, config);
        disk::follow_ugid_limit(context, config)?;
    } else {
        command.arg("--no-quota");
    }
    if config.id_range().is_some() {
        command.args(["-o", "idmap"]);
    }
    program::run_own(context, &mut command).map_err(|why| Failure::new(VzctlExit::Mount, why))?;
    scripts::run(context, Phase::Mount).inspect_err(|_| {
        if let Err(failure) = unmount(context) {
            context.warn(&failure.message);
        }
    })
}

fn is_served(context: &Context) -> Fallible<bool> {
    if context.state()?.is_mounted {
        return Ok(true);
    }
    Ok(match Client::connect(&context.paths.run_dir(context.ve)) {
        Ok(client) => !is_ending(client),
        Err(ClientError::NotRunning) => false,
        Err(_) => true,
    })
}

/// Unmounts; a script that fails before leaves it mounted.
pub(crate) fn umount(context: &Context) -> Fallible<()> {
    scripts::run(context, Phase::Umount)?;
    unmount(context)?;
    scripts::run(context, Phase::Postumount)
}

/// What counts is that nobody serves the root afterwards: it may have been taken away from a VE that ran, and then ends
/// with it.
fn unmount(context: &Context) -> Fallible<()> {
    let mut command = program::own(context, "simfs");
    command.args(["umount", &context.ve.to_string()]);
    if let Err(why) = program::run_own(context, &mut command)
        && is_served(context)?
    {
        return Err(Failure::new(VzctlExit::Unmount, why));
    }
    // The daemon was the last process in them.
    ResourceGroups::of(&context.paths, context.ve).remove();
    Ok(())
}

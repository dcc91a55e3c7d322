//! `destroy`: nothing of the VE is left.
//!
//! The private area loses its name first: from then on the VE does not exist, and a command that was killed is
//! finished by repeating it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use simfs_tools::cgroup::ResourceGroups;
use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::record;
use simfs_tools::ve_handle::VeError;

use crate::template::remove_tree;
use crate::{Context, Fallible, Outcome, config_failure, former, start};

pub(crate) fn run(context: &Context) -> Outcome {
    let _lock = context.lock("destroying")?;
    let private = context
        .paths
        .private(context.ve)
        .map_err(|error| config_failure(error.into()))?;
    let doomed = doomed(&private);
    let state = context.state()?;
    let is_known = state.exists
        || doomed.exists()
        || record::exists(&context.paths, context.ve)
        || context.paths.ve_config_file(context.ve).exists();
    if !is_known {
        context.must_exist()?;
    }
    if state.is_running() {
        return Err(Failure::new(
            VzctlExit::Running,
            format!("running: stop it first with 'vzctl stop {}'", context.ve),
        ));
    }
    if state.is_mounted {
        return Err(Failure::new(
            VzctlExit::Mounted,
            format!(
                "mounted: unmount it first with 'vzctl umount {}'",
                context.ve
            ),
        ));
    }
    context.tell(&format!(
        "Destroying container private area: {}",
        private.display()
    ));
    if state.exists {
        remove_tree(&doomed).map_err(|error| failed(&doomed, &error))?;
        fs::rename(&private, &doomed).map_err(|error| failed(&private, &error))?;
    }
    remove_traces(context)?;
    remove_tree(&doomed).map_err(|error| failed(&doomed, &error))?;
    context.tell("Container private area was destroyed");
    Ok(VzctlExit::Ok)
}

/// Where the files are while they are removed.
fn doomed(private: &Path) -> PathBuf {
    let mut name: OsString = private.file_name().unwrap_or_default().to_owned();
    name.push(".destroyed");
    private.with_file_name(name)
}

/// Removes what lies elsewhere. The configuration goes last: it says where the private area was.
fn remove_traces(context: &Context) -> Fallible<()> {
    start::clear(context)?;
    match record::remove(&context.paths, context.ve) {
        Ok(()) | Err(VeError::NoRecord { .. }) => {}
        Err(error) => return Err(Failure::new(VzctlExit::Destroy, error.to_string())),
    }
    let run_dir = context.paths.run_dir(context.ve);
    remove_tree(&run_dir).map_err(|error| failed(&run_dir, &error))?;
    // They go with the mount; one that was taken away by other means leaves them.
    ResourceGroups::of(&context.paths, context.ve).remove();
    former::unlink_names(context, &[]);
    if let Ok(root) = context.paths.root(context.ve) {
        let _may_hold_something = fs::remove_dir(root);
    }
    let dir = context.paths.conf_dir();
    let phases = ["premount", "mount", "start", "stop", "umount", "postumount"];
    let scripts = phases.map(|phase| dir.join(format!("{}.{phase}", context.ve)));
    for path in scripts {
        remove_file(&path)?;
    }
    remove_file(&context.paths.ve_config_file(context.ve))
}

fn remove_file(path: &Path) -> Fallible<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure<VzctlExit> {
    Failure::new(VzctlExit::Destroy, format!("{}: {error}", path.display()))
}

//! `start`: mount, groups, bundle, first program; undone from the end when a step fails.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use simfs_tools::ending;
use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::runtime::{ContainerState, Runtime};
use simfs_tools::ve_config::VeConfig;

use crate::args::StartArgs;
use crate::bundle::Parts;
use crate::guest::{Halt, Tree, write_files};
use crate::view::View;
use crate::{
    Context, Fallible, Outcome, bundle, exec, ids, mount, runtime_failure, scripts, system, ubc,
    view,
};

/// A first program that has not ended after this time runs.
const SETTLE: Duration = Duration::from_millis(150);

pub(crate) fn run(context: &Context, args: &StartArgs) -> Outcome {
    let _lock = context.lock("starting")?;
    let config = context.config()?;
    let state = context.must_be_made()?;
    if state.is_running() {
        return Err(Failure::new(VzctlExit::Running, "running already"));
    }
    if config.is_on("DISABLED") && !args.force {
        return Err(Failure::new(
            VzctlExit::Denied,
            "disabled: start it with --force, or enable it with --disabled no",
        ));
    }
    mount::refuse_foreign(context)?;
    clear(context)?;
    let runtime = context.runtime(&config)?;
    ids::warn_of_shared(context, &config);
    context.tell("Starting container...");
    if state.is_mounted {
        // What an ended container or an earlier command left; it may be a mount whose server is dead.
        mount::umount(context)?;
    }
    mount::mount(context, &config)?;
    let started = launch(context, &config, &runtime, &args.command);
    if let Err(failure) = started {
        undo(context, &runtime);
        return Err(failure);
    }
    context.tell("Container is running");
    Ok(VzctlExit::Ok)
}

/// Removes what a container that has ended by itself has left.
pub(crate) fn clear(context: &Context) -> Fallible<()> {
    let dir = context.paths.instance_dir(context.ve);
    if !dir.exists() {
        return Ok(());
    }
    if let Ok(runtime) = Runtime::choose(&context.paths, context.ve, None) {
        runtime.delete().map_err(runtime_failure)?;
    }
    ubc::clear(&dir);
    view::clear(&dir)?;
    fs::remove_dir_all(&dir).map_err(system)
}

fn undo(context: &Context, runtime: &Runtime) {
    let undone = runtime
        .delete()
        .map_err(runtime_failure)
        .and_then(|()| clear(context))
        .and_then(|()| mount::umount(context));
    if let Err(failure) = undone {
        context.warn(&failure.message);
    }
}

/// From a mounted root to a running VE.
fn launch(
    context: &Context,
    config: &VeConfig,
    runtime: &Runtime,
    command: &[String],
) -> Fallible<()> {
    let root = context.paths.root(context.ve).map_err(system)?;
    let tree = Tree::open(&root).map_err(system)?;
    let (program, halt) = if command.is_empty() {
        tree.first_program()?
    } else {
        (command.to_vec(), Halt::Signal("TERM"))
    };
    write_files(context, config, &tree, |_| true);
    let dir = context.paths.instance_dir(context.ve);
    fs::create_dir_all(&dir).map_err(system)?;
    fs::write(dir.join("runtime"), runtime.kind().name()).map_err(system)?;
    fs::write(dir.join("halt"), halt.word()).map_err(system)?;
    let groups = runtime.groups();
    groups.prepare().map_err(system)?;
    for refused in groups.apply(config, device(context)) {
        context.warn(&refused);
    }
    let counters = ubc::Server::start(context, config)?;
    groups.adopt_daemon(&[&daemon(context)[..], &[counters.pid()]].concat());
    let view = View::of(context, config)?;
    let bundle = dir.join("bundle");
    let parts = Parts {
        command: &program,
        root: view.path(),
        counters: counters.file(),
    };
    bundle::write(context, config, runtime, &parts, &bundle)?;
    let console = dir.join("console");
    runtime
        .run(&bundle, view.path(), &console)
        .map_err(runtime_failure)?;
    counters.hand_over()?;
    view.hand_over()?;
    must_stay(runtime, &console)?;
    if let Some(script) = scripts::inside(context, "start") {
        exec::action_script(context, runtime, &script)?;
    }
    Ok(())
}

/// Fails if the first program ends at once.
fn must_stay(runtime: &Runtime, console: &Path) -> Fallible<()> {
    std::thread::sleep(SETTLE);
    if runtime.state().0 == ContainerState::Running {
        return Ok(());
    }
    let text = fs::read_to_string(console).unwrap_or_default();
    let last = text
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing");
    Err(Failure::new(
        VzctlExit::System,
        format!("the VE's first program ended at once: {last}"),
    ))
}

/// The processes that serve the VE's files. Daemons that follow this one are children of the keeper, and so in its groups.
fn daemon(context: &Context) -> Vec<u32> {
    match ending::status(&context.paths.run_dir(context.ve)) {
        Ok(status) => [Some(status.pid), status.keeper_pid]
            .into_iter()
            .flatten()
            .collect(),
        Err(_) => Vec::new(),
    }
}

/// The disk below the private area: the whole of it, since parts of disks cannot be limited.
pub(crate) fn device(context: &Context) -> Option<(u32, u32)> {
    let private = context.paths.private(context.ve).ok()?;
    let number = private.metadata().ok()?.dev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let entry = format!("/sys/dev/block/{major}:{minor}");
    let entry = Path::new(&entry);
    if !entry.exists() {
        return None;
    }
    if !entry.join("partition").exists() {
        return Some((major, minor));
    }
    let disk = fs::read_to_string(entry.join("../dev")).ok()?;
    let (major, minor) = disk.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

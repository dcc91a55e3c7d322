//! `stop`: asks the VE to end, then ends it, then unmounts.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::runtime::{ContainerState, Runtime};
use simfs_tools::ve_config::VeConfig;

use crate::args::StopArgs;
use crate::guest::Halt;
use crate::{Context, Fallible, Outcome, exec, mount, runtime_failure, scripts, start};

/// How long a VE may take to end when asked to; STOP_TIMEOUT of the configuration changes it.
const PATIENCE_SECONDS: u64 = 120;
/// How long it may take when it is ended by force.
const FORCED: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

pub(crate) fn run(context: &Context, args: &StopArgs) -> Outcome {
    let _lock = context.lock("stopping")?;
    let config = context.config()?;
    context.must_run("")?;
    stop(context, &config, args)?;
    Ok(VzctlExit::Ok)
}

/// The first half of `restart`.
pub(crate) fn stop_if_running(context: &Context, args: &StopArgs) -> Fallible<()> {
    let _lock = context.lock("stopping")?;
    let config = context.config()?;
    if context.must_be_made()?.is_running() {
        stop(context, &config, args)?;
    }
    Ok(())
}

fn stop(context: &Context, config: &VeConfig, args: &StopArgs) -> Fallible<()> {
    let runtime = context.runtime(config)?;
    context.tell("Stopping container...");
    if let Some(script) = scripts::inside(context, "stop").filter(|_| !args.fast) {
        exec::action_script(context, &runtime, &script)?;
    }
    let seconds = config.number("STOP_TIMEOUT").unwrap_or(PATIENCE_SECONDS);
    let has_ended = !args.fast && {
        ask(context, &runtime);
        wait(&runtime, Duration::from_secs(seconds))
    };
    if !has_ended {
        // It may end by itself in the meantime; what counts is whether it is there afterwards.
        let _may_be_gone = runtime.kill("KILL");
        if !wait(&runtime, FORCED) {
            return Err(Failure::new(
                VzctlExit::Stop,
                "its processes do not end: they may wait for a device",
            ));
        }
    }
    start::clear(context)?;
    context.tell("Container was stopped");
    if !args.skip_umount {
        mount::umount(context)?;
        context.tell("Container is unmounted");
    }
    Ok(())
}

/// Asks the VE to end, in the way its first program understands.
fn ask(context: &Context, runtime: &Runtime) {
    let word = fs::read_to_string(context.paths.instance_dir(context.ve).join("halt"));
    let asked = match Halt::of(word.unwrap_or_default().trim()) {
        Halt::Signal(signal) => runtime.kill(signal).map_err(runtime_failure),
        Halt::Command => {
            let mut command = runtime.exec(&[], false);
            command
                .args(["/bin/sh", "-c", "halt"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.status().map(|_| ()).map_err(crate::system)
        }
    };
    if let Err(failure) = asked {
        context.warn(&failure.message);
    }
}

/// Waits until the VE has ended; false when it has not in time.
fn wait(runtime: &Runtime, limit: Duration) -> bool {
    let begin = Instant::now();
    while runtime.state().0 == ContainerState::Running {
        if begin.elapsed() > limit {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

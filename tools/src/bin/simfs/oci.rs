//! `simfs oci`: what a container runtime needs to know, so that quota tools work inside.

use quota::VeId;
use simfs::control::{ClientError, VeStatus};
use simfs::oci::{DeviceNode, OciInput, fragments, make_host_node};
use simfs::{decoy, quotactl};
use simfs_tools::ending;
use simfs_tools::exit::{Failure, SimfsExit};
use simfs_tools::paths::Paths;
use simfs_tools::report::print;

use crate::args::OciArgs;
use crate::{Outcome, failed, must_be_known};

/// Prints the fragments of config.json for the mounted VE; makes what they refer to.
pub(crate) fn run(paths: &Paths, ve: VeId, args: &OciArgs) -> Outcome {
    let status = status(paths, ve)?;
    if !status.quota {
        return Err(failed(
            "mounted without quota, so there is nothing for quota tools: mount it without --no-quota",
        ));
    }
    let run_dir = std::fs::canonicalize(paths.run_dir(ve)).map_err(failed)?;
    let runs = run_dir.parent().unwrap_or(&run_dir);
    let node = if args.userns {
        DeviceNode::Bind(make_host_node(&run_dir, status.device).map_err(failed)?)
    } else {
        DeviceNode::Make
    };
    let input = OciInput {
        ve,
        decoy: decoy::ensure(runs, ve).map_err(failed)?,
        socket: run_dir.join(quotactl::SOCKET_NAME),
        device: status.device,
        node,
        seccomp_flags: !args.no_flags,
    };
    let made = fragments(&input);
    let text = if args.json {
        made.to_string()
    } else {
        format!("{made:#}")
    };
    print(&format!("{text}\n")).map_err(failed)?;
    Ok(SimfsExit::Ok)
}

fn status(paths: &Paths, ve: VeId) -> Result<VeStatus, Failure<SimfsExit>> {
    match ending::status(&paths.run_dir(ve)) {
        Ok(status) => Ok(status),
        Err(ClientError::NotRunning) => {
            must_be_known(paths, ve)?;
            Err(failed(format!(
                "not mounted, and the device number is known only then: 'simfs mount {ve}' first"
            )))
        }
        Err(error) => Err(failed(error)),
    }
}

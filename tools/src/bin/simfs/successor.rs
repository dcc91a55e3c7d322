//! The hidden command with which a keeper starts a daemon that takes a mount over: `simfs successor LINK DEVICE MEMORY
//! CONFIG`, numbers of descriptors. Not for people: without a keeper it ends with an error.

use std::ffi::OsString;
use std::process::ExitCode;

use simfs::keeper::SuccessorArguments;
use simfs::ve;
use simfs_tools::logging;
use simfs_tools::report::complain;

pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let Some(arguments) = parse(arguments) else {
        complain("simfs: successor: only a keeper starts this; to mount a VE, use 'simfs mount'");
        return ExitCode::from(2);
    };
    logging::to_stderr("info");
    let code = ve::succeed(arguments);
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn parse(arguments: &[OsString]) -> Option<SuccessorArguments> {
    let [link, device, memory, config] = arguments else {
        return None;
    };
    let number = |argument: &OsString| argument.to_str()?.parse().ok();
    Some(SuccessorArguments {
        link: number(link)?,
        device: number(device)?,
        memory: number(memory)?,
        config: number(config)?,
    })
}

//! User beancounters: shown on the host, and as a file in each VE.
//!
//! An ordinary kernel's /proc takes no new file, so the VE finds it at [`INSIDE`]. A process of the host serves it
//! through a mount of its own, made anew for each reading; the VE can read it and nothing else. The mount is taken
//! from the host's tree once the VE has it, so it and its process end with the VE, however the VE ends.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use quota::{Account, Subject, VeId};
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::CapabilitySets;
use simfs::control::{Client, Reply, Request};
use simfs::fuse::text::{Look, TextFile};
use simfs::sys::fork;
use simfs_tools::cgroup::ResourceGroups;
use simfs_tools::exit::{Failure, VzctlExit};
use simfs_tools::paths::Paths;
use simfs_tools::report::print;
use simfs_tools::ubc::{Beancounters, listing};
use simfs_tools::ve_config::VeConfig;
use simfs_tools::ve_handle::VeHandle;
use simfs_tools::ve_state::{VeState, known};

use crate::args::ServeUbcArgs;
use crate::{Context, Fallible, Outcome, system};

/// Where a VE finds its file.
pub(crate) const INSIDE: &str = "/run/user_beancounters";
/// Its name on the host, beside the bundle.
const FILE: &str = "user_beancounters";

/// `ubc VEID`.
pub(crate) fn one(context: &Context) -> Outcome {
    context.must_exist()?;
    let account = stored_account(&context.paths, context.ve);
    let groups = ResourceGroups::of(&context.paths, context.ve);
    let counters = Beancounters::read(context.ve, &groups, account.as_ref());
    print(&listing(&[counters])).map_err(system)?;
    Ok(VzctlExit::Ok)
}

/// `ubc`: all VEs that run.
pub(crate) fn all(paths: &Paths) -> Outcome {
    let is_running = |ve: &VeId| VeState::of(paths, *ve).is_ok_and(|state| state.is_running());
    let running = known(paths).into_iter().filter(is_running);
    let counters: Vec<Beancounters> = running
        .map(|ve| {
            let account = stored_account(paths, ve);
            Beancounters::read(ve, &ResourceGroups::of(paths, ve), account.as_ref())
        })
        .collect();
    print(&listing(&counters)).map_err(system)?;
    Ok(VzctlExit::Ok)
}

/// The VE's account, mounted or not; `None` without a quota record.
fn stored_account(paths: &Paths, ve: VeId) -> Option<Account> {
    VeHandle::open(paths, ve).ok()?.account(Subject::Ve).ok()
}

/// The process that serves a VE's file, until the file is handed to the VE.
pub(crate) struct Server {
    file: PathBuf,
    pid: u32,
}

impl Server {
    /// Starts it for a VE that is mounted.
    pub(crate) fn start(context: &Context, config: &VeConfig) -> Fallible<Self> {
        let dir = context.paths.instance_dir(context.ve);
        let file = dir.join(FILE);
        File::create(&file).map_err(system)?;
        let program = std::env::current_exe().map_err(system)?;
        let log = File::create(dir.join("ubc.log")).map_err(system)?;
        let mut child = Command::new(program)
            .arg("--prefix")
            .arg(context.paths.prefix())
            .args(["serve-ubc", &context.ve.to_string()])
            .args(owner(config).map(|id| id.to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(system)?;
        let pid = child.id();
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output)
                .read_line(&mut line)
                .map_err(system)?;
        }
        if line == READY {
            return Ok(Self { file, pid });
        }
        let _ended_already = child.wait();
        let said = fs::read_to_string(dir.join("ubc.log")).unwrap_or_default();
        let why = said.lines().next_back().unwrap_or("it said nothing");
        Err(Failure::new(
            VzctlExit::System,
            format!("no beancounters: {why}"),
        ))
    }

    /// The file on the host, to be bound into the VE.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// The VE has the file: from now on both end together.
    pub(crate) fn hand_over(&self) -> Fallible<()> {
        unmount(&self.file, UnmountFlags::DETACH).map_err(system)
    }
}

/// The VE's root, as the host numbers it.
fn owner(config: &VeConfig) -> [u32; 2] {
    config
        .id_range()
        .map_or([0, 0], |range| [range.uid, range.gid])
}

/// Takes away what a start that was cut off has left mounted.
pub(crate) fn clear(instance: &Path) {
    // Nothing mounted there is the usual case.
    while unmount(instance.join(FILE), UnmountFlags::DETACH).is_ok() {}
}

/// What the server says when the file can be read.
const READY: &str = "ready\n";

/// The server's life.
pub(crate) fn serve(context: &Context, args: &ServeUbcArgs) -> Outcome {
    let dir = context.paths.instance_dir(context.ve);
    let look = Look {
        name: "beancounters",
        owner: (args.uid, args.gid),
    };
    let text = source(context);
    let file = TextFile::mount(&dir.join(FILE), look, text).map_err(system)?;
    confine()?;
    let mut output = std::io::stdout();
    output
        .write_all(READY.as_bytes())
        .and_then(|()| output.flush())
        .map_err(system)?;
    fork::detach(&dir.join("ubc.log")).map_err(system)?;
    file.serve().map_err(system)?;
    Ok(VzctlExit::Ok)
}

/// What the file says. The daemon may be away for a moment: then its last answer stands.
fn source(context: &Context) -> impl Fn() -> String + use<> {
    let (paths, ve) = (context.paths.clone(), context.ve);
    let run_dir = paths.run_dir(ve);
    let last: Mutex<Option<Account>> = Mutex::default();
    move || {
        let groups = ResourceGroups::of(&paths, ve);
        let answer = Client::connect(&run_dir)
            .and_then(|mut client| client.request(&Request::Account(Subject::Ve)));
        let mut last = last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Ok(Reply::Account(account)) = answer {
            *last = Some(account);
        }
        listing(&[Beancounters::read(ve, &groups, last.as_ref())])
    }
}

/// Everything that is read is open to all, or asks for the user only: no capability is needed.
fn confine() -> Fallible<()> {
    rustix::thread::set_no_new_privs(true).map_err(system)?;
    let none = CapabilitySets {
        effective: rustix::thread::CapabilitySet::empty(),
        permitted: rustix::thread::CapabilitySet::empty(),
        inheritable: rustix::thread::CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).map_err(system)
}

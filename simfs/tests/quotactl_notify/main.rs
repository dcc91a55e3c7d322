//! The whole way of quotactl(2) without a container: a child under a filter of its own calls, the service answers.
//!
//! The child is this program again, told by the environment to play one part. It installs the filter, sends the
//! listener the way crun does, and prints what its calls returned; the parent holds the service.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests state what they expect"
)]

#[path = "../support/filtered.rs"]
mod filtered;

mod calls;
mod hostile;
mod socket;
mod succession;

use std::os::linux::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quota::store::memory::MemoryStore;
use quota::{
    Bytes, Engine, Environment, Inodes, Limit, Limits, LimitsChange, Owner, Setup, Subject, Uid,
    Usage, VeId,
};
use simfs::quotactl::{AdminPolicy, QuotactlConfig, QuotactlService};

use filtered::{Lines, PART, SOCKET};

const NODEV: i32 = libc::ENODEV;

/// Plays a part when told to; otherwise nothing.
#[test]
fn child() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    match part.as_str() {
        "serve" => serve(),
        part => filtered::play(part),
    }
}

/// Serves the callers of another process until it is killed.
fn serve() {
    let config = QuotactlConfig {
        socket_path: std::env::var_os(SOCKET).unwrap().into(),
        device: (0, 0),
        policy: AdminPolicy::RootOfVe,
        own_ids: false,
        kept: None,
    };
    let _service = QuotactlService::start(config, Arc::new(engine()), drop, || Ok(())).unwrap();
    loop {
        std::thread::park();
    }
}

/// Users 0 and 1000 and groups 0 and 50 with 5000 bytes in two files each; limits for 1000.
fn engine() -> Engine {
    let mut setup = Setup::new(VeId::new(101), "/vz/private/101");
    let usage = Usage::new(Bytes::new(5000), Inodes::new(2));
    setup.usage.add(Owner::new(0, 0), usage);
    setup.usage.add(Owner::new(1000, 50), usage);
    let engine =
        Engine::create(Arc::new(MemoryStore::new()), Environment::default(), setup).unwrap();
    let space = Limit::new(Some(Bytes::new(4096)), Some(Bytes::new(8192)));
    let change = LimitsChange::to(Limits {
        space,
        inodes: Limit::UNLIMITED,
    });
    engine
        .set_limits(Subject::User(Uid::new(1000)), &change)
        .map(drop)
        .unwrap();
    engine
}

/// A service whose "mount" is the filesystem of a temporary directory.
struct Bench {
    dir: tempfile::TempDir,
    engine: Engine,
    service: Option<QuotactlService>,
}

impl Bench {
    fn new(policy: AdminPolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let mut bench = Self {
            dir,
            engine,
            service: None,
        };
        bench.start(policy);
        bench
    }

    fn config(&self, policy: AdminPolicy) -> QuotactlConfig {
        let device = std::fs::metadata(self.dir.path()).unwrap().st_dev();
        let device = (rustix::fs::major(device), rustix::fs::minor(device));
        QuotactlConfig {
            socket_path: self.socket(),
            device,
            policy,
            own_ids: false,
            kept: None,
        }
    }

    fn start(&mut self, policy: AdminPolicy) {
        self.start_with(policy, || Ok(()));
    }

    fn start_with(
        &mut self,
        policy: AdminPolicy,
        sync: impl Fn() -> std::io::Result<()> + Send + Sync + 'static,
    ) {
        let config = self.config(policy);
        self.service = Some(
            QuotactlService::start(config, Arc::new(self.engine.clone()), drop, sync).unwrap(),
        );
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("run/quotactl.sock")
    }

    fn command(&self, part: &str, prefix: &[&str]) -> Command {
        let me = std::env::current_exe().unwrap();
        let mut words = prefix.iter().map(AsRef::as_ref).chain([me.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(["--exact", "child", "--nocapture", "--test-threads=1"]);
        command
            .env(PART, part)
            .env(SOCKET, self.socket())
            .current_dir(self.dir.path());
        command.stdout(Stdio::piped());
        command
    }

    /// Runs a part to its end and returns what it printed.
    fn run(&self, part: &str, prefix: &[&str]) -> Lines {
        let output = self.command(part, prefix).output().unwrap();
        assert!(output.status.success(), "{part}: {output:?}");
        Lines::parse(&String::from_utf8(output.stdout).unwrap())
    }

    fn wait_for_listeners(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let open = self.service.as_ref().unwrap().listener_count();
            if open == count {
                return;
            }
            assert!(Instant::now() < deadline, "{open} listeners, not {count}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Kills the child it holds, whatever happens.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

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

#[path = "support/filtered.rs"]
mod filtered;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quota::store::memory::MemoryStore;
use quota::{
    Bytes, Engine, Environment, Gid, GracePeriod, Inodes, Limit, Limits, LimitsChange, Owner,
    Scope, Setup, Subject, Uid, Usage, VeId,
};
use simfs::keeper::{DepositNumber, Depository};
use simfs::quotactl::{AdminPolicy, Kept, Left, QuotactlConfig, QuotactlService, notify};
use simfs::shared::{Shape, Shared};
use simfs::sys::seccomp::NotifyFd;

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
        let deadline = Instant::now() + Duration::from_secs(10);
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

#[test]
fn every_command_is_answered() {
    let bench = Bench::new(AdminPolicy::RootOfVe);
    let lines = bench.run("commands", &[]);
    // (call, errno); data is compared by the child's lines below.
    for call in [
        "sync-null",
        "sync",
        "getinfo",
        "getfmt",
        "getquota",
        "getquota-group",
        "getquota-fd",
        "next",
        "setquota",
        "setinfo",
        "quotaoff",
        "getinfo-off",
        "quotaon",
        "xgetquota",
        "xnext",
        "xsetqlim",
        "xgetqstat",
        "xgetqstatv",
        "xquotasync",
    ] {
        lines.expect(call, 0);
    }
    lines.expect("getfmt-off", libc::ESRCH);
    lines.expect("quotaon-again", libc::EEXIST);
    lines.expect("next-end", libc::ENOENT);
    lines.expect("project", libc::EINVAL);
    lines.expect("type-3", libc::EINVAL);
    lines.expect("unknown", libc::EINVAL);
    lines.expect("xquotarm", libc::ENOSYS);
    lines.expect("getinfo-null", NODEV);
    assert_eq!(lines.value("getinfo-flags"), 0x1_0000);
    assert_eq!(lines.value("getquota-space"), 5000);
    assert_eq!(lines.value("getquota-hard"), 8);
    assert_eq!(lines.value("next-id"), 1000);
    assert_eq!(lines.value("xgetquota-hard"), 16);
    let user = bench.engine.account(Subject::User(Uid::new(1000))).unwrap();
    // Q_SETQUOTA set 100 and 200 KiB, Q_XSETQLIM then 300 inodes hard.
    assert_eq!(user.limits.space.hard, Some(Bytes::new(200 << 10)));
    assert_eq!(user.limits.inodes.hard, Some(Inodes::new(300)));
    assert_eq!(user.usage.space, Bytes::new(5000));
    let group = bench.engine.account(Subject::Group(Gid::new(50))).unwrap();
    assert_eq!(group.limits, Limits::UNLIMITED);
    let info = bench.engine.info();
    assert_eq!(info.grace_periods(Scope::Users).space, GracePeriod::new(60));
    assert_eq!(info.grace_periods(Scope::Groups).space, GracePeriod::WEEK);
    assert!(info.is_enforced(Scope::Users));
    bench.wait_for_listeners(0);
}

#[test]
fn bad_arguments_are_refused_as_by_the_kernel() {
    let bench = Bench::new(AdminPolicy::RootOfVe);
    std::os::unix::fs::symlink("/dev/simfs", bench.dir.path().join("link")).unwrap();
    let lines = bench.run("arguments", &[]);
    let rows = [
        ("path-null-page", libc::EFAULT),
        ("path-high", libc::EFAULT),
        ("path-unended", libc::EFAULT),
        ("path-long", libc::ENAMETOOLONG),
        ("path-missing", libc::ENOENT),
        ("path-empty", libc::ENOENT),
        ("path-char", libc::ENOTBLK),
        ("path-dir", libc::ENOTBLK),
        ("path-other-device", NODEV),
        ("path-node", 0),
        ("path-relative-node", 0),
        ("data-null", libc::EFAULT),
        ("data-edge", libc::EFAULT),
        ("set-data-null", libc::EFAULT),
        ("fd-closed", libc::EBADF),
        ("fd-foreign", libc::ENOSYS),
        ("fd-path-only", 0),
        ("fd-type-3", libc::EINVAL),
        ("i386-getquota", 0),
    ];
    for (call, errno) in rows {
        lines.expect(call, errno);
    }
    assert_eq!(lines.value("i386-untouched"), 1, "68 bytes written, not 72");
}

#[test]
fn syncfs_waits_for_the_private_area_and_hears_of_its_errors() {
    let mut bench = Bench::new(AdminPolicy::RootOfVe);
    bench.service = None;
    let syncs = Arc::new(AtomicU32::new(0));
    let seen = syncs.clone();
    bench.start_with(AdminPolicy::RootOfVe, move || {
        seen.fetch_add(1, Ordering::Relaxed);
        Err(std::io::Error::from_raw_os_error(libc::EIO))
    });
    let lines = bench.run("syncfs", &[]);
    let rows = [
        ("syncfs", libc::EIO),
        // The kernel's own answers.
        ("syncfs-foreign", 0),
        ("syncfs-closed", libc::EBADF),
        ("syncfs-i386", libc::EBADF),
    ];
    for (call, errno) in rows {
        lines.expect(call, errno);
    }
    assert_eq!(syncs.load(Ordering::Relaxed), 1, "for this mount only");
}

#[test]
fn users_ask_for_their_own_only() {
    let bench = Bench::new(AdminPolicy::RootOfVe);
    let lines = bench.run("user", &[]);
    let rows = [
        ("own", 0),
        ("other", libc::EPERM),
        ("root", libc::EPERM),
        ("own-group", 0),
        ("supplementary-group", 0),
        ("other-group", libc::EPERM),
        ("next", libc::EPERM),
        ("set", libc::EPERM),
        ("unknown", libc::EPERM),
        ("info", 0),
        ("path-missing", NODEV),
        ("path-char", NODEV),
    ];
    for (call, errno) in rows {
        lines.expect(call, errno);
    }
}

#[test]
fn namespaces_decide_who_is_root() {
    let unshare = ["unshare", "--user", "--map-root-user"];
    for policy in [AdminPolicy::RootOfVe, AdminPolicy::SysAdmin] {
        let bench = Bench::new(policy);
        // The VE's namespace is the host's: root in a nested one is nobody.
        let nested = bench.run(&format!("namespace:{}", std::process::id()), &unshare);
        nested.expect("next", libc::EPERM);
        nested.expect("info", 0);
        // The VE's namespace is the new one.
        let own = bench.run("namespace:self", &unshare);
        own.expect("next", 0);
        // Only host root has a name there.
        assert_eq!(own.value("next-id"), 0);
        own.expect("next-after-root", libc::ENOENT);
        own.expect("get-unmapped", libc::EINVAL);
        // An `exec` by crun names no process: the namespace learnt last counts.
        bench
            .run("namespace:nobody", &unshare)
            .expect("next", libc::EPERM);
    }
}

#[test]
fn root_without_capabilities_needs_the_lenient_policy() {
    let drop = [
        "setpriv",
        "--bounding-set=-sys_admin",
        "--inh-caps=-sys_admin",
    ];
    for (policy, errno) in [
        (AdminPolicy::RootOfVe, 0),
        (AdminPolicy::SysAdmin, libc::EPERM),
    ] {
        let bench = Bench::new(policy);
        bench.run("unprivileged", &drop).expect("next", errno);
        bench.run("namespace:self", &[]).expect("next", 0);
    }
}

#[test]
fn dying_callers_and_a_flood_leave_the_service_whole() {
    let bench = Bench::new(AdminPolicy::RootOfVe);
    for _ in 0..5 {
        let mut victim = Held(bench.command("flood", &[]).spawn().unwrap());
        bench.wait_for_listeners(1);
        std::thread::sleep(Duration::from_millis(60));
        victim.0.kill().unwrap();
        victim.0.wait().unwrap();
        bench.wait_for_listeners(0);
    }
    let lines = bench.run("flood-to-end", &[]);
    assert_eq!(lines.value("failures"), 0);
    assert_eq!(lines.value("calls"), 4 * 500);
    bench.run("commands", &[]).expect("getquota", 0);
}

/// A caller whose path waits for a file system that does not answer, until its input ends.
struct Stuck {
    caller: Held,
    output: BufReader<ChildStdout>,
    read: String,
}

impl Stuck {
    /// The service looks the path up by now.
    fn new(bench: &Bench) -> Self {
        let mut command = bench.command("stuck", &[]);
        let mut caller = Held(command.stdin(Stdio::piped()).spawn().unwrap());
        let mut output = BufReader::new(caller.0.stdout.take().unwrap());
        let mut read = String::new();
        while !read.contains("@caught") {
            assert_ne!(output.read_line(&mut read).unwrap(), 0, "{read}");
        }
        Self {
            caller,
            output,
            read,
        }
    }

    /// Lets the caller go; what it was answered.
    fn end(mut self) -> Lines {
        drop(self.caller.0.stdin.take());
        self.output.read_to_string(&mut self.read).unwrap();
        Lines::parse(&self.read)
    }
}

// S80
#[test]
fn callers_that_hang_hold_up_nobody_else() {
    let bench = Bench::new(AdminPolicy::RootOfVe);
    // As many as there are threads.
    let stuck = [(); 3].map(|()| Stuck::new(&bench));
    bench.run("commands", &[]).expect("getquota", 0);
    bench.run("syncfs", &[]).expect("syncfs", 0);
    for stuck in stuck {
        stuck.end().expect("stuck", libc::EAGAIN);
    }
    bench.run("commands", &[]).expect("getquota", 0);
}

// S80
#[test]
fn a_service_that_is_killed_ends_though_a_caller_hangs() {
    let mut bench = Bench::new(AdminPolicy::RootOfVe);
    drop(bench.service.take());
    let mut service = Held(bench.command("serve", &[]).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !bench.socket().exists() {
        assert!(Instant::now() < deadline, "no service");
        std::thread::sleep(Duration::from_millis(5));
    }
    let stuck = Stuck::new(&bench);
    service.0.kill().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while service.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "a thread waits for the caller");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(stuck);
}

/// In the keeper's place.
#[derive(Debug, Default)]
struct Holder(Mutex<Vec<OwnedFd>>);

impl Depository for Holder {
    fn deposit(&self, fd: BorrowedFd<'_>) -> std::io::Result<DepositNumber> {
        let kept = fd.try_clone_to_owned()?;
        let number = kept.as_raw_fd().try_into().unwrap();
        self.0.lock().unwrap().push(kept);
        Ok(DepositNumber::new(number))
    }

    fn withdraw(&self, number: DepositNumber) {
        let is_other = |fd: &OwnedFd| fd.as_raw_fd() != i32::try_from(number.get()).unwrap();
        self.0.lock().unwrap().retain(is_other);
    }
}

/// A service whose listeners and calls outlive it, and a child that calls `next` once its input ends.
struct Relay {
    bench: Bench,
    config: QuotactlConfig,
    shared: Arc<Shared>,
    holder: Arc<Holder>,
    child: Held,
}

impl Relay {
    /// The first service has taken the child's listener, and has stopped.
    fn stopped() -> Self {
        let mut bench = Bench::new(AdminPolicy::RootOfVe);
        drop(bench.service.take());
        let ve = VeId::new(101);
        let handle_bytes = 32;
        let shared = Arc::new(Shared::create(Shape { ve, handle_bytes }).unwrap());
        let holder = Arc::new(Holder::default());
        let config = QuotactlConfig {
            kept: Some(Kept::new(shared.clone(), holder.clone())),
            ..bench.config(AdminPolicy::RootOfVe)
        };
        let level = Arc::new(bench.engine.clone());
        let service = QuotactlService::start(config.clone(), level, drop, || Ok(()));
        bench.service = Some(service.unwrap());
        let mut command = bench.command("patient", &[]);
        let child = Held(command.stdin(Stdio::piped()).spawn().unwrap());
        bench.wait_for_listeners(1);
        bench.service.take().unwrap().stop();
        assert!(!bench.socket().exists());
        Self {
            bench,
            config,
            shared,
            holder,
            child,
        }
    }

    /// The child calls; nobody serves.
    fn call(&mut self) {
        drop(self.child.0.stdin.take());
        std::thread::sleep(Duration::from_millis(50));
        assert!(self.child.0.try_wait().unwrap().is_none());
    }

    /// A successor serves; what the child was answered.
    fn succeed(mut self) -> Lines {
        let memory = self.shared.fd().try_clone_to_owned().unwrap();
        let (again, inheritance) = Shared::adopt(memory).unwrap();
        assert_eq!(inheritance.listeners.len(), 1);
        let again = Arc::new(again);
        let config = QuotactlConfig {
            kept: Some(Kept::new(again.clone(), self.holder.clone())),
            ..self.config
        };
        let mut descriptors = std::mem::take(&mut *self.holder.0.lock().unwrap())
            .into_iter()
            .collect();
        let mut left = Left {
            listeners: &inheritance.listeners,
            calls: &inheritance.notifications,
            descriptors: &mut descriptors,
        };
        let socket = notify::bind(&self.bench.socket()).unwrap();
        let level = Arc::new(self.bench.engine.clone());
        let service =
            QuotactlService::serve(config, socket, Some(&mut left), level, drop, || Ok(()));
        self.bench.service = Some(service.unwrap());
        let output = std::io::read_to_string(self.child.0.stdout.take().unwrap()).unwrap();
        assert_eq!(descriptors.numbers().count(), 0, "all were taken over");
        self.bench.service.take().unwrap().stop();
        assert!(again.inbox().left().is_none());
        let memory = again.fd().try_clone_to_owned().unwrap();
        let (_, left) = Shared::adopt(memory).unwrap();
        assert!(left.notifications.is_empty(), "{left:?}");
        Lines::parse(&output)
    }
}

#[test]
fn a_successor_serves_the_listeners_of_the_one_before() {
    let mut relay = Relay::stopped();
    relay.call();
    relay.succeed().expect("next", 0);
}

#[test]
fn a_call_that_was_received_and_not_noted_is_answered() {
    let mut relay = Relay::stopped();
    relay.call();
    let listener = {
        let held = relay.holder.0.lock().unwrap();
        NotifyFd::new(held[0].try_clone().unwrap()).unwrap()
    };
    let number = relay.holder.0.lock().unwrap()[0].as_raw_fd();
    let inbox = relay.shared.inbox();
    // What the receiving thread of a daemon does before it dies.
    let call = listener
        .receive_into(inbox.open(number.try_into().unwrap()))
        .unwrap();
    assert!(listener.id_valid(call.cookie).is_ok());
    relay.succeed().expect("next", 0);
}

#[test]
fn an_inbox_that_names_no_waiting_call_is_emptied() {
    let mut relay = Relay::stopped();
    let number = relay.holder.0.lock().unwrap()[0].as_raw_fd();
    let inbox = relay.shared.inbox();
    for word in inbox.open(number.try_into().unwrap()) {
        word.store(0x1234_5678, Ordering::Relaxed);
    }
    relay.call();
    relay.succeed().expect("next", 0);
}

#[test]
fn the_socket_is_for_root_and_replaces_a_stale_one() {
    use std::os::unix::fs::PermissionsExt;
    let mut bench = Bench::new(AdminPolicy::RootOfVe);
    let mode = std::fs::metadata(bench.dir.path().join("run"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(bench.service.take());
    drop(std::os::unix::net::UnixListener::bind(bench.socket()).unwrap());
    bench.start(AdminPolicy::RootOfVe);
    bench.run("namespace:self", &[]).expect("next", 0);
    // A file that is no socket is not ours to remove.
    drop(bench.service.take());
    std::fs::write(bench.socket(), "precious").unwrap();
    let config = QuotactlConfig {
        socket_path: bench.socket(),
        device: (0, 0),
        policy: AdminPolicy::RootOfVe,
        own_ids: false,
        kept: None,
    };
    assert!(
        QuotactlService::start(config, Arc::new(bench.engine.clone()), drop, || Ok(())).is_err()
    );
    assert!(Path::new(&bench.socket()).exists());
}

#[test]
fn nonsense_at_the_socket_does_no_harm() {
    use std::io::Write;
    let bench = Bench::new(AdminPolicy::RootOfVe);
    for bytes in [
        &b""[..],
        b"{",
        b"null",
        b"[1,2]",
        &[0xff; 4096],
        b"{\"fds\":[\"seccompFd\"]}",
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(bench.socket()).unwrap();
        let _ = stream.write_all(bytes);
    }
    bench.run("commands", &[]).expect("getquota", 0);
}

//! A VE below a prefix of its own: made, mounted, asked, and checked and removed on drop.
//!
//! At the end of a test that did not fail, drop asserts: usage equals a recount done here, the same for every user and
//! group; `simfs check` agrees, mounted and unmounted; the daemon ends with the mount and
//! leaves nothing reserved.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};
use serde_json::Value;
use tempfile::TempDir;

use super::backing::{Backing, Kind};
use super::command::{Outcome, eventually, finish, program};
use super::figures::{Amount, Counted, count};
use super::{crash, require};

/// What kind of VE a test wants. Unlimited on the host's file system unless said otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    backing: Kind,
    space: [String; 2],
    inodes: [String; 2],
    grace: [u32; 2],
    second_level: bool,
    options: Option<String>,
    loses_power: bool,
    apart: Option<(&'static str, Kind)>,
}

impl Default for Spec {
    fn default() -> Self {
        let unlimited = || ["unlimited".to_owned(), "unlimited".to_owned()];
        Self {
            backing: Kind::Host,
            space: unlimited(),
            inodes: unlimited(),
            grace: [604_800; 2],
            second_level: false,
            options: None,
            loses_power: false,
            apart: None,
        }
    }
}

impl Spec {
    pub(crate) fn backing(mut self, kind: Kind) -> Self {
        self.backing = kind;
        self
    }

    /// Soft and hard limit of space in KiB.
    pub(crate) fn space(mut self, soft: u64, hard: u64) -> Self {
        self.space = [soft.to_string(), hard.to_string()];
        self
    }

    /// Soft and hard limit of inodes.
    pub(crate) fn inodes(mut self, soft: u64, hard: u64) -> Self {
        self.inodes = [soft.to_string(), hard.to_string()];
        self
    }

    /// Grace periods of space and inodes in seconds.
    pub(crate) fn grace(mut self, space: u32, inodes: u32) -> Self {
        self.grace = [space, inodes];
        self
    }

    pub(crate) fn second_level(mut self) -> Self {
        self.second_level = true;
        self
    }

    /// Options of the mount.
    pub(crate) fn options(mut self, options: &str) -> Self {
        self.options = Some(options.to_owned());
        self
    }

    /// The state directory lies on the backing file system too, as far as the power goes; and what is mounted for this VE in
    /// another mount namespace, see [`Ve::mount_after_boot`], is seen in this one.
    pub(crate) fn loses_power(mut self) -> Self {
        self.loses_power = true;
        self
    }

    /// This directory of the prefix lies on a file system of its own.
    pub(crate) fn apart(mut self, place: &'static str, kind: Kind) -> Self {
        self.apart = Some((place, kind));
        self
    }

    /// The VE with an empty private area and no record; `None` after a skip.
    pub(crate) fn bare(self) -> Option<Ve> {
        Ve::new(self)
    }

    /// The VE with its record, not mounted; `None` after a skip.
    #[track_caller]
    pub(crate) fn init(self) -> Option<Ve> {
        let ve = self.bare()?;
        ve.init().ok();
        Some(ve)
    }

    /// The VE, mounted; `None` after a skip.
    #[track_caller]
    pub(crate) fn mount(self) -> Option<Ve> {
        let ve = self.init()?;
        ve.mount().ok();
        Some(ve)
    }
}

/// One VE. Fields are dropped in order: what is mounted before what it lies on.
#[derive(Debug)]
pub(crate) struct Ve {
    spec: Spec,
    private: PathBuf,
    is_checked: bool,
    backing: Backing,
    apart: Option<Backing>,
    base: TempDir,
}

impl Ve {
    /// The number of every VE: each has a prefix of its own.
    pub(crate) const ID: &'static str = "101";

    fn new(spec: Spec) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            require::skip("needs root");
            return None;
        }
        let place = std::env::var_os("SIMFS_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
        let base = tempfile::Builder::new()
            .prefix("simfs-e2e.")
            .tempdir_in(place)
            .expect("directory");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(base.path(), open).expect("mode of the test's directory");
        if spec.loses_power {
            share_mounts_below(base.path());
        }
        let backing = Backing::new(spec.backing, base.path())?;
        let private = backing.dir().join("private");
        std::fs::create_dir(&private).expect("private area");
        // Before any program makes its parents closed to others.
        let root = base.path().join("prefix/vz/root").join(Self::ID);
        std::fs::create_dir_all(root).expect("mount point");
        if spec.loses_power {
            put_elsewhere(base.path(), "var/lib/simfs", &backing.dir().join("states"));
        }
        let apart = match spec.apart {
            None => None,
            Some((place, kind)) => {
                let around = base.path().join("apart");
                std::fs::create_dir(&around).expect("directory");
                let apart = Backing::new(kind, &around)?;
                put_elsewhere(base.path(), place, &apart.dir().join("simfs"));
                Some(apart)
            }
        };
        Some(Self {
            spec,
            private,
            is_checked: true,
            backing,
            apart,
            base,
        })
    }

    /// A file below the mount.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    /// Where the VE is mounted.
    pub(crate) fn root(&self) -> PathBuf {
        self.prefix().join("vz/root").join(Self::ID)
    }

    /// What everything of this VE lies below.
    pub(crate) fn prefix(&self) -> PathBuf {
        self.base.path().join("prefix")
    }

    /// The VE's files as the host sees them.
    pub(crate) fn private(&self) -> &Path {
        &self.private
    }

    /// A place on the backing file system beside the private area.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.backing.dir().join(name)
    }

    /// What the private area lies on.
    pub(crate) fn backing(&self) -> &Backing {
        &self.backing
    }

    /// The file system of [`Spec::apart`].
    pub(crate) fn apart(&self) -> &Backing {
        self.apart.as_ref().expect("a file system apart")
    }

    /// The VE's directory below the run directory.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.prefix().join("run/simfs").join(Self::ID)
    }

    /// The VE's directory below the state directory.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.prefix().join("var/lib/simfs").join(Self::ID)
    }

    /// The host loses power in the middle of everything, and starts again: no process is left, and on the disks is what was
    /// written out.
    #[track_caller]
    pub(crate) fn lose_power(&self) {
        let (daemon, keeper) = crash::pids(self);
        self.backing.cut_power();
        crash::kill(keeper);
        crash::kill(daemon);
        let _already_gone = unmount(self.root(), UnmountFlags::DETACH);
    }

    /// For tests that leave totals wrong on purpose.
    pub(crate) fn leave_unchecked(&mut self) {
        self.is_checked = false;
    }

    /// A program under test, to be run below this VE's prefix.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command
            .env("SIMFS_PREFIX", self.prefix())
            .env("LC_ALL", "C");
        command
    }

    /// Runs `simfs ARGS`.
    #[track_caller]
    pub(crate) fn simfs<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        finish(self.command("simfs").args(args))
    }

    /// Runs `vzquota ARGS`.
    #[track_caller]
    pub(crate) fn vzquota<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        finish(self.command("vzquota").args(args))
    }

    /// Runs `vzquota init` with what the spec says.
    #[track_caller]
    pub(crate) fn init(&self) -> Outcome {
        let ([bsoft, bhard], [isoft, ihard]) = (&self.spec.space, &self.spec.inodes);
        let [bgrace, igrace] = self.spec.grace.map(|seconds| seconds.to_string());
        let mut command = self.command("vzquota");
        command.args(["init", Self::ID, "-p"]).arg(&self.private);
        command.args([
            "-b", bsoft, "-B", bhard, "-i", isoft, "-I", ihard, "-e", &bgrace, "-n", &igrace,
        ]);
        command.args(["-s", if self.spec.second_level { "1" } else { "0" }]);
        finish(&mut command)
    }

    #[track_caller]
    pub(crate) fn mount(&self) -> Outcome {
        let mut command = self.command("simfs");
        command.args(["mount", Self::ID]);
        if let Some(options) = &self.spec.options {
            command.args(["-o", options]);
        }
        // A whole run with other options, passthrough=off say.
        if let Ok(options) = std::env::var("SIMFS_TEST_OPTIONS") {
            command.args(["-o", &options]);
        }
        finish(&mut command)
    }

    /// Mounts as after a boot of the host with this id: the kernel's own is hidden from the program.
    #[track_caller]
    pub(crate) fn mount_after_boot(&self, id: &str) -> Outcome {
        let file = self.base.path().join("boot_id");
        std::fs::write(&file, format!("{id}\n")).expect("boot id");
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "unchanged", "sh", "-c", script]);
        command.arg(file).arg(program("simfs"));
        command.args(["mount", Self::ID]);
        finish(
            command
                .env("SIMFS_PREFIX", self.prefix())
                .env("LC_ALL", "C"),
        )
    }

    #[track_caller]
    pub(crate) fn umount(&self) -> Outcome {
        self.simfs(["umount", Self::ID])
    }

    /// Unmounts and waits for the daemon's end. Containers of other tests, which copy all mounts when they start, may hold
    /// this one for moments.
    #[track_caller]
    pub(crate) fn umount_and_wait(&self) {
        let pid = self.pid();
        let outcome = self.umount();
        if outcome.code != 0 && outcome.stderr.contains("in a mount namespace of its own") {
            eventually(
                "nobody else has the root any more",
                || match crash::is_alive(pid) {
                    true => Err(outcome.stderr.clone()),
                    false => Ok(()),
                },
            );
        } else {
            outcome.ok();
        }
    }

    /// Unmounts and mounts again.
    #[track_caller]
    pub(crate) fn remount(&self) {
        self.umount_and_wait();
        self.mount().ok();
    }

    /// Runs `vzquota setlimit ARGS`, which must succeed.
    #[track_caller]
    pub(crate) fn setlimit(&self, args: &[&str]) {
        self.vzquota(["setlimit", Self::ID].iter().chain(args)).ok();
    }

    /// Runs `vzquota setlimit2 ARGS`, which must succeed.
    #[track_caller]
    pub(crate) fn setlimit2(&self, args: &[&str]) {
        self.vzquota(["setlimit2", Self::ID].iter().chain(args))
            .ok();
    }

    /// Whether the root is a mount.
    pub(crate) fn is_mounted(&self) -> bool {
        let table = std::fs::read_to_string("/proc/self/mounts").expect("mount table");
        let root = self.root();
        table.lines().any(|line| {
            line.split(' ')
                .nth(1)
                .is_some_and(|dir| Path::new(dir) == root)
        })
    }

    /// What `simfs status --json` says of the VE.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        let outcome = self.simfs(["status", Self::ID, "--json"]).ok();
        let list: Value = serde_json::from_str(&outcome.stdout).expect("JSON of status");
        list.get(0)
            .cloned()
            .unwrap_or_else(|| panic!("status of no VE: {list}"))
    }

    /// The daemon's process id.
    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        let pid = self.status()["pid"].as_u64().expect("a running daemon");
        u32::try_from(pid).expect("a process id")
    }

    /// What `vzquota stat -t --json` says.
    #[track_caller]
    pub(crate) fn stat(&self) -> Value {
        self.try_stat().unwrap_or_else(|closed| panic!("{closed}"))
    }

    /// The same, or what a store says that met an error moments ago.
    #[track_caller]
    fn try_stat(&self) -> Result<Value, String> {
        let outcome = self.vzquota(["stat", Self::ID, "-t", "--json"]);
        if outcome.stderr.contains("closed after an error") {
            return Err(outcome.stderr);
        }
        assert!(matches!(outcome.code, 0 | 9), "{outcome:?}");
        Ok(serde_json::from_str(&outcome.stdout).expect("JSON of stat"))
    }

    /// The VE's usage as charged.
    #[track_caller]
    pub(crate) fn used(&self) -> Amount {
        Amount::from_json(&self.stat()["used"])
    }

    /// All usage as charged; accounts without usage are left out.
    #[track_caller]
    pub(crate) fn charged(&self) -> Counted {
        Self::charged_in(&self.stat())
    }

    /// All usage that `vzquota stat -t --json` shows.
    fn charged_in(stat: &Value) -> Counted {
        let owners = |kind: &str| {
            let list = stat["second_level"][kind]["accounts"]
                .as_array()
                .expect("accounts");
            let pairs = list.iter().map(|account| {
                let id = account["id"]
                    .as_u64()
                    .and_then(|id| u32::try_from(id).ok())
                    .expect("id");
                (id, Amount::from_json(&account["used"]))
            });
            pairs
                .filter(|(_, amount)| *amount != Amount::default())
                .collect()
        };
        Counted {
            ve: Amount::from_json(&stat["used"]),
            users: owners("users"),
            groups: owners("groups"),
        }
    }

    /// Waits until what is charged equals a recount: closing a file reaches the daemon a moment after the program, and a
    /// store that met a full disk opens again a moment after that.
    #[track_caller]
    pub(crate) fn assert_exact(&self) {
        eventually("charged usage equals a recount", || {
            let stat = self.try_stat()?;
            let (charged, counted) = (Self::charged_in(&stat), count(&self.private));
            if charged == counted {
                Ok(())
            } else {
                Err(format!("charged {charged:?}\ncounted {counted:?}"))
            }
        });
    }

    /// Runs `simfs check`, which must find the totals right.
    #[track_caller]
    pub(crate) fn check(&self) {
        self.simfs(["check", Self::ID]).ok();
    }

    fn assert_clean_end(&self) {
        if self.is_mounted() && self.status()["state"] != "dead" {
            self.assert_exact();
            self.check();
            let pid = self.pid();
            self.umount_and_wait();
            assert!(!self.is_mounted(), "still mounted after umount");
            assert!(!crash::is_alive(pid), "the daemon outlives its mount");
        }
        let has_record = self.vzquota(["show", Self::ID]).code == 0;
        if has_record {
            assert_eq!(self.charged(), count(&self.private), "after unmount");
            let reserved = Amount::from_json(&self.stat()["reserved"]);
            assert_eq!(reserved, Amount::default(), "reserved after unmount");
            self.check();
        }
    }
}

/// Has a directory of the prefix lie at another place.
fn put_elsewhere(base: &Path, place: &str, target: &Path) {
    let link = base.join("prefix").join(place);
    std::fs::create_dir(target).expect("directory");
    std::fs::create_dir_all(link.parent().expect("a parent")).expect("directory");
    std::os::unix::fs::symlink(target, link).expect("link");
}

/// Makes a directory a mount of its own whose submounts are seen in all mount namespaces.
fn share_mounts_below(dir: &Path) {
    rustix::mount::mount_bind(dir, dir).expect("bind mount");
    let flags = rustix::mount::MountPropagationFlags::SHARED;
    rustix::mount::mount_change(dir, flags).expect("shared mount");
}

impl Ve {
    /// Detaches whatever is still mounted below this VE's directory, so that it can be removed.
    fn unmount_all(&self) {
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let places = table.lines().filter_map(|line| line.split(' ').nth(1));
        let below: Vec<_> = places
            .filter(|place| Path::new(place).starts_with(self.base.path()))
            .collect();
        for place in below.iter().rev() {
            let _already_gone = unmount(*place, UnmountFlags::DETACH);
        }
    }
}

impl Drop for Ve {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", crash::log(self));
        }
        let checked = self.is_checked && !std::thread::panicking();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if checked {
                self.assert_clean_end();
            }
        }));
        if self.is_mounted() {
            let pids = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.status()));
            let _may_be_busy = unmount(self.root(), UnmountFlags::DETACH);
            for key in ["keeper_pid", "pid"] {
                let pid = pids.as_ref().ok().and_then(|status| status[key].as_u64());
                if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) {
                    crash::kill(pid);
                }
            }
        }
        self.unmount_all();
        if let (Err(panic), false) = (result, std::thread::panicking()) {
            std::panic::resume_unwind(panic);
        }
    }
}

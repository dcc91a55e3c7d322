//! A VE with a daemon: the same commands go through its socket, and those that need the store are refused.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quota::store::memory::MemoryStore;
use quota::{
    Bytes, Engine, Environment, GracePeriods, Inodes, Limits, NoEvents, PerScope, Setup, Subject,
    SystemClock, Tally, Timestamp, VeId,
};
use simfs::control::{
    CheckReport, ErrorKind, Progress, Reply, Request, RequestError, Server, Service, VeState,
    VeStatus, engine_reply,
};
use simfs_tools::ending;

use crate::host::{Host, rows, words};

/// A daemon without a mount.
struct Daemon {
    engine: Engine,
    busy: Mutex<bool>,
    /// After this time in the next check the mount is gone.
    gone_after: Mutex<Option<Duration>>,
    seen: Mutex<Vec<Request>>,
}

impl Service for Daemon {
    fn handle(&self, request: Request, progress: &mut dyn FnMut(Progress) -> bool) -> Reply {
        self.seen.lock().push(request.clone());
        if let Some(reply) = engine_reply(&self.engine, request.clone()) {
            return reply;
        }
        match request {
            Request::Status => Reply::Status(Box::new(self.status())),
            Request::Check { repair } => {
                if let Some(time) = self.gone_after.lock().take() {
                    std::thread::sleep(time);
                    return Reply::Error(RequestError::new(ErrorKind::Ending, "the mount is gone"));
                }
                progress(Progress {
                    done: Inodes::new(1),
                    total_estimate: Inodes::new(2),
                });
                let differences = self.engine.tally().unwrap().differences(&Tally::default());
                Reply::Checked(CheckReport::new(repair, differences, Inodes::new(2)))
            }
            Request::Stop { lazy: false } if *self.busy.lock() => Reply::Error(RequestError::new(
                ErrorKind::Busy,
                "files are open: add --lazy",
            )),
            _ => Reply::Done { changed: true },
        }
    }
}

impl Daemon {
    fn status(&self) -> VeStatus {
        VeStatus {
            ve: VeId::new(101),
            state: VeState::Mounted,
            mountpoint: "/vz/root/101".into(),
            private: "/vz/private/101".into(),
            pid: std::process::id(),
            keeper_pid: Some(std::process::id()),
            since: Timestamp::new(1),
            quota: true,
            device: (0, 57),
            account: self.engine.account(Subject::Ve).unwrap(),
            progress: None,
            nodes: 1,
            handles: 0,
            degraded: vec!["no passthrough".into()],
            program: Some("/usr/sbin/simfs".into()),
            restarts: 2,
            last_death: Some("signal 9".into()),
            upgrade: None,
        }
    }
}

struct Mounted {
    host: Host,
    daemon: Arc<Daemon>,
    _server: Server,
}

fn mounted() -> Mounted {
    let host = Host::new();
    let setup = Setup {
        ve: VeId::new(101),
        private: host.private(),
        limits: Limits::UNLIMITED,
        grace: PerScope::all(GracePeriods::default()),
        enforced: PerScope::all(true),
        ugid_limit: 0,
        usage: Tally::default(),
    };
    let environment = Environment {
        clock: Arc::new(SystemClock),
        events: Arc::new(NoEvents),
    };
    let engine = Engine::create(Arc::new(MemoryStore::new()), environment, setup).unwrap();
    let daemon = Arc::new(Daemon {
        engine,
        busy: Mutex::new(false),
        gone_after: Mutex::new(None),
        seen: Mutex::new(Vec::new()),
    });
    let run_dir = host.path("run/simfs/101");
    let server = Server::start(&run_dir, Arc::clone(&daemon) as Arc<dyn Service>).unwrap();
    Mounted {
        host,
        daemon,
        _server: server,
    }
}

#[test]
fn limits_go_through_the_daemon() {
    let Mounted {
        host,
        daemon,
        _server,
    } = mounted();
    host.vzquota_ok("setlimit 101 -b 1G -B 2G");
    host.vzquota_ok("setlimit2 101 -u ann 0 1M 0 0");
    let limits = daemon.engine.account(Subject::Ve).unwrap().limits;
    assert_eq!(limits.space.hard, Some(Bytes::new(2 << 30)));
    assert_eq!(
        rows(&host.vzquota_ok("stat 101"))[1],
        ["1k-blocks", "0", "1048576", "2097152"]
    );
    assert!(host.vzquota_ok("stat 101 -t").contains("on,active"));
    assert!(!host.path("var/lib/simfs/101").exists());
}

#[test]
fn show_stores_the_figures_first() {
    let Mounted {
        host,
        daemon,
        _server,
    } = mounted();
    host.vzquota_ok("show 101");
    assert_eq!(daemon.seen.lock()[0], Request::Commit);
}

#[test]
fn a_mounted_ve_keeps_its_record() {
    let Mounted {
        host,
        daemon: _,
        _server,
    } = mounted();
    for line in ["drop 101", "init 101 -p /x -b 1 -B 1 -i 1 -I 1 -e 1 -n 1"] {
        let ended = host.vzquota(&words(line));
        assert_eq!(ended.code, 5, "{line}: {ended:?}");
        assert!(ended.err.contains("simfs umount 101"), "{line}: {ended:?}");
    }
}

#[test]
fn hard_below_soft_is_refused_against_the_limits_in_force() {
    let Mounted {
        host,
        daemon: _,
        _server,
    } = mounted();
    host.vzquota_ok("setlimit 101 -b 1G -B 2G");
    assert_eq!(host.vzquota(&words("setlimit 101 -B 1M")).code, 2);
}

#[test]
fn a_second_mount_is_refused() {
    let Mounted {
        host,
        daemon: _,
        _server,
    } = mounted();
    let ended = host.simfs(&["mount", "101"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("already mounted"), "{ended:?}");
}

#[test]
fn status_shows_the_daemons_figures() {
    let Mounted {
        host,
        daemon: _,
        _server,
    } = mounted();
    let text = host.simfs(&["status", "101", "--json"]).out;
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let line = &value[0];
    assert_eq!(
        (&line["state"], &line["pid"]),
        (&"mounted".into(), &std::process::id().into())
    );
    assert_eq!(line["mountpoint"], "/vz/root/101");
    assert!(line["threads"].as_u64().unwrap() > 0);
    assert!(line["memory"].as_u64().unwrap() > 0);
    assert_eq!(line["reserved"]["space"], 0);
    assert!(host.simfs(&["status"]).out.contains("no passthrough"));
}

#[test]
fn check_is_done_by_the_daemon() {
    let Mounted {
        host,
        daemon,
        _server,
    } = mounted();
    let ended = host.simfs(&["check", "101", "--repair"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(*daemon.seen.lock(), [Request::Check { repair: true }]);
}

// However long a check has taken, the daemon is waited for from its refusal on.
#[test]
fn a_check_that_the_end_of_the_mount_cut_off_is_done_again() {
    let Mounted {
        host,
        daemon,
        _server,
    } = mounted();
    *daemon.gone_after.lock() = Some(ending::PATIENCE + Duration::from_millis(500));
    let ended = host.simfs(&["check", "101"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(daemon.seen.lock().len(), 2);
}

#[test]
fn a_mount_in_use_is_not_taken_away() {
    let Mounted {
        host,
        daemon,
        _server,
    } = mounted();
    *daemon.busy.lock() = true;
    let ended = host.simfs(&["umount", "101"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("--lazy"), "{ended:?}");
    assert_eq!(host.simfs(&["umount", "101", "--lazy"]).code, 0);
    assert_eq!(
        daemon.seen.lock().last(),
        Some(&Request::Stop { lazy: true })
    );
}

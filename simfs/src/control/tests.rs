//! Server and client together, over a real socket.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use quota::Inodes;

use super::protocol::{CheckReport, ErrorKind, Progress, Reply, Request, RequestError};
use super::server::{MAX_CONNECTIONS, Server, Service};
use super::{Client, ClientError, SOCKET_NAME, frame};

/// Answers what a test needs: `Commit` waits until the test lets it go on.
struct Double {
    entered: Mutex<Sender<()>>,
    go_on: Mutex<Receiver<()>>,
    at_once: AtomicUsize,
    most: AtomicUsize,
}

impl Service for Double {
    fn handle(&self, request: Request, progress: &mut dyn FnMut(Progress) -> bool) -> Reply {
        match request {
            Request::Check { repair } => {
                let mut step = |done| {
                    progress(Progress {
                        done: Inodes::new(done),
                        total_estimate: Inodes::new(2),
                    })
                };
                while step(1) && step(2) && repair {}
                self.entered.lock().send(()).unwrap();
                Reply::Checked(CheckReport {
                    equal: true,
                    ..CheckReport::default()
                })
            }
            Request::Commit => {
                let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(now, Ordering::SeqCst);
                self.entered.lock().send(()).unwrap();
                self.go_on
                    .lock()
                    .recv_timeout(Duration::from_secs(20))
                    .unwrap();
                self.at_once.fetch_sub(1, Ordering::SeqCst);
                Reply::Done { changed: true }
            }
            Request::Info => panic!("a service that panics"),
            _ => Reply::Error(RequestError::new(ErrorKind::Unsupported, "not here")),
        }
    }
}

struct Fixture {
    service: Arc<Double>,
    entered: Receiver<()>,
    go_on: Sender<()>,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let (entered_tx, entered) = channel();
        let (go_on, go_on_rx) = channel();
        let service = Arc::new(Double {
            entered: Mutex::new(entered_tx),
            go_on: Mutex::new(go_on_rx),
            at_once: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        Self {
            service,
            entered,
            go_on,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn run_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("run/101")
    }

    fn start(&self, run_dir: &Path) -> Server {
        Server::start(run_dir, Arc::clone(&self.service) as Arc<dyn Service>).unwrap()
    }
}

#[test]
fn requests_are_answered_one_after_another() {
    let fixture = Fixture::new();
    let server = fixture.start(&fixture.run_dir());
    let mut client = Client::connect(&fixture.run_dir()).unwrap();
    let mut seen = Vec::new();
    let reply = client
        .request_with_progress(&Request::Check { repair: false }, &mut |step| {
            seen.push(step.done.get());
        })
        .unwrap();
    assert!(matches!(reply, Reply::Checked(report) if report.equal));
    assert_eq!(seen, [1, 2]);
    let refused = client.request(&Request::Upgrade).unwrap_err();
    assert!(matches!(refused, ClientError::Refused(error) if error.kind == ErrorKind::Unsupported));
    server.stop();
    assert!(matches!(
        Client::connect(&fixture.run_dir()),
        Err(ClientError::NotRunning)
    ));
}

#[test]
fn a_check_ends_when_its_client_leaves() {
    let fixture = Fixture::new();
    let _server = fixture.start(&fixture.run_dir());
    let stream = UnixStream::connect(fixture.run_dir().join(SOCKET_NAME)).unwrap();
    // The double goes on with this one for as long as it is wanted.
    let endless = Request::Check { repair: true };
    frame::write(&mut &stream, &endless, frame::MAX_REQUEST).unwrap();
    let first = frame::read::<Reply>(&mut &stream, frame::MAX_REPLY).unwrap();
    assert!(matches!(first, Some(Reply::Progress(_))));
    drop(stream);
    let ended = fixture.entered.recv_timeout(Duration::from_secs(20));
    ended.expect("the check ends");
}

#[test]
fn the_socket_is_for_root_alone() {
    let fixture = Fixture::new();
    let _server = fixture.start(&fixture.run_dir());
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&fixture.run_dir()), 0o700);
    assert_eq!(mode(&fixture.run_dir().join(SOCKET_NAME)), 0o600);
}

#[test]
fn who_is_not_root_is_not_answered_whatever_the_modes_say() {
    let fixture = Fixture::new();
    let _server = fixture.start(&fixture.run_dir());
    let socket = fixture.run_dir().join(SOCKET_NAME);
    for path in [
        fixture.dir.path(),
        &fixture.dir.path().join("run"),
        &fixture.run_dir(),
        &socket,
    ] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let ask = move |uid: u32| {
        // The ids are those of this thread alone.
        let uid = rustix::thread::Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        let mut stream = UnixStream::connect(&socket).unwrap();
        // The daemon may close, or reset, the connection before it reads the request.
        let _closed = frame::write(&mut stream, &Request::Upgrade, frame::MAX_REQUEST);
        frame::read::<Reply>(&mut stream, frame::MAX_REPLY).unwrap_or(None)
    };
    let nobody = ask.clone();
    assert_eq!(
        std::thread::spawn(move || nobody(65_534)).join().unwrap(),
        None
    );
    assert!(std::thread::spawn(move || ask(0)).join().unwrap().is_some());
}

#[test]
fn a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.run_dir()).unwrap();
    let socket = fixture.run_dir().join(SOCKET_NAME);
    drop(std::os::unix::net::UnixListener::bind(socket).unwrap());
    assert!(matches!(
        Client::connect(&fixture.run_dir()),
        Err(ClientError::NotRunning)
    ));
    let _server = fixture.start(&fixture.run_dir());
    let service = Arc::clone(&fixture.service) as Arc<dyn Service>;
    let second = Server::start(&fixture.run_dir(), service).unwrap_err();
    assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);
    assert!(Client::connect(&fixture.run_dir()).is_ok());
}

#[test]
fn long_paths_work() {
    let fixture = Fixture::new();
    let deep = fixture.dir.path().join("d".repeat(120)).join("101");
    let server = fixture.start(&deep);
    let mut client = Client::connect(&deep).unwrap();
    assert!(client.request(&Request::Check { repair: false }).is_ok());
    server.stop();
    assert!(!deep.join(SOCKET_NAME).exists());
}

#[test]
fn garbage_is_answered_with_an_error() {
    let fixture = Fixture::new();
    let _server = fixture.start(&fixture.run_dir());
    let mut stream = UnixStream::connect(fixture.run_dir().join(SOCKET_NAME)).unwrap();
    stream.write_all(&[0xff; 64]).unwrap();
    let reply: Reply = frame::read(&mut stream, frame::MAX_REPLY).unwrap().unwrap();
    assert!(matches!(reply, Reply::Error(error) if error.kind == ErrorKind::Malformed));
    let mut rest = Vec::new();
    // The unread garbage may reset the connection; it is closed in either case.
    let _closed = stream.read_to_end(&mut rest);
    assert!(rest.is_empty());
}

#[test]
fn a_panicking_request_takes_only_its_connection() {
    let fixture = Fixture::new();
    let server = fixture.start(&fixture.run_dir());
    for _ in 0..=MAX_CONNECTIONS {
        let mut client = Client::connect(&fixture.run_dir()).unwrap();
        assert!(matches!(
            client.request(&Request::Info),
            Err(ClientError::Closed)
        ));
    }
    let mut client = Client::connect(&fixture.run_dir()).unwrap();
    assert!(client.request(&Request::Check { repair: false }).is_ok());
    server.stop();
}

#[test]
fn connections_beyond_the_bound_wait() {
    let fixture = Fixture::new();
    let server = fixture.start(&fixture.run_dir());
    let extra = 3;
    let clients: Vec<_> = (0..MAX_CONNECTIONS + extra)
        .map(|_| {
            let mut client = Client::connect(&fixture.run_dir()).unwrap();
            std::thread::spawn(move || client.request(&Request::Commit).unwrap())
        })
        .collect();
    for _ in 0..MAX_CONNECTIONS {
        fixture
            .entered
            .recv_timeout(Duration::from_secs(20))
            .unwrap();
    }
    assert!(
        fixture
            .entered
            .recv_timeout(Duration::from_millis(200))
            .is_err()
    );
    for _ in 0..MAX_CONNECTIONS + extra {
        fixture.go_on.send(()).unwrap();
    }
    for client in clients {
        assert_eq!(client.join().unwrap(), Reply::Done { changed: true });
    }
    assert_eq!(fixture.service.most.load(Ordering::SeqCst), MAX_CONNECTIONS);
    server.stop();
}

#[test]
fn stopping_waits_for_the_request_in_hand_but_not_for_idle_clients() {
    let fixture = Fixture::new();
    let server = fixture.start(&fixture.run_dir());
    let idle = UnixStream::connect(fixture.run_dir().join(SOCKET_NAME)).unwrap();
    let mut client = Client::connect(&fixture.run_dir()).unwrap();
    let asking = std::thread::spawn(move || client.request(&Request::Commit));
    fixture
        .entered
        .recv_timeout(Duration::from_secs(20))
        .unwrap();
    let stopping = std::thread::spawn(move || server.stop());
    std::thread::sleep(Duration::from_millis(50));
    assert!(!stopping.is_finished());
    fixture.go_on.send(()).unwrap();
    assert_eq!(
        asking.join().unwrap().unwrap(),
        Reply::Done { changed: true }
    );
    stopping.join().unwrap();
    drop(idle);
}

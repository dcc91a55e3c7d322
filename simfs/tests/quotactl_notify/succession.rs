//! What a successor finds and goes on with.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quota::VeId;
use simfs::keeper::{DepositNumber, Depository};
use simfs::quotactl::{AdminPolicy, Kept, Left, QuotactlConfig, QuotactlService, notify};
use simfs::shared::{Shape, Shared};
use simfs::sys::seccomp::NotifyFd;

use super::{Bench, Held, Lines, filtered};

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

    /// The child calls.
    fn call_at_once(&mut self) {
        drop(self.child.0.stdin.take());
    }

    /// The child calls; nobody serves.
    fn call(&mut self) {
        self.call_at_once();
        std::thread::sleep(Duration::from_millis(50));
        assert!(self.child.0.try_wait().unwrap().is_none());
    }

    /// A successor serves; what the child was answered.
    fn succeed(mut self) -> Lines {
        let memory = self.serve();
        self.end(&memory)
    }

    /// A successor serves, with this memory.
    fn serve(&mut self) -> Arc<Shared> {
        let memory = self.shared.fd().try_clone_to_owned().unwrap();
        let (again, inheritance) = Shared::adopt(memory).unwrap();
        assert_eq!(inheritance.listeners.len(), 1);
        let again = Arc::new(again);
        let config = QuotactlConfig {
            kept: Some(Kept::new(again.clone(), self.holder.clone())),
            ..self.config.clone()
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
        assert_eq!(descriptors.numbers().count(), 0, "all were taken over");
        again
    }

    fn end(mut self, again: &Shared) -> Lines {
        let output = std::io::read_to_string(self.child.0.stdout.take().unwrap()).unwrap();
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

// A daemon that dies after it has noted a listener, and before it lets the runtime's connection go.
#[test]
fn a_listener_that_is_kept_and_waits_on_its_connection_too_is_served_once() {
    let mut relay = Relay::stopped();
    let socket = UnixListener::bind(relay.bench.socket()).unwrap();
    let mut runtime = UnixStream::connect(relay.bench.socket()).unwrap();
    let (connection, _) = socket.accept().unwrap();
    {
        let mut held = relay.holder.0.lock().unwrap();
        filtered::send(&runtime, held[0].as_fd(), 0);
        held.push(connection.into());
    }
    drop(socket);
    let memory = relay.serve();
    assert_eq!(runtime.read(&mut [0; 1]).unwrap(), 0, "heard out");
    let served = relay.bench.service.as_ref().unwrap().listener_count();
    assert_eq!(served, 1);
    relay.call_at_once();
    relay.end(&memory).expect("next", 0);
}

//! Callers that die, flood or hang.

use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStdout, Stdio};
use std::time::{Duration, Instant};

use simfs::quotactl::AdminPolicy;

use super::{Bench, Held, Lines};

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

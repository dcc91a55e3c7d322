//! Commands and terminals in a running VE.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use super::Host;
use crate::harness::command::PATIENCE;
use crate::harness::require;

/// A program with pipes; its output is read by lines.
struct Session {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Session {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a session");
        let output = child.stdout.take().expect("a pipe");
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line.trim().to_owned()).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    fn type_in(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        input.write_all(text.as_bytes()).expect("typing");
    }

    /// Waits for a line that ends so.
    #[track_caller]
    fn expect(&self, end: &str) {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.ends_with(end) => return,
                Ok(line) => seen.push(line),
                Err(error) => panic!("no '{end}': {error}: {seen:?}"),
            }
        }
    }

    fn end(mut self) -> i32 {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("its end");
        status.code().unwrap_or(-1)
    }
}

// S70: exit codes, input and signals are the command's own.
fn commands(runtime: &'static str) {
    let Some(host) = Host::small(runtime) else {
        return;
    };
    host.create("101", &[]).ok();
    host.vzctl(&["start", "101"]).ok();
    for (command, code) in [
        ("true", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("no-such-program", 127),
    ] {
        assert_eq!(host.exec("101", command).code, code, "{command}");
    }
    let feed = |args: &[&str], input: &[u8]| {
        let mut command = host.command("vzctl");
        let mut child = command
            .args(["exec", "101"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("vzctl");
        let mut pipe = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || pipe.write_all(&input));
        let mut output = Vec::new();
        let mut answers = child.stdout.take().expect("a pipe");
        answers.read_to_end(&mut output).expect("output");
        writer.join().expect("a thread").expect("input");
        (child.wait().expect("its end").code(), output)
    };
    // Every byte, more than pipes hold.
    let bytes: Vec<u8> = (0..1_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    assert_eq!(feed(&["cat"], &bytes), (Some(0), bytes));
    let script = b"echo one\nexit 9\n";
    assert_eq!(feed(&["-"], script), (Some(9), b"one\n".to_vec()));

    // A signal to the command on the host is one to the command inside.
    let mut command = host.command("vzctl");
    let mut session = Session::start(command.args([
        "--quiet",
        "exec",
        "101",
        "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.1; done",
    ]));
    session.expect("ready");
    let pid = session.child.id().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(told.expect("kill").success());
    session.expect("told");
    session.type_in("");
    // timeout(1), which stands in front, ends with its own code when it is told to end.
    assert!([3, 124].contains(&session.end()));
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

#[test]
fn commands_are_themselves_with_crun() {
    commands("crun");
}

#[test]
fn commands_are_themselves_with_runc() {
    commands("runc");
}

// S70: a terminal is one of the VE's own.
fn terminal(runtime: &'static str) {
    if !require::programs(&["script"]) {
        return;
    }
    let Some(host) = Host::small(runtime) else {
        return;
    };
    host.create("101", &[]).ok();
    host.vzctl(&["start", "101"]).ok();
    let vzctl = crate::harness::command::program("vzctl");
    let line = format!("{} --quiet enter 101", vzctl.display());
    let mut command = Command::new("timeout");
    command
        .args([
            "60",
            "script",
            "--quiet",
            "--return",
            "--command",
            &line,
            "/dev/null",
        ])
        .env("SIMFS_PREFIX", host.base.path());
    let mut session = Session::start(&mut command);
    session.type_in("stty -echo; stty rows 33 cols 99; stty size; echo at $(tty)\n");
    session.expect("33 99");
    session.expect("at /dev/pts/0");
    // What is typed reaches the program that runs, and an interrupt ends it but not the session.
    session.type_in("cat\n");
    session.type_in("typed\n");
    session.expect("typed");
    session.type_in("\u{3}");
    // The interrupt throws away what is typed until it is taken note of, with a new line.
    session.expect("");
    session.type_in("echo code $?\n");
    session.expect("code 130");
    session.type_in("exit 6\n");
    assert_eq!(session.end(), 6);
    host.vzctl(&["stop", "101", "--fast"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

#[test]
fn a_terminal_works_with_crun() {
    terminal("crun");
}

#[test]
fn a_terminal_works_with_runc() {
    terminal("runc");
}

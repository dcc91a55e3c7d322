//! Running programs, and waiting for what takes a moment.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// How long anything that is not the subject of a test may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a program did.
#[derive(Debug)]
pub(crate) struct Outcome {
    line: String,
    /// Its exit code; that of a shell for one that was killed.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Fails the test unless the program ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "{}\n{}{}",
            self.line, self.stdout, self.stderr
        );
        self
    }

    /// Fails the test unless the program ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.expect(0)
    }

    /// Fails the test unless the program refused with this code, in one line that names `what`.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, what: &str) -> Self {
        let this = self.expect(code);
        assert_eq!(
            this.stderr.lines().count(),
            1,
            "{}\n{}",
            this.line,
            this.stderr
        );
        assert!(
            this.stderr.contains(what),
            "{}: '{what}' is not in {}",
            this.line,
            this.stderr
        );
        this
    }
}

/// Runs a prepared command to its end.
#[track_caller]
pub(crate) fn finish(command: &mut Command) -> Outcome {
    let line = format!("{command:?}");
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    Outcome {
        code: status.code().unwrap_or_else(|| 128 + signal.unwrap_or(0)),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        line,
    }
}

/// Runs a program of the host.
#[track_caller]
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Outcome {
    finish(Command::new(program).args(args).env("LC_ALL", "C"))
}

/// The directory of the programs under test: `SIMFS_BIN_DIR`, else where cargo builds them beside this binary.
pub(crate) fn program(name: &str) -> PathBuf {
    let named = std::env::var_os("SIMFS_BIN_DIR").map(|dir| Path::new(&dir).join(name));
    let path = named.unwrap_or_else(|| {
        let this = std::env::current_exe().expect("the path of this program");
        let built = this
            .parent()
            .and_then(Path::parent)
            .expect("target/PROFILE/deps");
        built.join(name)
    });
    assert!(
        path.exists(),
        "{} is missing: cargo build -p simfs-tools",
        path.display()
    );
    path
}

/// Waits until a condition holds; the last answer when patience ends is the failure's text.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, attempt: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, attempt)
}

/// The same for what takes longer, such as the start of a whole system on a host that is busy.
#[track_caller]
pub(crate) fn within<T>(
    patience: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) => assert!(start.elapsed() < patience, "{what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

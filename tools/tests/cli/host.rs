//! A host of its own below a temporary prefix, and what programs said on it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A host with nothing on it.
pub(crate) struct Host {
    dir: tempfile::TempDir,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn prefix(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join(inside)
    }

    /// A private area with some files.
    pub(crate) fn private(&self) -> PathBuf {
        let private = self.path("vz/private/101");
        std::fs::create_dir_all(private.join("etc")).unwrap();
        std::fs::write(private.join("etc/passwd"), "root:x:0:0\nann:x:1000:1000\n").unwrap();
        std::fs::write(private.join("etc/group"), "root:x:0:\nstaff:x:50:\n").unwrap();
        std::fs::write(private.join("file"), vec![1; 100_000]).unwrap();
        private
    }

    pub(crate) fn vzquota<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ended {
        self.run(env!("CARGO_BIN_EXE_vzquota"), arguments)
    }

    pub(crate) fn simfs<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ended {
        self.run(env!("CARGO_BIN_EXE_simfs"), arguments)
    }

    /// `vzquota` with the words of a line; it must end well.
    pub(crate) fn vzquota_ok(&self, line: &str) -> String {
        let ended = self.vzquota(&words(line));
        assert_eq!(ended.code, 0, "vzquota {line}: {ended:?}");
        ended.out
    }

    pub(crate) fn run<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: &[S],
    ) -> Ended {
        let output = Command::new(program)
            .args(arguments)
            .env("SIMFS_PREFIX", self.prefix())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ended {
            code: output.status.code().expect("ended by a signal"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// VE 101 with 100 MiB soft and 200 MiB hard, 1000 and 2000 inodes.
    pub(crate) fn init(&self) -> PathBuf {
        let private = self.private();
        let line = "init 101 -b 100M -B 200M -i 1000 -I 2000 -e 7d -n 3600 -p";
        let mut arguments: Vec<&OsStr> = words(line).into_iter().map(OsStr::new).collect();
        arguments.push(private.as_os_str());
        let ended = self.vzquota(&arguments);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
        private
    }
}

pub(crate) fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The rows of a table as words.
pub(crate) fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(words).collect()
}

/// KiB and inodes of a tree, as du(1) counts them.
pub(crate) fn du(path: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let data = path.symlink_metadata().unwrap();
    let mut sum = (data.blocks() * 512, 1);
    if data.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            let (kib, inodes) = du(&entry.unwrap().path());
            sum = (sum.0 + kib * 1024, sum.1 + inodes);
        }
    }
    (sum.0.div_ceil(1024), sum.1)
}

//! Root directories as tar files: owners by number, every extended attribute and ACL, holes as holes, several names as
//! several names.
//!
//! The compression is known by the first bytes, not by the name, and done by all CPUs where its program can.
//!
//! # Source
//! tar(1); the magic numbers are those of RFC 1952, the xz file format 2.1.1.1, RFC 8878 and bzip2.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::progress::Bar;
use crate::runtime::is_installed;

const CHUNK: usize = 1 << 20;
const MIB: u64 = 1 << 20;
/// Between two looks at a file that is being written.
const LOOK: Duration = Duration::from_millis(100);

/// How a tar file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip, or pigz where it is installed.
    Gzip,
    /// xz.
    Xz,
    /// zstd.
    Zstd,
    /// bzip2.
    Bzip2,
}

impl Compression {
    /// The compression of what begins with these bytes; `None` if it is none that is known.
    pub fn of(begin: &[u8]) -> Option<Self> {
        match begin {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Some(Self::Bzip2),
            _ => None,
        }
    }

    /// The program, as tar calls it.
    fn program(self) -> &'static str {
        match self {
            Self::Gzip if is_installed("pigz") => "pigz",
            Self::Gzip => "gzip",
            Self::Xz => "xz -T0",
            Self::Zstd => "zstd -T0 -q",
            Self::Bzip2 => "bzip2",
        }
    }
}

/// Unpacks a tar file of any known compression into an empty directory, and shows how much of it is done.
///
/// # Errors
/// What tar complains of first, or why the file cannot be read.
pub fn unpack(archive: &Path, tree: &Path) -> Result<(), String> {
    let said = |error: io::Error| format!("{}: {error}", archive.display());
    let mut file = File::open(archive).map_err(said)?;
    let size = file.metadata().map_err(said)?.len();
    let mut begin = Vec::new();
    (&file).take(8).read_to_end(&mut begin).map_err(said)?;
    file.rewind().map_err(said)?;
    let mut command = tar("--extract", Compression::of(&begin));
    command
        .args(["--same-owner", "--preserve-permissions"])
        .args(["--xattrs-include=*", "--file=-", "--directory"])
        .arg(tree)
        .stdin(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("tar: {error}"))?;
    let fed = feed(&mut child, file, size);
    ended(child).map_err(|line| format!("{}: {line}", archive.display()))?;
    fed.map_err(said)
}

/// Writes a directory to a tar file, and shows how much is written.
///
/// # Errors
/// What tar complains of first.
pub fn pack(tree: &Path, archive: &Path, compression: Option<Compression>) -> Result<(), String> {
    let mut command = tar("--create", compression);
    command
        .arg("--file")
        .arg(archive)
        .arg("--directory")
        .arg(tree);
    let mut child = command
        .arg(".")
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("tar: {error}"))?;
    let mut bar = Bar::counting("packing", "MiB");
    while let Ok(None) = child.try_wait() {
        let length = archive.metadata().map_or(0, |data| data.len());
        bar.show(length / MIB, 0);
        std::thread::sleep(LOOK);
    }
    drop(bar);
    ended(child)
}

fn tar(mode: &str, compression: Option<Compression>) -> Command {
    let mut command = Command::new("tar");
    command
        .arg(mode)
        .args(["--numeric-owner", "--xattrs", "--acls", "--sparse"])
        .env("LC_ALL", "C")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if let Some(compression) = compression {
        command.args(["--use-compress-program", compression.program()]);
    }
    command
}

/// Hands the archive to tar.
fn feed(child: &mut Child, mut archive: File, size: u64) -> io::Result<()> {
    let Some(mut input) = child.stdin.take() else {
        return Ok(());
    };
    let mut bar = Bar::counting("unpacking", "MiB");
    let mut chunk = vec![0; CHUNK];
    let mut done = 0u64;
    loop {
        let length = archive.read(&mut chunk)?;
        let Some(bytes) = chunk.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        match input.write_all(bytes) {
            // tar has ended, well or not: its exit code tells.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        done = done.saturating_add(u64::try_from(length).unwrap_or(0));
        bar.show(done / MIB, size / MIB);
    }
}

/// Waits for tar; the first complaint is the cause, the rest follows from it.
fn ended(child: Child) -> Result<(), String> {
    let output = child
        .wait_with_output()
        .map_err(|error| format!("tar: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| !line.trim().is_empty());
    Err(line.unwrap_or("tar failed").to_owned())
}

//! The file of limits: one line is added for each account that an order concerned.
//!
//! ```text
//! 5d10b2f4 {"format":2,"ve":101,"epoch":9,"size":4711}                                 the head
//! 9f3a01c7 {"epoch":12,"subject":{"user":1000},"limits":{...},"deadlines":{...}}       one account
//! ```
//! Invariants:
//! 1. A line is durable when [`LimitsLog::append`] returns. What follows the last whole line is one that was never
//!    acknowledged, or damage: whoever reads it names it, whoever adds a line removes it.
//! 2. The last line of an account counts; one without limits and deadlines says that it has none.
//! 3. When the file has grown to twice the size named in its head, and 64 KiB, it is replaced by one with a line for
//!    each account: so a line costs the same however many there are, and the file is bounded by what it says.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::subject::VeId;

use super::super::{StoreError, identity, sync_file};
use super::{AccountCopy, FORMAT, LIMITS, LimitsCopy, check_format, line};

/// The largest file that is read: far above any real one.
const MAX_LEN: u64 = 1 << 30;
/// Growth that is never worth a replacement.
const SLACK: u64 = 64 << 10;
/// Longer than any line.
const MAX_LINE: u64 = 4096;

/// The first line.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Head {
    format: u8,
    ve: VeId,
    /// The last commit of all lines that the file was made of.
    epoch: u64,
    /// Bytes of the file when it was made.
    size: u64,
}

/// Any other line.
#[derive(Serialize, Deserialize)]
struct Line {
    epoch: u64,
    #[serde(flatten)]
    account: AccountCopy,
}

/// The file, open while it works.
pub(in crate::store) struct LimitsLog {
    path: PathBuf,
    ve: VeId,
    open: Option<Open>,
}

struct Open {
    file: File,
    len: u64,
    /// The length at which it is replaced.
    full: u64,
}

impl LimitsLog {
    pub(in crate::store) fn new(dir: &Path, ve: VeId) -> Self {
        Self {
            path: dir.join(LIMITS),
            ve,
            open: None,
        }
    }

    /// Adds what an order made of these accounts.
    pub(in crate::store) fn append(
        &mut self,
        epoch: u64,
        accounts: &[AccountCopy],
    ) -> Result<(), StoreError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let mut lines = Vec::new();
        for &account in accounts {
            lines.extend(self.sealed(&Line { epoch, account })?);
        }
        open.add(&lines).map_err(|error| {
            // A part of it may be there; what is left is found when the file is opened again.
            let _ = open.file.set_len(open.len);
            StoreError::io("write", &self.path, error)
        })?;
        if open.len < open.full {
            self.open = Some(open);
        } else if let Err(error) = self.compact() {
            tracing::warn!(path = %self.path.display(), %error, "the copy of limits grows on");
            open.full = open.len.saturating_mul(2);
            self.open = Some(open);
        }
        Ok(())
    }

    /// Replaces the file by one that says just this.
    pub(in crate::store) fn replace(&mut self, copy: &LimitsCopy) -> Result<(), StoreError> {
        self.open = None;
        let epoch = copy.epoch;
        let mut lines = Vec::new();
        for &account in copy.accounts.values() {
            lines.extend(self.sealed(&Line { epoch, account })?);
        }
        let head = Head {
            format: FORMAT,
            ve: self.ve,
            epoch,
            size: length(&lines),
        };
        let mut text = self.sealed(&head)?;
        text.append(&mut lines);
        sync_file::replace(&self.path, &text)
    }

    /// Opens the file behind its last whole line; makes it where it cannot be added to.
    fn open(&self) -> Result<Open, StoreError> {
        let io = |error| StoreError::io("open", &self.path, error);
        let head = match head(&self.path)? {
            Some(head) => head,
            None => {
                Self::new(self.dir(), self.ve).compact()?;
                let damaged = || StoreError::damaged_file("no head", &self.path);
                head(&self.path)?.ok_or_else(damaged)?
            }
        };
        identity::check(self.ve, head.ve)?;
        let mut options = File::options();
        let mut file = options
            .read(true)
            .append(true)
            .open(&self.path)
            .map_err(io)?;
        let len = whole_lines(&mut file).map_err(io)?;
        file.set_len(len).map_err(io)?;
        let full = head.size.saturating_mul(2).saturating_add(SLACK);
        Ok(Open { file, len, full })
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        let mut copy = LimitsCopy::default();
        read(&self.path, self.ve, &mut copy)?;
        for damage in &copy.damaged {
            tracing::warn!(damage, "the copy of limits was damaged");
        }
        self.replace(&copy)
    }

    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    fn sealed(&self, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
        line::seal(value).map_err(|error| StoreError::io("write", &self.path, error.into()))
    }
}

impl Open {
    fn add(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)?;
        self.file.sync_data()?;
        self.len = self.len.saturating_add(length(lines));
        Ok(())
    }
}

/// Reads the file into a copy; whether there is one. Damage goes into the copy.
pub(super) fn read(path: &Path, ve: VeId, copy: &mut LimitsCopy) -> Result<bool, StoreError> {
    let Some(text) = sync_file::read(path, MAX_LEN)? else {
        return Ok(false);
    };
    let mut lines = text.split_inclusive(|byte| *byte == b'\n').enumerate();
    match lines.next().and_then(|(_, first)| head_in(first)) {
        Some(head) => {
            let head = head?;
            identity::check(ve, head.ve)?;
            copy.epoch = copy.epoch.max(head.epoch);
        }
        None => copy.damaged.push(named(path, 0)),
    }
    for (number, text) in lines {
        match line_in(text.strip_suffix(b"\n").unwrap_or(text)) {
            Some(line) => {
                copy.epoch = copy.epoch.max(line.epoch);
                copy.set(line.account);
            }
            None => copy.damaged.push(named(path, number)),
        }
    }
    Ok(true)
}

/// The last commit that the file knows of, from its ends alone; `None` where they do not say.
pub(in crate::store) fn newest(dir: &Path, ve: VeId) -> Result<Option<u64>, StoreError> {
    let path = dir.join(LIMITS);
    let Some(head) = head(&path)? else {
        return Ok(None);
    };
    identity::check(ve, head.ve)?;
    let ends = File::open(&path).and_then(|mut file| tail(&mut file, MAX_LINE));
    let (_, tail) = ends.map_err(|error| StoreError::io("read", &path, error))?;
    let lines = tail.split(|byte| *byte == b'\n').filter_map(line_in);
    Ok(lines.map(|line| line.epoch).chain([head.epoch]).max())
}

/// The head of the file; `None` where there is no file, or none with a sound head.
fn head(path: &Path) -> Result<Option<Head>, StoreError> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_LINE).read_to_end(&mut start));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path, error)),
        Ok(_) => {}
    }
    let first = start.split_inclusive(|byte| *byte == b'\n').next();
    first.and_then(head_in).transpose()
}

/// The length of the file up to the end of its last whole line.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut window = MAX_LINE;
    loop {
        let (start, tail) = tail(file, window)?;
        match tail.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => {
                let whole = tail.get(..=at).unwrap_or_default();
                return Ok(start.saturating_add(length(whole)));
            }
            None if start == 0 => return Ok(0),
            None => window = window.saturating_mul(16),
        }
    }
}

/// At most this many bytes of the end of the file, and where they begin.
fn tail(file: &mut File, window: u64) -> io::Result<(u64, Vec<u8>)> {
    let start = file.metadata()?.len().saturating_sub(window);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(window).read_to_end(&mut tail)?;
    Ok((start, tail))
}

fn head_in(text: &[u8]) -> Option<Result<Head, StoreError>> {
    let json = line::open(text.strip_suffix(b"\n")?)?;
    match check_format(json)? {
        Ok(()) => serde_json::from_slice(json).ok().map(Ok),
        Err(error) => Some(Err(error)),
    }
}

fn line_in(text: &[u8]) -> Option<Line> {
    serde_json::from_slice(line::open(text)?).ok()
}

fn named(path: &Path, number: usize) -> String {
    format!("line {} of {}", number.saturating_add(1), path.display())
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

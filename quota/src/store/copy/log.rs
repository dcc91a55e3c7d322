//! The file of limits: one line is added for each account that an order concerned.
//!
//! ```text
//! 5d10b2f4 {"format":2,"ve":101,"epoch":9,"size":4711}                                 the head
//! 9f3a01c7 {"epoch":12,"subject":{"user":1000},"limits":{...},"deadlines":{...}}       one account
//! 31c8e2aa {"lines":1}                                                                 the end: lines between it and the head
//! ```
//! Invariants:
//! 1. A line is durable when [`LimitsLog::append`] returns. It takes the place of the end, and a new end follows it: so a
//!    file that was cut off anywhere is told from a whole one. One without its end holds a line that was never
//!    acknowledged, or is damaged: whoever reads it says so, whoever adds a line makes it anew.
//! 2. The last line of an account counts; one without limits and deadlines says that it has none.
//! 3. When the file has grown to twice the size named in its head, and 64 KiB, it is replaced by one with a line for
//!    each account: so a line costs the same however many there are, and the file is bounded by what it says.
//! 4. Files of format 2 have no end.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::subject::VeId;

use super::super::{StoreError, identity, sync_file};
use super::{AccountCopy, FORMAT, LIMITS, LimitsCopy, check_format, line};

/// The largest file that is read: far above any real one.
const MAX_LEN: u64 = 1 << 30;
/// Growth that is never worth a replacement.
const SLACK: u64 = 64 << 10;
/// Longer than any two lines.
const MAX_LINE: u64 = 4096;
/// The first format with an end.
const FORMAT_WITH_END: u8 = 3;

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

/// The last line.
#[derive(Serialize, Deserialize)]
struct End {
    /// How many lines stand between the head and it.
    lines: u64,
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
    /// Where the end is.
    len: u64,
    /// What it says.
    lines: u64,
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
        let end = End {
            lines: open.lines.saturating_add(number(accounts)),
        };
        open.add(lines, &end).map_err(|error| {
            // A part of it may be there; where the end cannot be put back, the file is made anew when it is opened again.
            let _ = open.put_back();
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
        let end = End {
            lines: number(copy.accounts.values()),
        };
        let mut text = self.sealed(&head)?;
        text.append(&mut lines);
        text.extend(self.sealed(&end)?);
        sync_file::replace(&self.path, &text)
    }

    /// Opens the file; makes it anew where it cannot be added to.
    fn open(&self) -> Result<Open, StoreError> {
        let found = match self.open_whole()? {
            Some(open) => Some(open),
            None => {
                Self::new(self.dir(), self.ve).compact()?;
                self.open_whole()?
            }
        };
        found.ok_or_else(|| StoreError::damaged_file("no head, or no end", &self.path))
    }

    /// Opens the file; `None` where its head or its end is not there.
    fn open_whole(&self) -> Result<Option<Open>, StoreError> {
        let io = |error| StoreError::io("open", &self.path, error);
        let Some(head) = head(&self.path)? else {
            return Ok(None);
        };
        identity::check(self.ve, head.ve)?;
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .open(&self.path)
            .map_err(io)?;
        let end = end(&mut file).map_err(io)?;
        Ok(end.map(|(len, end)| Open {
            file,
            len,
            lines: end.lines,
            full: head.size.saturating_mul(2).saturating_add(SLACK),
        }))
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
    /// Puts lines and a new end in the place of the end.
    fn add(&mut self, mut lines: Vec<u8>, end: &End) -> io::Result<()> {
        let added = length(&lines);
        lines.extend(line::seal(end)?);
        self.file.write_all_at(&lines, self.len)?;
        self.file.sync_data()?;
        self.len = self.len.saturating_add(added);
        self.lines = end.lines;
        Ok(())
    }

    /// Takes lines away that were not added as a whole.
    fn put_back(&mut self) -> io::Result<()> {
        let end = line::seal(&End { lines: self.lines })?;
        self.file.write_all_at(&end, self.len)?;
        self.file.set_len(self.len.saturating_add(length(&end)))
    }
}

/// Reads the file into a copy; whether there is one. Damage goes into the copy.
pub(super) fn read(path: &Path, ve: VeId, copy: &mut LimitsCopy) -> Result<bool, StoreError> {
    let Some(text) = sync_file::read(path, MAX_LEN)? else {
        return Ok(false);
    };
    let mut lines = text.split_inclusive(|byte| *byte == b'\n').enumerate();
    let mut has_end = true;
    match lines.next().and_then(|(_, first)| head_in(first)) {
        Some(head) => {
            let head = head?;
            identity::check(ve, head.ve)?;
            copy.epoch = copy.epoch.max(head.epoch);
            has_end = head.format >= FORMAT_WITH_END;
        }
        None => copy.damaged.push(named(path, 0)),
    }
    let (mut found, mut told) = (0_u64, None);
    let mut unsound = Vec::new();
    for (number, text) in lines {
        if let Some(end) = end_in(text) {
            told = Some(end.lines);
            continue;
        }
        told = None;
        found = found.saturating_add(1);
        match line_in(text) {
            Some(line) => {
                copy.epoch = copy.epoch.max(line.epoch);
                copy.set(line.account);
            }
            None => unsound.push(number),
        }
    }
    let is_whole = !has_end || told == Some(found);
    if !is_whole {
        // What stands in the place of the end.
        let _torn = unsound.pop_if(|number| told.is_none() && is_last(*number, found));
    }
    copy.damaged
        .extend(unsound.into_iter().map(|number| named(path, number)));
    if !is_whole {
        let path = path.display();
        copy.damaged.push(format!("lines at the end of {path}"));
    }
    Ok(true)
}

/// Whether a line is the last of so many behind the head.
fn is_last(number: usize, found: u64) -> bool {
    u64::try_from(number).is_ok_and(|number| number >= found)
}

/// The last commit that the file knows of, from its ends alone; `None` where they do not say, or are not whole.
pub(in crate::store) fn newest(dir: &Path, ve: VeId) -> Result<Option<u64>, StoreError> {
    let path = dir.join(LIMITS);
    let Some(head) = head(&path)? else {
        return Ok(None);
    };
    identity::check(ve, head.ve)?;
    let failed = |error| StoreError::io("read", &path, error);
    let mut file = File::open(&path).map_err(failed)?;
    if head.format >= FORMAT_WITH_END && end(&mut file).map_err(failed)?.is_none() {
        return Ok(None);
    }
    let (_, tail) = tail(&mut file).map_err(failed)?;
    let lines = tail
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(line_in);
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

/// The end of the file, and where it begins; `None` where the file does not end in one.
fn end(file: &mut File) -> io::Result<Option<(u64, End)>> {
    let (start, tail) = tail(file)?;
    let Some(last) = tail.split_inclusive(|byte| *byte == b'\n').next_back() else {
        return Ok(None);
    };
    let at = start.saturating_add(length(&tail).saturating_sub(length(last)));
    Ok(end_in(last).map(|end| (at, end)))
}

/// The last bytes of the file, longer than any line, and where they begin.
fn tail(file: &mut File) -> io::Result<(u64, Vec<u8>)> {
    let start = file.metadata()?.len().saturating_sub(MAX_LINE);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(MAX_LINE).read_to_end(&mut tail)?;
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
    serde_json::from_slice(line::open(text.strip_suffix(b"\n")?)?).ok()
}

fn end_in(text: &[u8]) -> Option<End> {
    serde_json::from_slice(line::open(text.strip_suffix(b"\n")?)?).ok()
}

fn named(path: &Path, number: usize) -> String {
    format!("line {} of {}", number.saturating_add(1), path.display())
}

fn number<T>(items: impl IntoIterator<Item = T>) -> u64 {
    u64::try_from(items.into_iter().count()).unwrap_or(u64::MAX)
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

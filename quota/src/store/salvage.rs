//! Mending a damaged store: keep the damaged files, save what is readable, fill in limits from their copy.
//!
//! The crash cases (each step is durable before the next):
//! 1. before the database is moved aside: nothing happened;
//! 2. after it: the identity stands without a database, which is damage; salvage runs again, and reads the database
//!    that was moved aside last;
//! 3. while the new database is built (under another name): as 2;
//! 4. after it got the database's name: done.
//!
//! What was saved and what was lost is also written beside the database that was moved aside, for [`told`]: whoever has read
//! it, and set again what was lost, removes both.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::grace::Deadlines;
use crate::limit::{Limit, Limits};
use crate::standing::Standing;
use crate::subject::{QuotaType, Subject, VeId};
use crate::units::{Bytes, Inodes};

use super::copy::AccountCopy;
use super::copy::files::CopyFiles;
use super::dir::{ASIDE, DATABASE, free_aside, last_aside, move_aside, take_existing};
use super::record::{self, AccountRecord, InfoRecord, key, schema_batch};
use super::redb::Database;
use super::rescue::{self, Gap};
use super::worker::{Options, Worker};
use super::{Batch, LimitsCopy, Store as _, StoreError, identity, sync_file};

/// Where the new database is built.
const BUILD: &str = "quota.redb.new";
/// What the names of reports end with.
const REPORT: &str = ".report";
/// The longest report that is read.
const MAX_REPORT: u64 = 1 << 20;
/// A damaged database may hang instead of failing: then the process ends.
const TIME_LIMIT: Duration = Duration::from_secs(300);
/// Added to the epoch, so that no journal of before the damage fits the new totals.
const EPOCH_STEP: u64 = 1 << 32;

/// What a salvage did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvage {
    /// Where the damaged database is kept; `None` when there was none.
    pub moved_to: Option<PathBuf>,
    /// Records copied from the damaged database.
    pub recovered: u64,
    /// Limits restored from their copy.
    pub from_copy: Vec<Subject>,
    /// What could not be saved, in words.
    pub lost: Vec<String>,
    /// Whose limits are lost, or may be: neither the database nor the copy says.
    pub lost_limits: Vec<String>,
    /// Whether usage may be wrong: recount. Always so after a salvage, as the end of a log may be lost in silence.
    pub usage_unknown: bool,
}

impl Salvage {
    /// What was done and what was lost, a line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "the quota store was damaged and is mended: {} records saved, limits of {} restored from their copy",
            self.recovered,
            match self.from_copy.len() {
                1 => "1 account".to_owned(),
                number => format!("{number} accounts"),
            }
        )];
        if let Some(kept) = &self.moved_to {
            lines.push(format!(
                "the damaged database is kept in {}",
                kept.display()
            ));
        }
        lines.extend(
            self.lost
                .iter()
                .map(|lost| format!("could not be read: {lost}")),
        );
        let limits = self.lost_limits.iter();
        lines.extend(limits.map(|whose| format!("limits are lost: {whose}: set them again")));
        lines
    }
}

/// The reports of earlier salvages that are still in this directory: where each is, and its lines.
pub fn told(dir: &Path) -> Vec<(PathBuf, Vec<String>)> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = names
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(ASIDE) && name.ends_with(REPORT))
        })
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = sync_file::read(&path, MAX_REPORT).ok()??;
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().map(str::to_owned).collect();
        Some((path, lines))
    };
    paths.into_iter().filter_map(read).collect()
}

/// Mends the store in this directory, which nobody may hold. Afterwards it can be opened.
///
/// # Errors
/// [`StoreError::Missing`], [`StoreError::Held`], [`StoreError::ForeignVe`], [`StoreError::NewerFormat`] (nothing is
/// touched then), [`StoreError::NoSpace`], [`StoreError::Io`]; [`StoreError::Damaged`] when neither the database nor
/// the copy says where the private area is, so that only a new `vzquota init` helps.
pub fn salvage(dir: &Path, ve: VeId) -> Result<Salvage, StoreError> {
    let _lock = take_existing(dir)?;
    let worker = Worker::start(TIME_LIMIT, Options::default().on_hang)
        .map_err(|error| StoreError::io("start a thread for", dir, error))?;
    let dir = dir.to_path_buf();
    worker.run("salvage", move || salvage_held(&dir, ve))?
}

fn salvage_held(dir: &Path, ve: VeId) -> Result<Salvage, StoreError> {
    let mut report = Salvage {
        moved_to: None,
        recovered: 0,
        from_copy: Vec::new(),
        lost: Vec::new(),
        lost_limits: Vec::new(),
        usage_unknown: true,
    };
    check_identity(dir, ve, &mut report)?;
    let copy = read_copy(dir, ve, &mut report)?;
    report.moved_to = if dir.join(DATABASE).exists() {
        move_aside(dir)?
    } else {
        last_aside(dir)?
    };
    let mut found = Found::default();
    match report.moved_to.clone() {
        Some(aside) => rescue(&aside, ve, copy.as_ref(), &mut found, &mut report),
        None => found
            .gaps
            .push(Gap::everything("there is no database".into())),
    }
    report.recovered = found.len();
    if report.recovered == 0 {
        report.lost.push("all records of the database".into());
    }
    if let Some(copy) = &copy {
        found.fill_from(copy, &mut report);
    }
    found.name_lost_limits(copy.as_ref(), &mut report);
    let mended = found.copy();
    let batch = found.into_batch(ve).ok_or_else(|| {
        let what = "no readable settings are left: set the quota up again, with 'vzquota drop' and 'vzquota init'";
        StoreError::damaged_file(what, dir)
    })?;
    build(dir, &batch)?;
    CopyFiles::new(dir, ve).replace(&mended)?;
    identity::write(dir, ve)?;
    keep(dir, &report)?;
    Ok(report)
}

/// Writes the report beside what was moved aside.
fn keep(dir: &Path, report: &Salvage) -> Result<(), StoreError> {
    let aside = match &report.moved_to {
        Some(aside) => aside.clone(),
        None => free_aside(dir),
    };
    let mut path = aside.into_os_string();
    path.push(REPORT);
    let text = report.lines().join("\n") + "\n";
    sync_file::replace(Path::new(&path), text.as_bytes())
}

/// What is known of the VE.
#[derive(Default)]
struct Found {
    info: Option<InfoRecord>,
    accounts: BTreeMap<Subject, AccountRecord>,
    /// Accounts whose record is damaged.
    unreadable: Vec<Subject>,
    /// Where records cannot be read at all.
    gaps: Vec<Gap>,
}

impl Found {
    fn len(&self) -> u64 {
        let records = self
            .accounts
            .len()
            .saturating_add(usize::from(self.info.is_some()));
        u64::try_from(records).unwrap_or(u64::MAX)
    }

    /// Takes limits from the copy: those that were not found, and all of them where the database lost the commit
    /// that the copy was made after. Where the copy has damage too, what only the database has is kept.
    fn fill_from(&mut self, copy: &LimitsCopy, report: &mut Salvage) {
        let is_behind = self
            .info
            .as_ref()
            .is_none_or(|info| info.epoch < copy.epoch);
        if is_behind {
            self.info = copy.info.clone().or(self.info.take());
        }
        if is_behind && copy.is_whole {
            for account in self.accounts.values_mut() {
                account.limits = Limits::UNLIMITED;
                account.deadlines = Deadlines::default();
            }
        }
        if let Some(info) = &mut self.info {
            info.epoch = info.epoch.max(copy.epoch);
        }
        for (&subject, kept) in &copy.accounts {
            if is_behind || !self.accounts.contains_key(&subject) {
                let account = self.accounts.entry(subject).or_default();
                account.limits = kept.limits;
                account.deadlines = kept.deadlines;
                report.from_copy.push(subject);
            }
        }
    }

    /// Names the accounts whose limits nobody knows any more. A VE among them gets limits that allow nothing: it can be
    /// started, and never runs without limits that it had.
    fn name_lost_limits(&mut self, copy: Option<&LimitsCopy>, report: &mut Salvage) {
        if copy.is_some_and(|copy| copy.is_whole) {
            // Whoever is not in it has none.
            self.accounts.entry(Subject::Ve).or_default();
            return;
        }
        let unreadable = self.unreadable.iter();
        let unreadable = unreadable.filter(|subject| !self.accounts.contains_key(subject));
        let mut lost: Vec<_> = unreadable.map(ToString::to_string).collect();
        for kind in QuotaType::ALL {
            let ids = self.gaps.iter().filter_map(|gap| gap.ids(kind));
            lost.extend(ids.map(|(first, last)| {
                let (first, last) = (kind.subject(first), kind.subject(last));
                format!("{first} to {last}, as far as they had any")
            }));
        }
        let is_ve_lost = !self.accounts.contains_key(&Subject::Ve);
        if is_ve_lost {
            let nothing = AccountRecord {
                limits: Limits {
                    space: Limit::new(Some(Bytes::ZERO), Some(Bytes::ZERO)),
                    inodes: Limit::new(Some(Inodes::ZERO), Some(Inodes::ZERO)),
                },
                ..AccountRecord::default()
            };
            self.accounts.insert(Subject::Ve, nothing);
            lost.retain(|whose| *whose != Subject::Ve.to_string());
            let whose =
                "the VE as a whole, which may use no more until 'vzquota setlimit' says how much";
            lost.insert(0, whose.into());
        }
        report.lost_limits = lost;
    }

    /// The copy that goes with the new database.
    fn copy(&self) -> LimitsCopy {
        let accounts = self.accounts.iter();
        let accounts = accounts.map(|(&subject, record)| AccountCopy::new(subject, record));
        LimitsCopy {
            epoch: self.info.as_ref().map_or(0, |info| info.epoch),
            info: self.info.clone(),
            accounts: accounts
                .filter(AccountCopy::is_worth_keeping)
                .map(|account| (account.subject, account))
                .collect(),
            is_whole: true,
            damaged: Vec::new(),
        }
    }

    /// The content of the new database; `None` when the settings are unknown.
    fn into_batch(self, ve: VeId) -> Option<Batch> {
        let mut batch = schema_batch(ve);
        let mut info = self.info?;
        info.epoch = info.epoch.saturating_add(EPOCH_STEP);
        let key = key::info();
        batch.put(key.clone(), record::encode(&key, &info));
        let key = key::standing();
        let unknown = record::encode(&key, &Standing::Unknown { session: 0 });
        batch.put(key, unknown);
        for (subject, account) in &self.accounts {
            let key = key::account(*subject);
            batch.put(key.clone(), record::encode(&key, account));
        }
        Some(batch)
    }
}

fn check_identity(dir: &Path, ve: VeId, report: &mut Salvage) -> Result<(), StoreError> {
    match identity::read(dir) {
        Ok(Some(found)) => identity::check(ve, found),
        Ok(None) | Err(StoreError::Damaged { .. }) => {
            report.lost.push("the identity file".into());
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn read_copy(dir: &Path, ve: VeId, report: &mut Salvage) -> Result<Option<LimitsCopy>, StoreError> {
    let copy = LimitsCopy::read(dir, ve)?;
    let damaged = copy.iter().flat_map(|copy| &copy.damaged).cloned();
    report.lost.extend(damaged);
    Ok(copy)
}

/// Takes every sound record that can be read of the damaged database.
fn rescue(
    aside: &Path,
    ve: VeId,
    copy: Option<&LimitsCopy>,
    found: &mut Found,
    report: &mut Salvage,
) {
    let expected = copy.iter().flat_map(|copy| copy.accounts.keys());
    let expected = expected.map(|&subject| key::account(subject));
    let read = rescue::each_readable(aside, expected, &mut |key, value| {
        rescue_entry(key, value, ve, found, report);
    });
    found.gaps = match read {
        Ok(gaps) => {
            report.lost.extend(gaps.iter().map(ToString::to_string));
            gaps
        }
        Err(error) => {
            report.lost.push(format!("the database: {error}"));
            vec![Gap::everything(error.to_string())]
        }
    };
}

fn rescue_entry(key: &[u8], value: &[u8], ve: VeId, found: &mut Found, report: &mut Salvage) {
    if key == key::schema() || key == key::standing() {
        return;
    }
    let subject = key::subject(key);
    let info = record::decode::<InfoRecord>(key, value)
        .ok()
        .filter(|info| info.ve == ve);
    match (subject, record::decode::<AccountRecord>(key, value), info) {
        (Some(subject), Ok(account), _) => {
            found.accounts.insert(subject, account);
        }
        (None, _, Some(info)) if key == key::info() => found.info = Some(info),
        _ => {
            found.unreadable.extend(subject);
            let name = subject.map(|subject| subject.to_string());
            let name = name.unwrap_or_else(|| format!("key {}", key.escape_ascii()));
            report.lost.push(format!("the record of {name}"));
        }
    }
}

/// Builds the new database and gives it its name; durable when it returns.
fn build(dir: &Path, batch: &Batch) -> Result<(), StoreError> {
    let path = dir.join(BUILD);
    remove(&path)?;
    let db = Database::create(&path)?;
    db.commit(batch)?;
    drop(db);
    let database = dir.join(DATABASE);
    fs::rename(&path, &database).map_err(|error| StoreError::io("rename", &path, error))?;
    sync_file::sync_dir(dir)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

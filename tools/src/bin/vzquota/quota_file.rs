//! Quota files of the Linux quota tools: the limits of all users or groups, out of a VE and into one.
//!
//! An import takes limits, periods and running deadlines; usage stays what the VE really uses, and ids that the file
//! does not name stay as they are. So a second import changes nothing, and an interrupted one can be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use quota::store::copy::AccountCopy;
use quota::vfsv1::{self, QuotaFile, QuotaFileEntry};
use quota::{Account, Deadlines, Limits, QuotaType, Scope, Subject};
use simfs::control::Request;
use simfs::control::protocol::ACCOUNTS_PER_ORDER;
use simfs_tools::exit::{Failure, VzquotaExit};
use simfs_tools::report::kind_word;
use simfs_tools::ve_handle::{VeError, VeHandle};

use crate::args::QuotaFileArgs;
use crate::limits::warn_below_usage;
use crate::{Context, Outcome, usage, ve_failure};

/// `export-quota-file`.
pub(crate) fn export(context: &Context, args: &QuotaFileArgs) -> Outcome {
    let kind = kind(args)?;
    let mut handle = VeHandle::open(&context.paths, context.ve).map_err(ve_failure)?;
    let accounts = handle.accounts(kind).map_err(ve_failure)?;
    let file = QuotaFile {
        kind,
        grace: handle
            .info()
            .map_err(ve_failure)?
            .grace_periods(Scope::from(kind)),
        entries: accounts.iter().map(entry).collect(),
    };
    replace(&args.file, &vfsv1::write(&file)).map_err(|error| unusable(&args.file, error))?;
    context.tell(&format!("{} {}s written", accounts.len(), kind_word(kind)));
    Ok(VzquotaExit::Ok)
}

/// `import-quota-file`.
pub(crate) fn import(context: &Context, args: &QuotaFileArgs) -> Outcome {
    let kind = kind(args)?;
    let bytes = fs::read(&args.file).map_err(|error| unusable(&args.file, error))?;
    let file =
        vfsv1::read(&bytes).map_err(|error| usage(format!("{}: {error}", args.file.display())))?;
    if file.kind != kind {
        return Err(usage(format!(
            "{} is a file of {}s: give the other of -u and -g",
            args.file.display(),
            kind_word(file.kind)
        )));
    }
    let mut handle = VeHandle::open(&context.paths, context.ve).map_err(ve_failure)?;
    let changed = take_over(context, &mut handle, &file).map_err(ve_failure)?;
    context.tell(&format!(
        "{} {}s read, {changed} changed",
        file.entries.len(),
        kind_word(kind)
    ));
    Ok(VzquotaExit::Ok)
}

fn kind(args: &QuotaFileArgs) -> Result<QuotaType, Failure<VzquotaExit>> {
    match (args.user, args.group) {
        (true, false) => Ok(QuotaType::User),
        (false, true) => Ok(QuotaType::Group),
        _ => Err(usage(
            "say whose limits: give -u for users or -g for groups",
        )),
    }
}

fn entry(account: &Account) -> QuotaFileEntry {
    QuotaFileEntry {
        id: match account.subject {
            Subject::User(uid) => uid.get(),
            Subject::Group(gid) => gid.get(),
            Subject::Ve => 0,
        },
        limits: account.limits,
        usage: account.usage,
        deadlines: account.deadlines,
    }
}

/// Periods first: limits start timers with them. Deadlines last: they count only while a timer runs. Returns how many
/// accounts changed.
fn take_over(context: &Context, handle: &mut VeHandle, file: &QuotaFile) -> Result<usize, VeError> {
    handle.order(&Request::SetGracePeriods {
        scope: Scope::from(file.kind),
        space: Some(file.grace.space),
        inodes: Some(file.grace.inodes),
    })?;
    let present: BTreeMap<_, _> = handle
        .accounts(file.kind)?
        .into_iter()
        .map(|account| (account.subject, (account.limits, account.deadlines)))
        .collect();
    let wanted = file.entries.iter().map(|entry| AccountCopy {
        subject: file.kind.subject(entry.id),
        limits: entry.limits,
        deadlines: entry.deadlines,
    });
    let differs = |wanted: &AccountCopy| {
        let unused = (Limits::UNLIMITED, Deadlines::NONE);
        let (limits, deadlines) = present.get(&wanted.subject).copied().unwrap_or(unused);
        limits != wanted.limits
            || (wanted.deadlines != deadlines && wanted.deadlines != Deadlines::NONE)
    };
    let wanted: Vec<_> = wanted.filter(differs).collect();
    for part in wanted.chunks(ACCOUNTS_PER_ORDER) {
        handle.order(&Request::SetAccounts(part.to_vec()))?;
    }
    let changed: BTreeSet<_> = wanted.iter().map(|account| account.subject).collect();
    for account in handle.accounts(file.kind)? {
        if changed.contains(&account.subject) {
            warn_below_usage(context, &account);
        }
    }
    Ok(changed.len())
}

/// Writes a file whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let unfinished = PathBuf::from(name);
    let written = File::create(&unfinished)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&unfinished, path));
    written.inspect_err(|_| {
        // The first failure is the one to tell.
        let _ = fs::remove_file(&unfinished);
    })
}

fn unusable(path: &Path, error: io::Error) -> Failure<VzquotaExit> {
    Failure::new(VzquotaExit::System, format!("{}: {error}", path.display()))
}

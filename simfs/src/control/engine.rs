//! Requests that need nothing but the quota engine; the same answers serve a running VE and a stored one.

use quota::{Engine, EngineError, QuotaType, Subject};

use super::protocol::{ACCOUNTS_PER_PAGE, ErrorKind, Reply, Request, RequestError};

/// The engine's answer; `None` for a request that needs the mount.
pub fn engine_reply(engine: &Engine, request: Request) -> Option<Reply> {
    let done = match request {
        Request::Status
        | Request::Check { .. }
        | Request::Recount { .. }
        | Request::Stop { .. }
        | Request::Upgrade => return None,
        Request::Info => return Some(Reply::Info(engine.info())),
        Request::Account(subject) => {
            return Some(engine.account(subject).map_or_else(refusal, Reply::Account));
        }
        Request::Accounts { kind, from, max } => {
            return Some(page(engine, kind, from, max).unwrap_or_else(refusal));
        }
        Request::SetLimits { subject, change } => engine.set_limits(subject, &change),
        Request::SetAccounts(accounts) => engine.set_accounts(&accounts),
        Request::SetDeadlines {
            subject,
            space,
            inodes,
        } => engine.set_deadlines(subject, space, inodes),
        Request::SetGracePeriods {
            scope,
            space,
            inodes,
        } => engine.set_grace_periods(scope, space, inodes),
        Request::SetEnforced { scope, on } => engine.set_enforced(scope, on),
        Request::SetUgidLimit(count) => engine.set_ugid_limit(count),
        Request::SetPrivate(path) => engine.set_private(&path),
        Request::Commit => return Some(committed(engine)),
    };
    Some(done.map_or_else(refusal, |changed| Reply::Done {
        changed: changed.is_yes(),
    }))
}

fn committed(engine: &Engine) -> Reply {
    let dirty = engine.is_dirty();
    engine
        .commit()
        .map_or_else(refusal, |()| Reply::Done { changed: dirty })
}

/// At most a page of accounts, and where the next one begins.
fn page(engine: &Engine, kind: QuotaType, from: u32, max: usize) -> Result<Reply, EngineError> {
    let max = max.clamp(1, ACCOUNTS_PER_PAGE);
    let mut accounts = Vec::new();
    let mut at = Some(from);
    while let Some(id) = at
        && accounts.len() < max
    {
        let Some(account) = engine.next_account(kind, id)? else {
            at = None;
            break;
        };
        at = id_of(account.subject).checked_add(1);
        accounts.push(account);
    }
    Ok(Reply::Accounts { accounts, next: at })
}

const fn id_of(subject: Subject) -> u32 {
    match subject {
        Subject::Ve => 0,
        Subject::User(uid) => uid.get(),
        Subject::Group(gid) => gid.get(),
    }
}

fn refusal(error: EngineError) -> Reply {
    Reply::Error(request_error(&error))
}

/// What an engine's error is on the wire.
pub fn request_error(error: &EngineError) -> RequestError {
    let kind = match error {
        EngineError::NoRecord => ErrorKind::NoRecord,
        EngineError::SoftAboveHard { .. } | EngineError::PrivateNotUtf8(_) => ErrorKind::Invalid,
        _ => ErrorKind::Store,
    };
    RequestError::new(kind, error.to_string())
}

//! One VE's accounts, whether it runs or not.
//!
//! A running daemon owns the store and is asked through its socket; else the store itself is opened. Both answer the
//! same requests, so each command is written once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use quota::store::DiskStore;
use quota::store::StoreError;
use quota::{
    Account, Engine, EngineError, Environment, NoEvents, QuotaType, Subject, SystemClock, VeId,
    VeInfo,
};
use simfs::control::{
    Client, ClientError, ErrorKind, Progress, Reply, Request, RequestError, engine_reply, protocol,
};
use simfs::ve::remedy;
use thiserror::Error;

use crate::ending;
use crate::paths::Paths;

/// The way to a VE's accounts.
pub struct VeHandle {
    ve: VeId,
    state_dir: PathBuf,
    run_dir: PathBuf,
    way: Way,
}

enum Way {
    /// The daemon that serves the VE.
    Mounted(Client),
    /// The store of a VE that is not mounted; nobody else can open it meanwhile.
    Stored(Engine),
}

/// Why a VE's accounts cannot be reached or changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VeError {
    /// Nothing is known of the VE.
    #[error(
        "no quota record: make one with 'vzquota init {ve} -p PATH -b BSOFT -B BHARD -i ISOFT -I IHARD \
         -e BGRACE -n IGRACE'"
    )]
    NoRecord {
        /// The VE.
        ve: VeId,
    },
    /// Somebody holds the store and does not listen.
    #[error(
        "the quota store {} is held by another process that cannot be asked (a mount that starts or \
         ends, or another command): try again, or find it with 'fuser {0}/*'", dir.display()
    )]
    Held {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The store cannot be used.
    #[error("{error}{}", remedy(error))]
    Store {
        /// Why, and where.
        error: EngineError,
    },
    /// The daemon or the engine said no.
    #[error(transparent)]
    Refused(#[from] RequestError),
    /// The daemon cannot be asked.
    #[error("the mounted VE cannot be asked: {0}")]
    Daemon(ClientError),
    /// The answer was not one that fits.
    #[error("unexpected answer: tools and daemon differ in version: mount the VE anew")]
    Unexpected,
}

impl From<ClientError> for VeError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(error) => Self::Refused(error),
            error => Self::Daemon(error),
        }
    }
}

/// What an engine needs of its surroundings in a command.
pub fn environment() -> Environment {
    Environment {
        clock: Arc::new(SystemClock),
        events: Arc::new(NoEvents),
    }
}

impl VeHandle {
    /// The daemon if one listens, else the store. A daemon that starts or ends holds the store without listening: it is
    /// waited for, [`ending::PATIENCE`] at most.
    ///
    /// # Errors
    /// `NoRecord` for an unknown VE, `Held` for a store in use without a socket.
    pub fn open(paths: &Paths, ve: VeId) -> Result<Self, VeError> {
        let (state_dir, run_dir) = (paths.state_dir(ve), paths.run_dir(ve));
        let way = way(&state_dir, &run_dir, ve)?;
        Ok(Self {
            ve,
            state_dir,
            run_dir,
            way,
        })
    }

    /// The engine of a VE that no daemon serves.
    pub const fn stored(&self) -> Option<&Engine> {
        match &self.way {
            Way::Mounted(_) => None,
            Way::Stored(engine) => Some(engine),
        }
    }

    /// Asks the daemon or the engine. A daemon whose mount was just taken away is waited for, and the store asked then.
    ///
    /// # Errors
    /// What they refuse; requests that need a mount are refused by a stored VE.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, VeError> {
        self.ask_with_progress(request, &mut |_| {})
    }

    /// As [`VeHandle::ask`], and tells how far a daemon is until its answer comes.
    ///
    /// # Errors
    /// As [`VeHandle::ask`].
    pub fn ask_with_progress(
        &mut self,
        request: &Request,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Reply, VeError> {
        // From the first refusal on: what was under way then, such as a recount, may have taken long.
        let mut end = None;
        let mut is_late =
            || Instant::now() >= *end.get_or_insert_with(|| Instant::now() + ending::PATIENCE);
        let reply = loop {
            match &mut self.way {
                Way::Mounted(client) => match client.request_with_progress(request, progress) {
                    Err(error) if ending::is_end(&error) && !is_late() => {
                        thread::sleep(ending::RETRY);
                        self.way = way(&self.state_dir, &self.run_dir, self.ve)?;
                    }
                    answer => break answer?,
                },
                Way::Stored(engine) => {
                    break engine_reply(engine, request.clone()).unwrap_or_else(|| {
                        Reply::Error(RequestError::new(
                            ErrorKind::Unsupported,
                            "the VE is not mounted",
                        ))
                    });
                }
            }
        };
        match reply {
            Reply::Error(error) => Err(VeError::Refused(error)),
            reply => Ok(reply),
        }
    }

    /// Carries out an order; whether anything was different before.
    ///
    /// # Errors
    /// As [`VeHandle::ask`]; nothing changed then.
    pub fn order(&mut self, request: &Request) -> Result<bool, VeError> {
        match self.ask(request)? {
            Reply::Done { changed } => Ok(changed),
            _ => Err(VeError::Unexpected),
        }
    }

    /// What the record says of the VE as a whole.
    ///
    /// # Errors
    /// As [`VeHandle::ask`].
    pub fn info(&mut self) -> Result<VeInfo, VeError> {
        match self.ask(&Request::Info)? {
            Reply::Info(info) => Ok(info),
            _ => Err(VeError::Unexpected),
        }
    }

    /// One account.
    ///
    /// # Errors
    /// As [`VeHandle::ask`].
    pub fn account(&mut self, subject: Subject) -> Result<Account, VeError> {
        match self.ask(&Request::Account(subject))? {
            Reply::Account(account) => Ok(account),
            _ => Err(VeError::Unexpected),
        }
    }

    /// Every account of a kind that has usage or limits, sorted by id.
    ///
    /// # Errors
    /// As [`VeHandle::ask`].
    pub fn accounts(&mut self, kind: QuotaType) -> Result<Vec<Account>, VeError> {
        let mut all = Vec::new();
        let mut from = Some(0);
        while let Some(start) = from {
            let max = protocol::ACCOUNTS_PER_PAGE;
            let Reply::Accounts { accounts, next } = self.ask(&Request::Accounts {
                kind,
                from: start,
                max,
            })?
            else {
                return Err(VeError::Unexpected);
            };
            // A page that does not lead on would be asked for again for ever.
            from = next.filter(|next| *next > start);
            all.extend(accounts);
        }
        Ok(all)
    }
}

/// The daemon's socket or the store, whichever can be had.
fn way(state_dir: &Path, run_dir: &Path, ve: VeId) -> Result<Way, VeError> {
    let end = Instant::now() + ending::PATIENCE;
    loop {
        match Client::connect(run_dir) {
            Ok(client) => return Ok(Way::Mounted(client)),
            Err(ClientError::NotRunning) => {}
            Err(error) => return Err(VeError::Daemon(error)),
        }
        match open_store(state_dir, ve) {
            Err(VeError::Held { .. }) if Instant::now() < end => thread::sleep(ending::RETRY),
            opened => return opened.map(Way::Stored),
        }
    }
}

/// The engine of a VE that is not mounted.
///
/// # Errors
/// `NoRecord`, `Held`, or a store that cannot be used.
pub fn open_stored(paths: &Paths, ve: VeId) -> Result<Engine, VeError> {
    open_store(&paths.state_dir(ve), ve)
}

fn open_store(dir: &Path, ve: VeId) -> Result<Engine, VeError> {
    match dir.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(VeError::NoRecord { ve });
        }
        _ => {}
    }
    let opened = DiskStore::open(dir, ve)
        .map_err(EngineError::Store)
        .and_then(|store| Engine::open(Arc::new(store), environment()));
    opened.map_err(|error| store_failure(ve, dir, error))
}

/// What an error of opening, making or removing a store means for its VE.
pub(crate) fn store_failure(ve: VeId, dir: &Path, error: EngineError) -> VeError {
    match error {
        EngineError::NoRecord | EngineError::Store(StoreError::Missing { .. }) => {
            VeError::NoRecord { ve }
        }
        EngineError::Store(StoreError::Held { .. }) => VeError::Held { dir: dir.into() },
        error => VeError::Store { error },
    }
}

//! The accounts of a VE as its daemon opens them: its record, or without one a store that lives as long as the mount.

use std::io;
use std::sync::Arc;

use quota::store::salvage::salvage;
use quota::store::{self, DiskStore};
use quota::{Engine, EngineError, Environment, Scope, Setup};

use super::events::EventLog;
use super::{Config, StartError, recovery};
use crate::private::PrivateArea;

/// What the engine asks of the world.
fn environment(config: &Config) -> Environment {
    Environment {
        clock: Arc::new(quota::SystemClock),
        events: Arc::new(EventLog::new(config.ve)),
    }
}

/// The accounts of a mount without a record. They limit nothing; what is there already is counted while the VE runs.
pub(super) fn make_accounts(config: &Config) -> Result<(), StartError> {
    let dir = config.accounts_dir();
    // Of a mount that was killed, keeper and all.
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let step = format!("cannot remove {}", dir.display());
            return Err(StartError::step(step)(error));
        }
        _ => {}
    }
    let store = DiskStore::create(&dir, config.ve).map_err(EngineError::from)?;
    let setup = Setup::new(config.ve, &config.private);
    let engine = Engine::create(Arc::new(store), environment(config), setup)?;
    // No mount has this number, so none has ended well.
    Ok(engine.begin_service(0, true)?)
}

/// Starts a VE without a second level where the record says so. It is counted all the same.
pub(super) fn follow_ugid_limit(engine: &Engine) -> Result<(), StartError> {
    if engine.info().offers_second_level() {
        return Ok(());
    }
    for scope in [Scope::Users, Scope::Groups] {
        let _changed = engine.set_enforced(scope, false)?;
    }
    tracing::info!("no second level: the record's number of user and group ids is 0");
    Ok(())
}

/// Opens the accounts. A store that is damaged is mended first: what cannot be saved of it is counted anew, or named.
pub(super) fn open_engine(
    config: &Config,
    journal: &recovery::Service,
) -> Result<Engine, StartError> {
    let dir = config.accounts_dir();
    let open = || {
        let store = store::when_free(|| DiskStore::open(&dir, config.ve))?;
        Engine::open_journaled(Arc::new(store), environment(config), journal.journal())
    };
    let engine = match open() {
        Err(damage) if damage.is_damage() => {
            tracing::error!(ve = %config.ve, %damage, "mending the quota store");
            salvage(&dir, config.ve).map_err(|error| StartError::Daemon(error.to_string()))?;
            open()?
        }
        opened => opened?,
    };
    let recorded = engine.info().private;
    if recorded != config.private {
        return Err(StartError::OtherPrivate {
            recorded,
            given: config.private.clone(),
        });
    }
    Ok(engine)
}

/// A record that was made before its private area holds nothing, not even the root directory: then count what is there now.
pub(super) fn count_if_new(engine: &Engine, area: &PrivateArea) -> Result<(), StartError> {
    if !engine.account(quota::Subject::Ve)?.usage.inodes.is_zero() {
        return Ok(());
    }
    let counted = crate::scan::scan_at_rest(area, &mut ())
        .map_err(|error| StartError::Daemon(format!("cannot count the private area: {error}")))?;
    let _ = engine.replace_usage(&counted)?;
    Ok(())
}

//! What runs beside the workers: the housekeeper, the thread that waits for signals, and what a panic of any of them means.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::fs::Fs;
use crate::housekeeper::{COMMIT_INTERVAL, Housekeeper};
use crate::keeper::Link;
use crate::sys::fork;

use super::super::service::VeService;
use super::super::{KEEPER_IS_GONE, StartError};

/// Between two steps of looking at what a predecessor knew.
const INDEX_PAUSE: Duration = Duration::from_millis(1);

/// Keeps usage and totals up to date until it is stopped.
pub(super) fn start_housekeeper(
    fs: &Arc<Fs>,
    housekeeper: &Arc<Housekeeper>,
    service: &Arc<VeService>,
) -> Result<thread::JoinHandle<()>, StartError> {
    let (fs, housekeeper, service) = (fs.clone(), housekeeper.clone(), service.clone());
    let work = move || {
        // In small steps: requests come first.
        fs.nodes().index_rest(&mut || {
            thread::sleep(INDEX_PAUSE);
            true
        });
        fs.forget_the_rest();
        housekeeper.run(&mut || {
            let accounting = fs.accounting();
            let next = accounting.look_again(&mut |node| fs.forget_attributes(node.id()));
            service.note_loss();
            match accounting.engine().commit() {
                Ok(()) => {
                    service.note_commit(None);
                    next
                }
                Err(error) => {
                    tracing::error!(%error, "totals could not be committed; trying again");
                    service.note_commit(Some(error.to_string()));
                    Some(Instant::now() + COMMIT_INTERVAL)
                }
            }
        });
    };
    thread::Builder::new()
        .name("housekeeper".into())
        .stack_size(256 * 1024)
        .spawn(work)
        .map_err(StartError::step("cannot start a thread"))
}

/// A signal that asks for an end takes the mount away; the daemon ends when the last user is gone. The end of the keeper is
/// told by a signal too.
pub(super) fn stop_on_signal(link: Arc<Link>) -> io::Result<()> {
    let signals = fork::block_end_signals()?;
    thread::Builder::new()
        .name("signals".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            watch_keeper(&signals, &link);
            while let Ok(signal) = signals.wait() {
                if signal == fork::PARENT_ENDED {
                    note_keepers_end(&link);
                    continue;
                }
                tracing::info!(signal, "asked to end; unmounting");
                if link.unmount(false).is_err()
                    && let Err(error) = link.unmount(true)
                {
                    tracing::error!(%error, "cannot unmount");
                }
            }
        })?;
    Ok(())
}

fn watch_keeper(signals: &fork::EndSignals, link: &Link) {
    if let Err(error) = signals.tell_of_parents_end() {
        tracing::warn!(%error, "the end of the keeper will not be noticed");
    }
    // It may have ended before.
    note_keepers_end(link);
}

/// Anybody may send the signal: only what the link says counts.
fn note_keepers_end(link: &Link) {
    if link.is_cut() {
        tracing::error!("{}", KEEPER_IS_GONE);
    }
}

/// A thread that panics leaves its request unanswered and its locks in doubt: better a new daemon than half of one.
/// Threads that catch panics themselves serve administrators, not guests.
pub(super) fn abort_on_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        let thread = thread::current();
        let name = thread.name().unwrap_or_default();
        if !name.starts_with("control") && !name.starts_with("quotactl-") {
            std::process::abort();
        }
    }));
}

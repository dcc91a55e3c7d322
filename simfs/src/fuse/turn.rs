//! A request's way through the daemon: in by the gate, noted in the worker's slot, out after its answer.
//!
//! A request that was under way when daemons died is a suspect. After one crash it is served alone, so that what the next
//! crash is due to is certain; after [`CRASHES`] it is refused. Deaths that somebody else caused prove little: only after
//! [`KILLS`] of them, as a watchdog causes them when a request hangs, it is refused as well.

use std::cell::Cell;

use fuser::{Errno, INodeNo, Request};

use super::gate::Stay;
use super::replay::OnDetour;
use super::{Adapter, locality, node, opcode};
use crate::accounting::Caller;
use crate::fault;
use crate::shared::Flight;
use crate::shared::flights::{Asked, RESENT, Worker};

/// Deaths of the daemon's own fault after which a request is refused.
const CRASHES: u32 = 3;
/// Deaths by somebody else's hand after which a request is refused.
const KILLS: u32 = 16;

thread_local! {
    static WORKER: Cell<Option<Worker>> = const { Cell::new(None) };
}

/// A request being carried out; dropped when its answer is on the way.
#[must_use = "the request counts as answered once this is dropped"]
pub(super) struct Turn<'a> {
    flight: Flight<'a>,
    caller: Caller,
    /// These are dropped after the flight.
    _detour: Option<OnDetour<'a>>,
    _stay: Stay<'a>,
}

impl Turn<'_> {
    /// Who asks.
    pub(super) fn caller(&self) -> Caller {
        self.caller
    }

    /// What a successor is to know of the request.
    pub(super) fn flight(&self) -> &Flight<'_> {
        &self.flight
    }
}

impl Adapter {
    /// Begins a request, or refuses it.
    pub(super) fn turn(
        &self,
        req: &Request,
        opcode: u32,
        inode: INodeNo,
    ) -> Result<Turn<'_>, Errno> {
        let asked = Asked {
            unique: self.number_of(req.unique().0),
            opcode,
            node: node(inode),
            caller: Caller {
                uid: req.uid(),
                gid: req.gid(),
                pid: req.pid(),
            },
        };
        // The worker stays near those who ask.
        if let Some(callers) = &self.callers {
            locality::note(callers, req.pid());
        }
        let alone = asked.unique & RESENT != 0 && self.is_suspect(&asked)?;
        let stay = if alone {
            self.gate.enter_alone()
        } else {
            self.gate.enter()
        };
        let worker = self.worker().ok_or(Errno::EIO)?;
        let detour = match &self.detour {
            Some(detour) => Some(detour.take().map_err(|_| Errno::EIO)?),
            None => None,
        };
        let turn = Turn {
            _detour: detour,
            flight: self.shared.flights().begin(worker, asked),
            caller: asked.caller,
            _stay: stay,
        };
        fault::request(opcode::name(asked.opcode));
        Ok(turn)
    }

    /// Whether daemons crashed with this request under way; an error if that happened too often.
    fn is_suspect(&self, asked: &Asked) -> Result<bool, Errno> {
        let deaths = self.shared.suspects().deaths(asked.unique & !RESENT);
        if deaths.crashes >= CRASHES || deaths.kills >= KILLS {
            tracing::error!(
                unique = asked.unique & !RESENT,
                op = opcode::name(asked.opcode),
                node = %asked.node,
                uid = asked.caller.uid,
                gid = asked.caller.gid,
                pid = asked.caller.pid,
                crashes = deaths.crashes,
                kills = deaths.kills,
                "a request that daemons die of again and again is refused with EIO"
            );
            return Err(Errno::EIO);
        }
        Ok(deaths.crashes > 0)
    }

    /// The slot of this thread.
    fn worker(&self) -> Option<Worker> {
        let known = WORKER.get();
        if known.is_some() {
            return known;
        }
        let worker = self.shared.flights().enlist();
        if worker.is_none() {
            tracing::error!("more workers than slots");
        }
        WORKER.set(worker);
        worker
    }
}

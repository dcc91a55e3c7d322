//! What keeps an inode in being that loses its last name while it is open: a descriptor here and one in the keeper.
//!
//! The keeper's is deposited, and noted, before the name goes: at any moment after that a successor finds the inode. It may
//! find one whose name did not go after all; then it is withdrawn ([`super::adopt`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Fs;
use crate::fault;
use crate::keeper::DepositNumber;
use crate::node::{Node, NodeId, State};
use crate::shared::{Deposit, Hold};
use crate::sys::stat::FileKind;

/// Both descriptors.
#[derive(Debug)]
pub(super) struct Pin {
    pub(super) fd: Arc<OwnedFd>,
    /// `None` where the keeper took it not: then the inode is lost with the daemon.
    pub(super) deposit: Option<Deposit>,
}

impl Fs {
    /// A descriptor that keeps an open file in being when its last name goes.
    pub(super) fn pin_if_open(&self, node: &Node, state: &State) -> io::Result<Option<Pin>> {
        if state.open.is_none() {
            if node.kind() == FileKind::Directory {
                // To be at hand when the name is gone: see [`super::removed`].
                let _cached = self.nodes.descriptor(node);
            }
            return Ok(None);
        }
        let fd = self.nodes.descriptor(node)?;
        let deposit = match self.deposit(node, &fd) {
            Ok(deposit) => Some(deposit),
            Err(error) => {
                tracing::warn!(node = %node.id(), %error, "an open file that loses its last name will not outlive the daemon");
                None
            }
        };
        fault::point("deposited");
        Ok(Some(Pin { fd, deposit }))
    }

    pub(super) fn deposit(&self, node: &Node, fd: &OwnedFd) -> io::Result<Deposit> {
        self.deposit_as(Hold::Pin, node.id(), fd)
    }

    pub(super) fn deposit_as(
        &self,
        kind: fn(u32) -> Hold,
        node: NodeId,
        fd: &OwnedFd,
    ) -> io::Result<Deposit> {
        let deposited = self.depository.deposit(fd.as_fd())?;
        let number = deposited.get();
        match self.shared.hold(kind(number), node) {
            Ok(place) => Ok(Deposit { number, place }),
            Err(error) => {
                self.depository.withdraw(deposited);
                Err(error)
            }
        }
    }

    /// The name did not go after all.
    pub(super) fn unpin(&self, pin: Option<Pin>) {
        if let Some(deposit) = pin.and_then(|pin| pin.deposit) {
            self.withdraw(deposit);
        }
    }

    pub(super) fn withdraw(&self, deposit: Deposit) {
        self.shared.holds().remove(deposit.place);
        self.depository.withdraw(DepositNumber::new(deposit.number));
    }
}

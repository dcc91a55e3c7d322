//! A file registered for passthrough, with the record that lets a successor find its number.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::id::NodeId;
use crate::shared::{Hold, Place, Shared};

/// What the kernel knows a backing file by; closed on drop. Made and read by the transport only.
pub trait BackingToken: Any + Send + Sync + fmt::Debug {
    /// For the transport to recognise its own.
    fn as_any(&self) -> &dyn Any;

    /// The kernel's number, for a successor.
    fn number(&self) -> u32;
}

/// Closed, and its record removed, on drop; in this order, so that a number may be closed twice but none is lost.
#[derive(Debug)]
pub struct Backing {
    token: Option<Arc<dyn BackingToken>>,
    place: Place,
    shared: Arc<Shared>,
}

impl Backing {
    /// Notes a file that was just registered.
    ///
    /// # Errors
    /// Where no memory is left; the registration is given up then.
    pub fn keep(
        shared: &Arc<Shared>,
        node: NodeId,
        token: Arc<dyn BackingToken>,
    ) -> io::Result<Arc<Self>> {
        let place = shared.hold(Hold::Backing(token.number()), node)?;
        Ok(Self::adopt(shared, place, token))
    }

    /// One that a predecessor registered.
    pub fn adopt(shared: &Arc<Shared>, place: Place, token: Arc<dyn BackingToken>) -> Arc<Self> {
        Arc::new(Self {
            token: Some(token),
            place,
            shared: shared.clone(),
        })
    }

    /// For the transport.
    pub fn token(&self) -> Option<Arc<dyn BackingToken>> {
        self.token.clone()
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        self.token = None;
        self.shared.holds().remove(self.place);
    }
}

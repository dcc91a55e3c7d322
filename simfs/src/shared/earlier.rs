//! What a dead daemon was at, in plain values.

use std::ffi::OsString;

use super::flights::{Asked, Step};
use crate::id::{HandleId, NodeId};

/// A request that was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The request.
    pub asked: Asked,
    /// The range it is about, where there is one.
    pub offset: u64,
    /// Its length in bytes.
    pub size: u64,
    /// The node of which a lookup was counted for the answer.
    pub node: Option<NodeId>,
    /// The file that was opened for the answer.
    pub handle: Option<HandleId>,
    /// What it said it was about to do; `None` where it had not come so far.
    pub description: Option<Description>,
}

/// What a request was about to do, and what was there before: see [`super::flights::Intent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What was about to happen.
    pub step: Step,
    /// The directory, or the inode whose attribute it is.
    pub parent: NodeId,
    /// The name.
    pub name: OsString,
    /// The other directory.
    pub new_parent: NodeId,
    /// The other name; empty where there is none.
    pub new_name: OsString,
    /// Inode number under the (first) name; 0 where there was none.
    pub source: u64,
}

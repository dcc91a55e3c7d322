//! The way in for the host's administrators: one socket per running VE.
//!
//! [`protocol`] says what can be asked, [`frame`] how it is written, [`server`] listens in the daemon, [`client`]
//! asks from the tools. Requests that concern only the quota engine are answered by [`engine_reply`]; what needs the
//! mount (status, check, stop) is the [`server::Service`]'s own.

pub mod client;
mod engine;
pub mod frame;
pub mod protocol;
pub mod server;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientError};
pub use engine::{engine_reply, request_error};
pub use frame::FrameError;
pub use quota::Difference;

pub use protocol::{CheckReport, ErrorKind, Progress, Reply, Request, RequestError};
pub use protocol::{Upgrade, UpgradeOutcome, VeState, VeStatus};
pub use server::{Server, Service};

/// The socket's name in the VE's run directory.
pub const SOCKET_NAME: &str = "control.sock";

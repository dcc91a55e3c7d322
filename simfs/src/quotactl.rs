//! quotactl(2) from inside the VE: Linux's own quota tools manage the second level.
//!
//! The VE's processes run under a seccomp filter that hands quotactl(2) and quotactl_fd(2) to us. [`notify`] receives
//! the filters' listeners from the container runtime and their requests; [`serve`] looks at one caller and its
//! arguments; [`decide`] judges and does it, pure over the caller and a [`second_level::SecondLevel`].
//!
//! Invariants:
//! 1. Whose quota it is follows from this daemon alone: a path or a descriptor only confirms the device number.
//! 2. No quotactl(2) is ever handed on to the kernel ("continue"): its arguments can change after they were looked at.
//! 3. Each argument is read once; what was read is what is checked and applied.
//! 4. A caller can make the service wait, but only itself and its own VE: requests are served by a few threads of
//!    their own behind a bounded queue, and what does not fit waits in the kernel.
//!
//! The same service makes syncfs(2) reach the disk (`serve::sync`).
//!
//! # Source
//! quotactl(2), seccomp_unotify(2).

pub mod abi;
pub mod caller;
pub mod convert;
pub mod decide;
pub mod engine;
pub mod id_map;
mod kept;
pub mod notify;
pub mod refusal;
pub mod registration;
pub mod second_level;
pub mod serve;

/// The socket in a VE's run directory.
pub const SOCKET_NAME: &str = "quotactl.sock";

pub use caller::AdminPolicy;
pub use kept::Kept;
pub use notify::{Left, QuotactlConfig, QuotactlService};

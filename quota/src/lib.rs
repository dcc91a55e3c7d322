//! Who may use how much disk space, and who used it: OpenVZ's two-level quota as a library.
//!
//! A VE (container) has one account of its own, the *first level*, and one for each of its users and groups, the
//! *second level*. Each account counts two resources, space and inodes, against a soft and a hard limit. Every
//! change of disk usage is charged to three accounts at once: the VE, the owner, the owner's group.
//!
//! The verbs of [`Engine`]:
//! * [`Engine::reserve`] promises the worst case before the work is done, on all accounts or on none;
//! * [`Reservation::settle`] replaces the promise by what the work really took, dropping it cancels;
//! * [`Engine::record`] notes what happened by itself and cannot be refused;
//! * administrative verbs are durable, and in force for the very next request, when they return.
//!
//! Invariants:
//! 1. `used + reserved <= hard` on every enforced account, at every instant, whatever the number of threads; except
//!    through what cannot be refused, and where limits were lowered below usage.
//! 2. The VE's usage = the sum over its users = the sum over its groups.
//! 3. A refused request changes nothing but the refusal counter of the account that refused.
//! 4. What an administrative verb acknowledged is found again after a kill and after a power loss.
//!
//! What it does not know: FUSE, paths inside the VE, sockets, containers. How totals are stored is the business of
//! whoever implements [`Store`].

pub mod account;
pub mod clock;
pub mod engine;
pub mod error;
pub mod event;
pub mod grace;
pub mod info;
pub mod inode;
pub mod journal;
pub mod limit;
pub mod recovery;
pub mod request;
pub mod reservation;
pub mod scope;
pub mod standing;
pub mod statfs;
pub mod store;
pub mod subject;
pub mod tally;
pub mod units;
pub mod usage;
pub mod vfsv1;

mod charges;
mod dquot;
mod lanes;
mod ledger;
mod sync;

pub use account::{Account, Refusals};
pub use clock::{Clock, ManualClock, SystemClock};
pub use engine::{Engine, Environment, Setup, Watch};
pub use error::{Changed, Denied, DenyReason, EngineError};
pub use event::{Event, EventKind, EventSink, NoEvents};
pub use grace::{Deadlines, GracePeriod, GracePeriods, Timestamp};
pub use info::VeInfo;
pub use inode::{Charged, InodeId};
pub use journal::{Epoch, FileJournal, IntentSlot, Journal, NoJournal};
pub use limit::{Limit, Limits, LimitsChange, Setting};
pub use request::{Accounts, Change, Want};
pub use reservation::Reservation;
pub use scope::{PerScope, Scope};
pub use standing::Standing;
pub use statfs::{HostSpace, StatfsView};
pub use store::{Store, StoreError};
pub use subject::{Gid, Owner, QuotaType, Subject, Uid, VeId};
pub use tally::{Difference, Tally};
pub use units::{Blocks, Bytes, Inodes, Sectors};
pub use usage::{Resource, Usage};

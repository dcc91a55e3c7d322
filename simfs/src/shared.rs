//! What outlives the daemon: the memory that a successor takes the mount over with.
//!
//! One memfd, held by the keeper, mapped by each daemon in turn. In it are the nodes that the kernel knows, the files that
//! the guest has open, the numbers of the descriptors that the keeper holds for them, and the request that each worker is
//! at. It vanishes with the last process that holds it: a mount without keeper and daemon has nothing to take over. (What
//! the accounts need after that is in the quota journal, a file.)
//!
//! Invariants:
//! 1. Every record is whole or recognisably not: it carries a seal, and the word that makes it count is written last.
//!    A process may die between any two stores.
//! 2. Whatever the memory holds, reading it ends, reaches nothing outside of it and allocates no more than its size
//!    justifies. What is damaged is refused ([`Refused`]) or left out and counted ([`Inheritance::damaged`]).
//! 3. Nothing here depends on an address: a successor may be another program. Layouts have a version; another one is
//!    refused.
//! 4. Dropping any of these values changes nothing in the memory.
//!
//! Where things stand: `layout.rs`. Lock order: each part's own lock is a leaf.

mod board;
mod cell;
mod earlier;
pub mod flights;
mod forgets;
mod header;
mod hold;
mod inbox;
mod intake;
mod layout;
mod nodes;
mod suspects;
mod table;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use std::io;

pub use board::{Board, Deposited};
pub use cell::{Cell, CellName};
pub use earlier::{Description, Earlier};
pub use flights::{Flight, Flights};
pub use forgets::{ForgetMark, Forgets};
pub use header::{Refused, Shape};
pub use hold::{Deposit, Hold};
pub use inbox::Inbox;
pub use intake::{Intake, LeftForgets, Unanswered};
pub use nodes::{Claim, NodeRecord, NodeRecords, Slot};
pub use suspects::{Death, Deaths, Suspects};
pub use table::{Found, Place, Room, Table};

use crate::id::NodeId;
use crate::sys::shared_map::SharedMap;
use board::Grown;

/// Descriptors and backing files by number; see [`Hold`].
pub type Holds = Table<2>;
/// Open files and directories: id is the handle, payload the node and its flags.
pub type HandleRecords = Table<2>;
/// Room for one of them.
pub type HandleRoom<'a> = Room<'a, 2>;
/// Seccomp listeners: id is the keeper's number plus one, payload is the transport's.
pub type Listeners = Table<2>;
/// quotactl calls under way: id is not 0, payload the listener and the kernel's notification.
pub type Notifications = Table<14>;

/// The shared memory of one mount.
#[derive(Debug)]
pub struct Shared {
    map: Arc<SharedMap>,
    shape: Shape,
    board: Board,
    flights: Flights,
    forgets: Forgets,
    nodes: NodeRecords,
    holds: Holds,
    handles: HandleRecords,
    listeners: Listeners,
    notifications: Notifications,
}

/// What a successor finds; taken up once, in the order of [`crate::fs::adopt`].
#[derive(Debug, Default)]
pub struct Inheritance {
    /// The requests that were not answered.
    pub cut_off: Vec<Earlier>,
    /// See [`Holds`].
    pub holds: Vec<Found<2>>,
    /// See [`HandleRecords`].
    pub handles: Vec<Found<2>>,
    /// See [`Listeners`].
    pub listeners: Vec<Found<2>>,
    /// See [`Notifications`].
    pub notifications: Vec<Found<14>>,
    /// Records that were damaged and left out.
    pub damaged: usize,
}

impl Shared {
    /// Makes the memory of a new mount.
    ///
    /// # Errors
    /// EINVAL for an impossible shape; the kernel's.
    pub fn create(shape: Shape) -> io::Result<Self> {
        if !header::is_possible(shape) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let map = Arc::new(SharedMap::create(c"simfs", layout::TOTAL)?);
        map.allocate(0, layout::FIXED)?;
        header::write(&map, shape);
        Ok(Self {
            shape,
            board: Board::new(map.clone()),
            flights: Flights::create(map.clone()),
            forgets: Forgets::new(map.clone()),
            nodes: NodeRecords::create(map.clone(), shape),
            holds: Table::create(map.clone(), Grown::Holds, layout::HOLD_TABLE),
            handles: Table::create(map.clone(), Grown::Handles, layout::HANDLE_TABLE),
            listeners: Table::create(map.clone(), Grown::Listeners, layout::LISTENER_TABLE),
            notifications: Table::create(
                map.clone(),
                Grown::Notifications,
                layout::NOTIFICATION_TABLE,
            ),
            map,
        })
    }

    /// Takes the memory of a predecessor over. Nothing may serve from it meanwhile.
    ///
    /// # Errors
    /// Why it cannot be used; it is unchanged then.
    pub fn adopt(fd: OwnedFd) -> Result<(Self, Inheritance), Refused> {
        let map = SharedMap::adopt(fd).map_err(|error| Refused::Map(error.to_string()))?;
        let map = Arc::new(map);
        let shape = header::read(&map)?;
        let (flights, cut_off) = Flights::adopt(map.clone());
        let nodes = NodeRecords::adopt(map.clone(), shape);
        let adopt = |part, span| Table::adopt(map.clone(), part, span);
        let (holds, held, damaged_holds) = adopt(Grown::Holds, layout::HOLD_TABLE);
        let (handles, open, damaged_handles) = adopt(Grown::Handles, layout::HANDLE_TABLE);
        let (listeners, listening, damaged_listeners) =
            adopt(Grown::Listeners, layout::LISTENER_TABLE);
        let (notifications, notified, damaged_notifications) = Table::adopt(
            map.clone(),
            Grown::Notifications,
            layout::NOTIFICATION_TABLE,
        );
        let board = Board::new(map.clone());
        board.correct_next_handle(open.iter().map(|record| record.id).max().unwrap_or(0));
        let inheritance = Inheritance {
            cut_off,
            holds: held,
            handles: open,
            listeners: listening,
            notifications: notified,
            damaged: damaged_holds + damaged_handles + damaged_listeners + damaged_notifications,
        };
        let shared = Self {
            shape,
            board,
            flights,
            forgets: Forgets::new(map.clone()),
            nodes,
            holds,
            handles,
            listeners,
            notifications,
            map,
        };
        Ok((shared, inheritance))
    }

    /// The memory, for the keeper.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd()
    }

    /// What the records are made for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Flips a bit of a word that is not zero; which one follows from the numbers.
    #[cfg(test)]
    pub(crate) fn damage(&self, word: usize, bit: u32) {
        use std::sync::atomic::Ordering::Relaxed;
        let first_pages = [
            layout::HOLD_TABLE,
            layout::HANDLE_TABLE,
            layout::LISTENER_TABLE,
            layout::NOTIFICATION_TABLE,
            layout::DIRECTORY,
            layout::NODES,
        ]
        .map(|span| span.start..span.start + 64 * layout::PAGE);
        let used: Vec<usize> = std::iter::once(0..layout::FIXED)
            .chain(first_pages)
            .flatten()
            .filter(|&index| self.map.word(index).load(Relaxed) != 0)
            .collect();
        let index = used[word % used.len()];
        self.map.word(index).fetch_xor(1 << (bit % 64), Relaxed);
    }

    /// One of the texts.
    pub fn cell(&self, name: CellName) -> Cell {
        Cell::new(self.map.clone(), name)
    }

    /// Counters, and numbers of deposits.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Requests under way.
    pub fn flights(&self) -> &Flights {
        &self.flights
    }

    /// How far orders to forget were carried out.
    pub fn forgets(&self) -> &Forgets {
        &self.forgets
    }

    /// Requests that were under way when daemons died.
    pub fn suspects(&self) -> Suspects {
        Suspects::new(self.map.clone())
    }

    /// The nodes that the kernel knows.
    pub fn nodes(&self) -> &NodeRecords {
        &self.nodes
    }

    /// Notes that something is held by number for a node.
    ///
    /// # Errors
    /// As [`Table::insert`].
    pub fn hold(&self, hold: Hold, node: NodeId) -> io::Result<Place> {
        let (id, kind) = hold.to_words();
        self.holds.insert(id, [node.get(), kind])
    }

    /// Descriptors and backing files by number.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Open files and directories.
    pub fn handles(&self) -> &HandleRecords {
        &self.handles
    }

    /// Seccomp listeners.
    pub fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// Where quotactl calls come in.
    pub fn inbox(&self) -> Inbox {
        Inbox::new(self.map.clone())
    }

    /// quotactl calls under way.
    pub fn notifications(&self) -> &Notifications {
        &self.notifications
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quota::VeId;
    use std::sync::atomic::Ordering;

    const SHAPE: Shape = Shape {
        ve: VeId::new(101),
        handle_bytes: 24,
    };

    fn fd(shared: &Shared) -> OwnedFd {
        shared.fd().try_clone_to_owned().unwrap()
    }

    #[test]
    fn all_parts_are_found_again() {
        let shared = Shared::create(SHAPE).unwrap();
        let first = shared.board().next_handle();
        shared.handles().insert(first, [2, 3]).unwrap();
        shared.hold(Hold::Pin(7), NodeId::new(9)).unwrap();
        shared.listeners().insert(1, [1, 1]).unwrap();
        shared.notifications().insert(1, [1; 14]).unwrap();
        assert!(shared.cell(CellName::Config).write(b"{}"));
        shared.board().set_deposit(Deposited::AreaLock, Some(12));
        shared.board().note_death(9);
        let (next, found) = Shared::adopt(fd(&shared)).unwrap();
        assert_eq!(next.shape(), SHAPE);
        assert_eq!((found.handles.len(), found.holds.len()), (1, 1));
        assert_eq!((found.listeners.len(), found.notifications.len()), (1, 1));
        let hold = found.holds.first().unwrap();
        assert_eq!(Hold::of(hold), Some((Hold::Pin(7), NodeId::new(9))));
        assert_eq!(
            next.cell(CellName::Config).read().as_deref(),
            Some(&b"{}"[..])
        );
        assert_eq!(next.board().deposit(Deposited::AreaLock), Some(12));
        assert_eq!(next.board().deposit(Deposited::AreaRoot), None);
        assert_eq!(next.board().last_death(), Some(9));
        assert!(next.board().next_handle() > first);
    }

    #[test]
    fn a_damaged_header_is_refused() {
        let shared = Shared::create(SHAPE).unwrap();
        for word in 0..6 {
            for bit in 0..64 {
                shared.map.word(word).fetch_xor(1 << bit, Ordering::Relaxed);
                let refused = Shared::adopt(fd(&shared)).err();
                let expected = match word {
                    0 => Refused::Foreign,
                    1 => Refused::Version {
                        found: 1 ^ 1 << bit,
                    },
                    _ => Refused::Damaged,
                };
                assert_eq!(refused, Some(expected), "word {word}, bit {bit}");
                shared.map.word(word).fetch_xor(1 << bit, Ordering::Relaxed);
            }
        }
        assert!(Shared::adopt(fd(&shared)).is_ok());
    }

    #[test]
    fn another_file_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(Shared::adopt(file.into()), Err(Refused::Map(_))));
        let other = SharedMap::create(c"other", 512).unwrap();
        let other = other.fd().try_clone_to_owned().unwrap();
        assert_eq!(Shared::adopt(other).err(), Some(Refused::Foreign));
        let impossible = Shape {
            handle_bytes: 41,
            ..SHAPE
        };
        assert!(Shared::create(impossible).is_err());
    }

    #[test]
    fn the_keeper_reads_counters_alone() {
        let shared = Shared::create(SHAPE).unwrap();
        let board = Board::open(fd(&shared)).unwrap();
        assert_eq!((board.finished(), board.in_work()), (0, 0));
        let worker = shared.flights().enlist().unwrap();
        let asked = flights::Asked {
            unique: 4,
            opcode: 1,
            node: NodeId::ROOT,
            caller: crate::id::Caller {
                uid: 0,
                gid: 0,
                pid: 0,
            },
        };
        let flight = shared.flights().begin(worker, asked);
        assert_eq!((board.finished(), board.in_work()), (0, 1));
        drop(flight);
        assert_eq!((board.finished(), board.in_work()), (1, 0));
        let small = SharedMap::create(c"small", 512).unwrap();
        assert!(Board::open(small.fd().try_clone_to_owned().unwrap()).is_err());
    }
}

//! The memory that a dead daemon leaves: any records, sealed as it seals them, and any damage on top.
//!
//! Beyond "no panic": a damaged record is left out once, so the next successor finds no damage in the tables.
#![no_main]

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustix::fs::SeekFrom;
use simfs::accounting::Caller;
use simfs::handle::HandleId;
use simfs::keeper::Attempt;
use simfs::node::NodeId;
use simfs::shared::flights::{Asked, Intent, RESENT, Step as What, Worker};
use simfs::shared::{CellName, Death, Deposited, Hold, Intake, NodeRecord, Shared};
use simfs::sys::handle::KernelHandle;
use simfs::sys::seccomp::Notification;
use simfs_fuzz::successor::{Area, Successor};

#[derive(Arbitrary, Debug)]
struct Case<'a> {
    left: Vec<Left<'a>>,
    damage: Vec<Damage>,
}

/// A node that a record names.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Named {
    Root,
    File(u8),
    Any(u64),
}

/// What a daemon wrote before it died.
#[derive(Arbitrary, Debug)]
enum Left<'a> {
    Handle {
        node: Named,
        flags: u64,
    },
    Hold {
        kind: u8,
        number: u8,
        node: Named,
    },
    Listener(u64, u64),
    Call([u64; 14]),
    Text {
        cell: u8,
        text: &'a [u8],
    },
    Deposit {
        what: u8,
        number: u32,
    },
    Node {
        node: Named,
        handle: Handle<'a>,
        mode: u16,
        lookups: u64,
    },
    Request {
        unique: u64,
        node: Named,
        intent: Option<Planned<'a>>,
        given: Option<(Named, u64)>,
        listed: Vec<Named>,
    },
    Death {
        unique: u64,
        crash: bool,
    },
    /// A quotactl call that was being received.
    Inbox {
        listener: u32,
        words: Vec<u64>,
    },
    /// What was read into a place.
    Read {
        place: u8,
        request: Order,
        progress: Option<(u8, Option<u64>)>,
    },
}

/// A request as the kernel writes it.
#[derive(Arbitrary, Debug)]
enum Order {
    Forget(u64, Vec<(Named, u64)>),
    Any(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Handle<'a> {
    Its,
    Other(u8),
    Any(i32, &'a [u8]),
    None,
}

#[derive(Arbitrary, Debug)]
struct Planned<'a> {
    step: u8,
    name: &'a [u8],
    to: Option<(Named, &'a [u8])>,
    source: u64,
}

/// What happened to the memory.
#[derive(Arbitrary, Debug)]
enum Damage {
    /// A bit of a word that is not zero.
    Flip { word: u32, bit: u8 },
    /// Any word of those that have room.
    Store { word: u32, value: u64 },
}

const STEPS: [What; 8] = [
    What::Make,
    What::Link,
    What::Remove,
    What::Rename,
    What::Exchange,
    What::Whiteout,
    What::SetAttribute,
    What::RemoveAttribute,
];
const CELLS: [CellName; 5] = [
    CellName::Config,
    CellName::Mount,
    CellName::InitRequest,
    CellName::InitReply,
    CellName::Upgrade,
];
const DEPOSITED: [Deposited; 6] = [
    Deposited::AreaRoot,
    Deposited::AreaLock,
    Deposited::Memory,
    Deposited::ControlSocket,
    Deposited::QuotactlSocket,
    Deposited::Intake,
];

fn pick<T: Copy>(of: &[T], index: u8) -> T {
    of[usize::from(index) % of.len()]
}

impl Named {
    fn id(self, area: &Area) -> NodeId {
        match self {
            Self::Root => NodeId::ROOT,
            Self::File(index) => area.file(index).0,
            Self::Any(id) => NodeId::new(id),
        }
    }
}

impl Left<'_> {
    fn write(&self, shared: &Shared, area: &Area) {
        match self {
            Self::Handle { node, flags } => {
                let id = shared.board().next_handle();
                let _full = shared.handles().insert(id, [node.id(area).get(), *flags]);
            }
            Self::Hold { kind, number, node } => {
                let kind = pick(&[Hold::Pin, Hold::Backing, Hold::Spare], *kind);
                let _full = shared.hold(kind(u32::from(*number % 6)), node.id(area));
            }
            Self::Listener(dev, ino) => drop(shared.listeners().insert(1, [*dev, *ino])),
            Self::Call(words) => drop(shared.notifications().insert(1, *words)),
            Self::Text { cell, text } => {
                let _too_long = shared.cell(pick(&CELLS, *cell)).write(text);
            }
            Self::Deposit { what, number } => shared
                .board()
                .set_deposit(pick(&DEPOSITED, *what), Some(*number)),
            Self::Node {
                node,
                handle,
                mode,
                lookups,
            } => {
                let handle = match handle {
                    Handle::Its => match node {
                        Named::File(index) => area.file(*index).1,
                        _ => None,
                    },
                    Handle::Other(index) => area.file(*index).1,
                    Handle::Any(kind, bytes) => KernelHandle::from_parts(*kind, bytes),
                    Handle::None => None,
                };
                let record = NodeRecord {
                    id: node.id(area),
                    handle,
                    mode: *mode,
                };
                if let Ok(slot) = shared.nodes().claim(&record) {
                    shared
                        .nodes()
                        .lookups(slot)
                        .store(*lookups, Ordering::Relaxed);
                }
            }
            Self::Request {
                unique,
                node,
                intent,
                given,
                listed,
            } => {
                let Some(worker) = shared.flights().enlist() else {
                    return;
                };
                let flight = shared
                    .flights()
                    .begin(worker, asked(*unique, node.id(area)));
                if let Some(planned) = intent {
                    let to = planned
                        .to
                        .map(|(node, name)| (node.id(area), OsStr::from_bytes(name)));
                    flight.describe(&Intent {
                        step: pick(&STEPS, planned.step),
                        parent: node.id(area),
                        name: OsStr::from_bytes(planned.name),
                        to,
                        source: planned.source,
                    });
                }
                if let Some((node, handle)) = given {
                    flight.hand_out_node(node.id(area));
                    flight.hand_out_handle(HandleId::new(*handle));
                }
                for node in listed {
                    if !flight.is_listing_full() {
                        flight.hand_out_listed(node.id(area));
                    }
                }
                // Its daemon is dead.
                std::mem::forget(flight);
            }
            Self::Death { unique, crash } => {
                let death = if *crash { Death::Crash } else { Death::Kill };
                shared.suspects().note(*unique, death);
            }
            Self::Inbox { listener, words } => {
                let inbox = shared.inbox();
                for (place, word) in inbox.open(*listener).iter().zip(words) {
                    place.store(*word, Ordering::Relaxed);
                }
            }
            Self::Read {
                place,
                request,
                progress,
            } => {
                if let Some((entry, lookups)) = progress {
                    let unique = match request {
                        Order::Forget(unique, _) => *unique,
                        Order::Any(_) => 0,
                    };
                    let mark = shared.forgets().mark(usize::from(*place), unique);
                    match lookups {
                        Some(lookups) => mark.begin(usize::from(*entry), *lookups),
                        None => mark.end(usize::from(*entry)),
                    }
                }
            }
        }
    }

    /// What is read into a place goes to a file of its own.
    fn read(&self, intake: &std::fs::File, area: &Area) {
        if let Self::Read { place, request, .. } = self {
            let at = u64::from(*place) * u64::from(PLACE);
            let mut bytes = request.bytes(area);
            bytes.truncate(usize::try_from(PLACE).unwrap_or(0));
            let _behind_the_end = intake.write_all_at(&bytes, at);
        }
    }
}

impl Order {
    /// `struct fuse_in_header`, and what follows it.
    fn bytes(&self, area: &Area) -> Vec<u8> {
        let (unique, entries) = match self {
            Self::Any(bytes) => return bytes.clone(),
            Self::Forget(unique, entries) => (unique, entries),
        };
        const BATCH_FORGET: u32 = 42;
        let length = u32::try_from(48 + 16 * entries.len()).unwrap_or(u32::MAX);
        let mut bytes = [length.to_ne_bytes(), BATCH_FORGET.to_ne_bytes()].concat();
        bytes.extend(unique.to_ne_bytes());
        bytes.resize(40, 0);
        bytes.extend(u64::try_from(entries.len()).unwrap_or(0).to_ne_bytes());
        for (node, count) in entries {
            bytes.extend(node.id(area).get().to_ne_bytes());
            bytes.extend(count.to_ne_bytes());
        }
        bytes
    }
}

/// A small place.
const PLACE: u32 = 4096;

fn asked(unique: u64, node: NodeId) -> Asked {
    let caller = Caller {
        uid: 0,
        gid: 0,
        pid: 0,
    };
    Asked {
        unique,
        opcode: 1,
        node,
        caller,
    }
}

/// Byte ranges of the memory that have room, at most a few pages of each.
fn ranges(memory: &std::fs::File) -> Vec<std::ops::Range<u64>> {
    let seek = |from| rustix::fs::seek(memory, from).ok();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = seek(SeekFrom::Data(at)) {
        let Some(end) = seek(SeekFrom::Hole(start)) else {
            break;
        };
        found.push(start..end.min(start + (1 << 19)));
        at = end;
    }
    found
}

impl Damage {
    fn apply(&self, memory: &std::fs::File, ranges: &[std::ops::Range<u64>]) {
        let places = || ranges.iter().flat_map(|range| range.clone().step_by(8));
        let read = |at| {
            let mut bytes = [0; 8];
            memory.read_exact_at(&mut bytes, at).expect("memory");
            u64::from_ne_bytes(bytes)
        };
        let place =
            |word: u32, places: &[u64]| places[usize::try_from(word).unwrap_or(0) % places.len()];
        let (at, value) = match self {
            Self::Flip { word, bit } => {
                let used: Vec<_> = places().filter(|at| read(*at) != 0).collect();
                let at = place(*word, &used);
                (at, read(at) ^ 1 << (bit % 64))
            }
            Self::Store { word, value } => (place(*word, &places().collect::<Vec<_>>()), *value),
        };
        memory
            .write_all_at(&value.to_ne_bytes(), at)
            .expect("memory");
    }
}

/// What the first requests to a successor would have it read.
fn use_it(successor: &Successor, area: &Area, intake: &std::fs::File, case: &Case<'_>) {
    let fs = &successor.fs;
    let _any = fs
        .shared()
        .board()
        .upgrade()
        .read()
        .and_then(|text| Attempt::decode(&text));
    for cell in CELLS {
        let _any = fs.shared().cell(cell).read();
    }
    let Some(worker) = fs.shared().flights().enlist() else {
        return;
    };
    for left in &case.left {
        match left {
            Left::Request { unique, node, .. } => {
                send_again(fs.shared(), worker, asked(*unique | RESENT, node.id(area)))
            }
            Left::Node { node, .. } | Left::Handle { node, .. } => {
                let id = node.id(area);
                let _any = fs.nodes().get(id).map(|node| fs.nodes().descriptor(&node));
                fs.forget(id, 1);
            }
            _ => {}
        }
    }
    let inbox = fs.shared().inbox();
    let _any = inbox
        .left()
        .and_then(|(_, words)| Notification::read(words));
    let intake = intake.try_clone().expect("descriptor").into();
    let intake = Intake::adopt(intake, PLACE).expect("what was made for it");
    let kept = intake.unanswered(|_| Ok(true)).expect("memory");
    let forgets = intake.left_forgets(fs.shared().forgets()).expect("memory");
    fs.end_forgets(&forgets);
    fs.forget_left(&forgets);
    assert_eq!(
        intake.left_forgets(fs.shared().forgets()).expect("memory"),
        []
    );
    let places: Vec<_> = kept.iter().map(|request| request.place).collect();
    let _none_left = intake.make_room(&places, 2);
    fs.nodes().index_rest(&mut || true);
    fs.accounting().finish_late();
}

fn send_again(shared: &Shared, worker: Worker, asked: Asked) {
    let flight = shared.flights().begin(worker, asked);
    let _any = (
        flight.described(),
        shared.suspects().deaths(asked.unique & !RESENT),
        flight.handed_out_handle(),
        flight.take_back_node(),
    );
    flight.handle_is_back();
    while flight.take_back_listed().is_some() {}
}

thread_local! {
    static AREA: RefCell<Option<Area>> = const { RefCell::new(None) };
}

fuzz_target!(|case: Case<'_>| {
    AREA.with_borrow_mut(|area| {
        let area = area.get_or_insert_with(Area::make);
        let shared = area.memory();
        case.left.iter().for_each(|left| left.write(&shared, area));
        let intake = Intake::create(PLACE).expect("memory");
        let intake = std::fs::File::from(intake.fd().try_clone_to_owned().expect("descriptor"));
        case.left.iter().for_each(|left| left.read(&intake, area));
        let memory = std::fs::File::from(shared.fd().try_clone_to_owned().expect("descriptor"));
        drop(shared);
        if !case.damage.is_empty() {
            let ranges = ranges(&memory);
            case.damage
                .iter()
                .for_each(|damage| damage.apply(&memory, &ranges));
        }
        let copy = || memory.try_clone().expect("descriptor").into();
        let Ok(successor) = area.take_over(copy()) else {
            return;
        };
        use_it(&successor, area, &intake, &case);
        // It dies as well. Nothing that it drops is the next one's.
        drop(successor);
        let next = area
            .take_over(copy())
            .expect("what was taken over can be taken over");
        assert_eq!(next.adopted.damaged, 0, "{:?}", next.adopted);
    });
});

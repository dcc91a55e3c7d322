//! Slots and claims over deaths, in memory of their own.

use super::super::layout::{CLAIMS, FIXED};
use super::*;

fn map() -> Arc<SharedMap> {
    Arc::new(SharedMap::create(c"test", FIXED).unwrap())
}

fn asked(unique: u64) -> Asked {
    Asked {
        unique,
        opcode: 35,
        node: NodeId::new(7),
        caller: Caller {
            uid: 1000,
            gid: u32::MAX,
            pid: 4,
        },
    }
}

fn intent(name: &OsStr) -> Intent<'_> {
    Intent {
        step: Step::Rename,
        parent: NodeId::new(7),
        name,
        to: Some((NodeId::new(8), OsStr::new("new"))),
        source: 55,
    }
}

/// A process that dies here: nothing of it is dropped.
fn die(flights: Flights, flight: impl FnOnce(&Flights)) {
    flight(&flights);
    drop(flights);
}

fn begin_and_die(map: &Arc<SharedMap>, unique: u64, act: impl FnOnce(&Flight<'_>)) {
    let (flights, _) = Flights::adopt(map.clone());
    die(flights, |flights| {
        let flight = flights.begin(flights.enlist().unwrap(), asked(unique));
        act(&flight);
        std::mem::forget(flight);
    });
}

#[test]
fn an_answered_request_leaves_nothing() {
    let map = map();
    let flights = Flights::create(map.clone());
    let worker = flights.enlist().unwrap();
    let flight = flights.begin(worker, asked(2));
    assert!(is_busy(&map, worker.0));
    flight.describe(&intent(OsStr::new("x")));
    drop(flight);
    assert_eq!(
        (is_busy(&map, worker.0), finished(&map, worker.0)),
        (false, 1)
    );
    assert!(Flights::adopt(map).1.is_empty());
}

#[test]
fn a_successor_learns_what_was_under_way() {
    let map = map();
    let name = "n".repeat(255);
    begin_and_die(&map, 12, |flight| {
        flight.note_range(4096, 10);
        flight.describe(&intent(OsStr::new(&name)));
        flight.hand_out_node(NodeId::new(70));
        flight.hand_out_handle(HandleId::new(3));
    });
    let (flights, cut_off) = Flights::adopt(map.clone());
    let [earlier] = &cut_off[..] else {
        panic!("{cut_off:?}");
    };
    assert_eq!(earlier.asked, asked(12));
    assert_eq!((earlier.offset, earlier.size), (4096, 10));
    let description = earlier.description.clone().unwrap();
    assert_eq!(description.name, *name);
    assert_eq!(description.source, 55);
    assert_eq!(description.new_name, "new");

    let worker = flights.enlist().unwrap();
    assert!(
        flights
            .begin(worker, asked(14 | RESENT))
            .earlier()
            .is_none()
    );
    assert!(
        flights.begin(worker, asked(12)).earlier().is_none(),
        "not sent again"
    );
    let again = flights.begin(worker, asked(12 | RESENT));
    assert_eq!(again.earlier(), Some(earlier));
    assert_eq!(again.take_back_node(), Some(NodeId::new(70)));
    assert_eq!(again.take_back_node(), None, "told once");
    assert_eq!(again.handed_out_handle(), Some(HandleId::new(3)));
    again.handle_is_back();
    assert_eq!(again.handed_out_handle(), None);
    drop(again);
    assert!(
        flights
            .begin(worker, asked(12 | RESENT))
            .earlier()
            .is_none()
    );
}

#[test]
fn a_second_death_loses_nothing_of_the_first() {
    let map = map();
    begin_and_die(&map, 12, |flight| {
        flight.describe(&intent(OsStr::new("x")));
        flight.hand_out_node(NodeId::new(70));
    });
    // The second daemon took the lookup back, counted one of its own, and died.
    begin_and_die(&map, 12 | RESENT, |flight| {
        assert!(flight.take_back_node().is_some());
        flight.hand_out_node(NodeId::new(71));
    });
    // The third did not even begin with it.
    let (flights, cut_off) = Flights::adopt(map.clone());
    assert_eq!(cut_off.len(), 1);
    drop(flights);
    let (flights, cut_off) = Flights::adopt(map);
    assert!(cut_off.is_empty());
    let again = flights.begin(flights.enlist().unwrap(), asked(12 | RESENT));
    assert_eq!(again.described().unwrap().source, 55);
    assert_eq!(again.take_back_node(), Some(NodeId::new(71)));
}

#[test]
fn what_a_second_daemon_did_not_come_to_take_back_the_third_does() {
    let map = map();
    begin_and_die(&map, 12, |flight| {
        flight.hand_out_node(NodeId::new(70));
        flight.hand_out_handle(HandleId::new(3));
    });
    begin_and_die(&map, 12 | RESENT, |_| {});
    begin_and_die(&map, 12 | RESENT, |flight| {
        assert_eq!(flight.take_back_node(), Some(NodeId::new(70)));
        assert_eq!(flight.handed_out_handle(), Some(HandleId::new(3)));
    });
    let (flights, _) = Flights::adopt(map);
    let again = flights.begin(flights.enlist().unwrap(), asked(12 | RESENT));
    assert_eq!(again.take_back_node(), None);
    assert_eq!(
        again.handed_out_handle(),
        Some(HandleId::new(3)),
        "nobody said that it is closed"
    );
}

#[test]
fn the_oldest_claims_make_room() {
    let map = map();
    let count = u64::try_from(CLAIMS).unwrap();
    for unique in 1..=count + 5 {
        begin_and_die(&map, unique, |_| {});
    }
    let (flights, _) = Flights::adopt(map);
    let worker = flights.enlist().unwrap();
    for unique in 1..=count + 5 {
        let flight = flights.begin(worker, asked(unique | RESENT));
        assert_eq!(flight.earlier().is_some(), unique > 5, "{unique}");
    }
}

#[test]
fn what_is_damaged_is_left_out() {
    let map = map();
    begin_and_die(&map, 12, |flight| {
        flight.describe(&intent(OsStr::new("name")));
        flight.hand_out_node(NodeId::new(70));
    });
    let slot = FLIGHTS.start;
    for word in [
        PARENT,
        NEW_PARENT,
        SOURCE,
        STEP,
        DESCRIPTION_SEAL,
        NAME,
        NEW_NAME,
    ] {
        for bit in 0..64 {
            map.word(slot + word).fetch_xor(1 << bit, Ordering::Relaxed);
            assert_eq!(Earlier::read(&map, slot).description, None, "{word} {bit}");
            map.word(slot + word).fetch_xor(1 << bit, Ordering::Relaxed);
        }
    }
    for word in [UNIQUE, GIVEN_NODE, GIVEN_NODE + 1] {
        map.word(slot + word).fetch_xor(1 << 9, Ordering::Relaxed);
        assert_eq!(Earlier::read(&map, slot).node, None, "{word}");
        map.word(slot + word).fetch_xor(1 << 9, Ordering::Relaxed);
    }
    assert!(Earlier::read(&map, slot).description.is_some());
}

#[test]
fn a_panic_is_no_answer() {
    let map = map();
    let flights = Flights::create(map.clone());
    let worker = flights.enlist().unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _flight = flights.begin(worker, asked(2));
        panic!("as a test");
    }));
    assert!(result.is_err() && is_busy(&map, worker.0));
}

#[test]
fn there_are_slots_for_so_many_workers_and_no_more() {
    let flights = Flights::create(map());
    let given: Vec<_> = (0..WORKERS).filter_map(|_| flights.enlist()).collect();
    assert_eq!(given.len(), WORKERS);
    assert!(flights.enlist().is_none() && flights.enlist().is_none());
}

fn list(flight: &Flight<'_>, nodes: std::ops::Range<usize>) {
    for node in nodes {
        assert!(!flight.is_listing_full());
        flight.hand_out_listed(NodeId::new(u64::try_from(node).unwrap() + 7));
    }
}

fn taken_back(flight: &Flight<'_>) -> usize {
    std::iter::from_fn(|| flight.take_back_listed()).count()
}

#[test]
fn the_nodes_of_a_listing_are_told_one_by_one() {
    let map = map();
    begin_and_die(&map, 12, |flight| {
        list(flight, 0..listing::MOST);
        assert!(flight.is_listing_full());
        flight.retract_listed();
    });
    begin_and_die(&map, 12 | RESENT, |flight| {
        for node in (1..listing::MOST).rev().take(10) {
            let expected = NodeId::new(u64::try_from(node).unwrap() + 6);
            assert_eq!(flight.take_back_listed(), Some(expected));
        }
    });
    begin_and_die(&map, 12 | RESENT, |flight| {
        assert_eq!(taken_back(flight), listing::MOST - 11, "what was left");
        list(flight, 0..3);
    });
    begin_and_die(&map, 12 | RESENT, |_| {});
    let (flights, _) = Flights::adopt(map);
    let worker = flights.enlist().unwrap();
    assert_eq!(taken_back(&flights.begin(worker, asked(14 | RESENT))), 0);
    let again = flights.begin(worker, asked(12 | RESENT));
    assert_eq!((taken_back(&again), taken_back(&again)), (3, 0));
}

#[test]
fn a_damaged_listing_is_left_out() {
    let seal_and_nodes = [LISTING, LISTED, LISTED + 1, LISTED + 2];
    for word in seal_and_nodes {
        for bit in 0..64 {
            let map = map();
            begin_and_die(&map, 12, |flight| list(flight, 0..3));
            let at = FLIGHTS.start + word;
            map.word(at).fetch_xor(1 << bit, Ordering::Relaxed);
            let (flights, _) = Flights::adopt(map);
            let again = flights.begin(flights.enlist().unwrap(), asked(12 | RESENT));
            assert_eq!(taken_back(&again), 0, "word {word}, bit {bit}");
        }
    }
}

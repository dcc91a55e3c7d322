//! A mount that ends at any moment: what the journal says, and the store, together are exact.
//!
//! Random histories on a made-up tree. After every step of every operation the process dies: memory is lost, the
//! journal's file and the store stay. Then the totals are recovered and compared with the tree.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests state what they expect"
)]

mod remains;
mod tree;
mod world;

use std::sync::Arc;

use quota::{Engine, Environment, Standing, Store, Subject, VeId};

use remains::{Remains, mount};
use world::World;

const VE: VeId = VeId::new(7);

// S51: a death at any step; S52: and a loss of power, which keeps the last commit.
#[test]
fn totals_are_exact_after_a_death_at_any_step() {
    for seed in 1..=12 {
        let mut world = World::new(seed * 0x9e37_79b9);
        for step in 0..80 {
            world.step();
            world.die();
            if step % 25 == 24 {
                world.remount();
            }
        }
    }
}

#[test]
fn a_clean_end_needs_no_journal() {
    let mut world = World::new(5);
    for _ in 0..50 {
        world.step();
    }
    while let Some(open) = world.open.pop() {
        world.go_on(open);
    }
    world.engine.end_service().unwrap();
    let engine = Engine::open(world.store.clone(), Environment::default()).unwrap();
    assert_eq!(engine.standing(), Standing::Final);
    assert_eq!(engine.tally().unwrap().differences(&world.tree.tally()), []);
}

#[test]
fn orders_given_between_a_death_and_the_next_mount_keep_the_journal_valid() {
    let mut world = World::new(11);
    for _ in 0..60 {
        world.step();
    }
    let remains = Remains::of(&world.store.inner, world.dir.path());
    let store: Arc<dyn Store> = Arc::new(remains.store.crash());
    let offline = Engine::open(store.clone(), Environment::default()).unwrap();
    let limits = quota::LimitsChange::default();
    for limit in [10, 20] {
        let _ = offline.set_limits(Subject::Ve, &limits).unwrap();
        let _ = offline.set_ugid_limit(limit).unwrap();
    }
    drop(offline);
    let dir = remains.lay_out();
    let engine = mount(store, dir.path(), 2, "boot", &world.tree).unwrap();
    assert_eq!(engine.tally().unwrap().differences(&world.tree.tally()), []);
}

/// Usage that was counted while no daemon ran needs no journal.
#[test]
fn a_recount_between_a_death_and_the_next_mount_voids_the_journal() {
    let mut world = World::new(13);
    while world.tree.tally() == world.engine.tally().unwrap() {
        world.step();
    }
    let store: Arc<dyn Store> = Arc::new(world.store.inner.crash());
    let offline = Engine::open(store, Environment::default()).unwrap();
    assert!(matches!(offline.standing(), Standing::Journaled { .. }));
    let _ = offline.replace_usage(&world.tree.tally()).unwrap();
    assert_eq!(offline.standing(), Standing::Final);
}

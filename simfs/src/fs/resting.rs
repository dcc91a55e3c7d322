//! Nodes at rest: what is known of them is in their records. For tests only.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use super::testbed::{Bed, ROOT, at, no_backing, write_at};
use crate::node::NodeId;

/// Files in the private area that the kernel has looked up.
fn known(bed: &mut Bed, count: u64) -> Vec<NodeId> {
    let names = (0..count).map(|number| format!("f{number}"));
    names
        .map(|name| {
            fs::write(bed.dir.path().join(&name), b"content").unwrap();
            let found = bed.ask(|fs, call| fs.lookup(call, at(&name)));
            found.unwrap().node.id()
        })
        .collect()
}

fn awake(bed: &Bed) -> BTreeSet<u64> {
    let nodes = bed.fs.nodes().snapshot();
    nodes.iter().map(|node| node.id().get()).collect()
}

/// The first look takes note of who is asked for, the second sends the others to rest.
fn rest(bed: &Bed) {
    bed.fs.nodes().put_to_rest();
    bed.fs.nodes().put_to_rest();
}

#[test]
fn who_is_not_asked_for_rests_and_is_found_again() {
    let mut bed = Bed::new();
    let ids = known(&mut bed, 40);
    let again = bed.ask(|fs, call| fs.lookup(call, at("f7"))).unwrap();
    assert_eq!(again.node.id(), ids[7]);
    drop(again);
    bed.fs.nodes().put_to_rest();
    bed.fs.getattr(ids[3]).unwrap();
    bed.fs.nodes().put_to_rest();
    assert_eq!(
        awake(&bed),
        BTreeSet::from([NodeId::ROOT.get(), ids[3].get()])
    );
    assert_eq!(
        bed.fs.nodes().len(),
        41,
        "the kernel knows as many as before"
    );
    rest(&bed);
    assert_eq!(awake(&bed).len(), 1);
    for (number, &id) in ids.iter().enumerate() {
        assert_eq!(bed.lookups(id), if number == 7 { 2 } else { 1 });
        assert_eq!(bed.fs.getattr(id).unwrap().size, 7);
        // Some are forgotten awake, some at rest.
        if number == 20 {
            rest(&bed);
        }
        bed.fs.forget(id, bed.lookups(id));
    }
    bed.assert_empty();
}

/// What is removed or changed after a rest is charged as if there had been none.
#[test]
fn accounts_do_not_notice() {
    let mut bed = Bed::new();
    bed.ask(|fs, call| fs.mkdir(call, at("dir"), 0o755, 0))
        .unwrap();
    let mut handles = Vec::new();
    for number in 0..20 {
        let name = format!("f{number}");
        let (id, handle) = bed.create(&name);
        let written = bed.fs.write(ROOT, handle, write_at(0, &[1; 9000]));
        assert_eq!(written.unwrap(), 9000);
        handles.push((id, handle));
    }
    rest(&bed);
    assert_eq!(
        awake(&bed).len(),
        21,
        "open, or written lately: but for the directory"
    );
    for (_, handle) in &handles {
        bed.fs.release(*handle).unwrap();
    }
    bed.fs.accounting().finish_late();
    rest(&bed);
    assert_eq!(awake(&bed).len(), 1);
    for number in 0..10 {
        let name = format!("f{number}");
        bed.ask(|fs, call| fs.unlink(call, at(&name))).unwrap();
    }
    let (charged, there) = bed.usage();
    assert_eq!(charged, there);
    bed.die();
    for (id, _) in handles {
        bed.fs.forget(id, 1);
    }
    let (charged, there) = bed.usage();
    assert_eq!(charged, there);
}

/// Somebody works with it: an inode must not have two nodes.
#[test]
fn who_is_held_or_has_no_name_stays() {
    let mut bed = Bed::new();
    let ids = known(&mut bed, 3);
    let held = bed.fs.nodes().get(ids[0]).unwrap();
    let (handle, _) = bed
        .ask(|fs, call| fs.open(call, ids[1], libc::O_RDONLY, &mut no_backing))
        .unwrap();
    bed.ask(|fs, call| fs.unlink(call, at("f1"))).unwrap();
    rest(&bed);
    assert!(Arc::ptr_eq(&held, &bed.fs.nodes().get(ids[0]).unwrap()));
    let mut buffer = [0; 7];
    assert_eq!(bed.fs.read(handle, 0, &mut buffer).unwrap(), 7);
    bed.fs.release(handle).unwrap();
    drop(held);
    for id in ids {
        bed.fs.forget(id, 1);
    }
    bed.assert_empty();
}

/// What the kernel has cached of a file is good until the content changes, whether its node rests or not.
#[test]
fn what_the_kernel_has_cached_stays_good() {
    let mut bed = Bed::new();
    let ids = known(&mut bed, 2);
    let keeps_cache = |bed: &mut Bed, id| {
        let opened = bed.ask(|fs, call| fs.open(call, id, libc::O_RDONLY, &mut no_backing));
        let (handle, opened) = opened.unwrap();
        bed.fs.release(handle).unwrap();
        opened.keep_cache
    };
    assert!(!keeps_cache(&mut bed, ids[0]));
    rest(&bed);
    assert_eq!(awake(&bed).len(), 1);
    assert!(keeps_cache(&mut bed, ids[0]));
    assert!(!keeps_cache(&mut bed, ids[1]), "never opened before");
}

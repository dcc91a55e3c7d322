//! What df shows.

use crate::harness::command::run;
use crate::harness::files::{create, fill, put};
use crate::harness::{KIB, Kind, MIB, Spec, Ve};

/// Size, used and available in bytes; inodes, used and free.
fn df(ve: &Ve) -> [u64; 6] {
    let root = ve.root();
    let fields = "--output=size,used,avail,itotal,iused,iavail";
    let outcome = run("df", ["-B1".as_ref(), fields.as_ref(), root.as_os_str()]).ok();
    let row = outcome.stdout.lines().nth(1).expect("a row");
    let row: Vec<u64> = row.split_whitespace().map(|n| n.parse().unwrap()).collect();
    row.try_into().expect("six columns")
}

// S22: the soft limit is the size; S24: over it nothing is free.
#[test]
fn the_soft_limit_is_the_size() {
    let Some(ve) = Spec::default().space(1024, 2048).inodes(50, 60).mount() else {
        return;
    };
    put(ve.path("file"), 256 * KIB);
    ve.assert_exact();
    let used = ve.used();
    let expected = [
        MIB,
        used.space,
        MIB - used.space,
        50,
        used.inodes,
        50 - used.inodes,
    ];
    assert_eq!(df(&ve), expected);
    put(ve.path("more"), MIB);
    let [size, _, available, ..] = df(&ve);
    assert_eq!((size, available), (MIB, 0));
    ve.setlimit(&["-b", "4M", "-B", "4M"]);
    assert_eq!(df(&ve)[0], 4 * MIB);
}

// S22: without a soft limit the hard one.
#[test]
fn the_hard_limit_where_there_is_no_soft_one() {
    let Some(ve) = Spec::default().mount() else {
        return;
    };
    ve.setlimit(&["-B", "8M", "-I", "80"]);
    let [size, _, _, inodes, ..] = df(&ve);
    assert_eq!((size, inodes), (8 * MIB, 80));
}

// S23: less room on the host is a smaller disk, not more usage.
#[test]
fn a_small_host_makes_a_small_disk() {
    let spec = Spec::default()
        .backing(Kind::Tmpfs { mib: 16 })
        .space(1 << 20, 1 << 20);
    let Some(ve) = spec.mount() else { return };
    let [size, used, available, ..] = df(&ve);
    assert!(size <= 16 * MIB, "{size}");
    assert_eq!(used, ve.used().space);
    assert_eq!(available, size - used);
    std::fs::write(ve.beside("other"), vec![0; 8 << 20]).unwrap();
    let [smaller, still_used, ..] = df(&ve);
    assert!(smaller <= size - 8 * MIB, "{smaller} of {size}");
    assert_eq!(still_used, used);
    std::fs::remove_file(ve.beside("other")).unwrap();
}

/// df agrees with what can be written, to the byte of a block.
#[test]
fn what_df_shows_free_can_be_written() {
    let Some(ve) = Spec::default()
        .backing(Kind::Tmpfs { mib: 64 })
        .space(2048, 2048)
        .mount()
    else {
        return;
    };
    let [_, _, available, ..] = df(&ve);
    let file = create(ve.path("file")).unwrap();
    assert_eq!(fill(&file, 4 * MIB).0 as u64, available);
    assert_eq!(df(&ve)[2], 0);
}

//! Records of the database, behind their checksums, and the readable copy of the limits beside it.
//!
//! Beyond "no panic": what can be read is written and read again as the same.
#![no_main]

use std::cell::RefCell;
use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use quota::Standing;
use quota::store::copy::{self, LimitsCopy};
use quota::store::record::{self, AccountRecord, InfoRecord, Record, SchemaRecord, key};
use simfs_fuzz::{IN_MEMORY, VE, seeds};

fn reads_as_written<T: Record + PartialEq + Debug>(key: &[u8], value: &[u8]) {
    if let Ok(record) = record::decode::<T>(key, value) {
        let again = record::decode::<T>(key, &record::encode(key, &record));
        assert_eq!(again.as_ref(), Ok(&record));
    }
}

/// A file of lines, each with its right checksum where it has the place for one.
fn sealed_lines(text: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    for line in text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        sealed.extend_from_slice(format!("{:08x} ", crc32fast::hash(line)).as_bytes());
        sealed.extend_from_slice(line);
        sealed.push(b'\n');
    }
    sealed
}

thread_local! {
    static DIR: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

fn read_copy(settings: &[u8], limits: &[u8]) {
    DIR.with_borrow_mut(|dir| {
        let dir = dir.get_or_insert_with(|| tempfile::tempdir_in(IN_MEMORY).expect("directory"));
        std::fs::write(dir.path().join(copy::SETTINGS), settings).expect("settings");
        std::fs::write(dir.path().join(copy::LIMITS), limits).expect("limits");
        let _any = LimitsCopy::read(dir.path(), VE);
    });
}

// Key, format number and payload, and the two files of the copy.
fuzz_target!(init: seeds::plant(seeds::records), |bytes: &[u8]| {
    let [key, body, settings, limits] = seeds::parts(bytes);
    let mut sum = crc32fast::Hasher::new();
    sum.update(key);
    sum.update(body);
    let value = [body, &sum.finalize().to_le_bytes()].concat();
    let _any = key::subject(key);
    reads_as_written::<AccountRecord>(key, &value);
    reads_as_written::<InfoRecord>(key, &value);
    reads_as_written::<SchemaRecord>(key, &value);
    reads_as_written::<Standing>(key, &value);
    read_copy(settings, limits);
    read_copy(&sealed_lines(settings), &sealed_lines(limits));
});

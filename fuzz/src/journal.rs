//! A sound journal, and its checksums. The layout is that of `quota/src/journal/format.rs`.

use quota::{Bytes, Charged, FileJournal, InodeId, Journal, Owner, Usage};

use crate::identity;

const HEADER: usize = 4096;
const INTENTS_END: usize = HEADER + 64 * 512;

/// A journal as a process that is killed leaves it: 200 inodes, seven names.
///
/// # Panics
/// Where no file can be made.
pub fn sound() -> Vec<u8> {
    let dir = tempfile::tempdir_in(crate::IN_MEMORY).expect("directory");
    let path = dir.path().join("journal");
    let journal = FileJournal::create(&path, identity()).expect("journal");
    let inode = |number: u64| InodeId::new(number, 1, &number.to_be_bytes());
    for number in 1..=200 {
        let charged = Charged {
            owner: Owner::new(1, 2),
            usage: Usage::inode(Bytes::new(number)),
        };
        journal.begin(&[(inode(number), Some(charged))]);
    }
    for number in 1..=7 {
        let _slot = journal.intend(&inode(number), format!("name{number}").as_bytes());
    }
    std::fs::read(&path).expect("journal")
}

/// Makes the checksums right again.
pub fn seal(file: &mut [u8]) {
    let (header, rest) = file.split_at_mut(HEADER.min(file.len()));
    if let Some((body, sum)) = header.split_last_chunk_mut() {
        *sum = crc32fast::hash(body).to_le_bytes();
    }
    let (intents, records) = rest.split_at_mut((INTENTS_END - HEADER).min(rest.len()));
    seal_parts(intents, HEADER, 512);
    seal_parts(records, INTENTS_END, 128);
}

fn seal_parts(bytes: &mut [u8], start: usize, length: usize) {
    for (index, part) in bytes.chunks_exact_mut(length).enumerate() {
        let at = u64::try_from(start + index * length).expect("place");
        if let Some((body, sum)) = part.split_last_chunk_mut() {
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&at.to_le_bytes());
            hasher.update(body);
            *sum = hasher.finalize().to_le_bytes();
        }
    }
}

//! Quota files in vfsv0 and vfsv1 form, as `vzquota import-quota-file` reads them.
//!
//! Beyond "no panic": what was read and written again reads as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quota::vfsv1;
use simfs_fuzz::seeds;

fuzz_target!(init: seeds::plant(seeds::quota_files), |bytes: &[u8]| {
    let Ok(file) = vfsv1::read(bytes) else { return };
    // Some things that can be read cannot be written: limits that are no whole blocks, longer grace periods.
    let once = vfsv1::read(&vfsv1::write(&file)).expect("what was written");
    assert_eq!(once.entries.len(), file.entries.len());
    assert_eq!(vfsv1::read(&vfsv1::write(&once)), Ok(once));
});

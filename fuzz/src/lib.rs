//! What several fuzz targets and the program that makes their seeds share.

pub mod journal;
pub mod seeds;
pub mod successor;

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use arbitrary::Arbitrary;
use quota::journal::Identity;
use quota::store::memory::MemoryStore;
use quota::{
    Bytes, Engine, Environment, Inodes, Limit, Limits, LimitsChange, Owner, Setup, Subject, Uid,
    Usage, VeId,
};

/// The VE of all targets.
pub const VE: VeId = VeId::new(101);

/// An engine in memory: two owners with 5000 bytes in two files each, limits for user 1000.
///
/// # Panics
/// If the store in memory fails, which nothing asks of it.
pub fn engine() -> Engine {
    let mut setup = Setup::new(VE, "/vz/private/101");
    let usage = Usage::new(Bytes::new(5000), Inodes::new(2));
    setup.usage.add(Owner::new(0, 0), usage);
    setup.usage.add(Owner::new(1000, 50), usage);
    let store = Arc::new(MemoryStore::new());
    let engine = Engine::create(store, Environment::default(), setup).expect("engine");
    let change = LimitsChange::to(Limits {
        space: Limit::new(Some(Bytes::new(4096)), Some(Bytes::new(8192))),
        inodes: Limit::UNLIMITED,
    });
    let _changed = engine
        .set_limits(Subject::User(Uid::new(1000)), &change)
        .expect("limits");
    engine
}

/// No order of an administrator moves usage.
///
/// # Panics
/// If one did.
pub fn assert_usage_unmoved(engine: &Engine) {
    let tally = engine.tally().expect("tally");
    assert_eq!(tally, engine_usage(), "usage has moved");
    assert_eq!(engine.invariant_violations(), 0);
}

fn engine_usage() -> quota::Tally {
    let mut tally = quota::Tally::default();
    let usage = Usage::new(Bytes::new(5000), Inodes::new(2));
    tally.add(Owner::new(0, 0), usage);
    tally.add(Owner::new(1000, 50), usage);
    tally
}

/// To what the journal of the fuzz target belongs.
pub fn identity() -> Identity {
    Identity {
        ve: VE,
        boot: "boot".into(),
        session: 7,
    }
}

/// Where files are made: in memory, for the sake of speed.
pub const IN_MEMORY: &str = "/dev/shm";

/// A file without a name, for readers that want a path.
#[derive(Debug)]
pub struct Scratch(File);

impl Scratch {
    /// Makes an empty one.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        tempfile::tempfile_in(IN_MEMORY).map(Self)
    }

    /// Replaces the content.
    ///
    /// # Errors
    /// The system's.
    pub fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.seek(SeekFrom::Start(0))?;
        self.0.write_all(bytes)
    }

    /// Where it can be opened while this value lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// Bytes that replace some of a sound file.
#[derive(Arbitrary, Debug)]
pub struct Patch {
    /// Where, modulo the length.
    pub at: u32,
    /// What.
    pub bytes: [u8; 8],
    /// How many of them, modulo nine.
    pub length: u8,
}

impl Patch {
    /// Replaces them.
    pub fn apply(&self, file: &mut [u8]) {
        let at = usize::try_from(self.at).unwrap_or(0) % file.len().max(1);
        let patch = self.bytes.iter().take(usize::from(self.length) % 9);
        file.iter_mut()
            .skip(at)
            .zip(patch)
            .for_each(|(to, from)| *to = *from);
    }
}

//! What a journal file says after the process that wrote it has died.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::inode::{Charged, InodeId};

use super::format::{
    CHUNK, CHUNK_RECORDS, Entry, Garbled, HEADER, Header, INTENT, INTENTS, Intent, RECORD,
    chunk_start, intent_start,
};
use super::{Epoch, Identity};

/// Why a journal cannot be used: the VE must be recounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// There is none.
    #[error("there is no journal")]
    Missing,
    /// It is of another VE, of another mount or private area, of another release, or from before the host was started.
    #[error("the journal is {0}")]
    Foreign(&'static str),
    /// The daemon could not write it any more.
    #[error("the journal is incomplete: it could not be written")]
    Incomplete,
    /// It was damaged.
    #[error("the journal is damaged: {0}")]
    Damaged(&'static str),
    /// It cannot be read.
    #[error("the journal cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl From<Garbled> for Unusable {
    fn from(Garbled(what): Garbled) -> Self {
        Self::Damaged(what)
    }
}

/// The content of a journal.
#[derive(Debug, Default)]
pub struct Image {
    entries: Vec<Entry>,
    intents: Vec<Intent>,
}

impl Image {
    /// Reads the journal of a VE in service that ended without a last commit.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn read(path: &Path, expected: &Identity) -> Result<Self, Unusable> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
            Err(error) => return Err(error.into()),
        };
        let length = file.metadata()?.len();
        let mut input = BufReader::with_capacity(CHUNK, file);
        let header = Header::decode(&part::<HEADER>(&mut input)?)?
            .ok_or(Unusable::Foreign("of another release of simfs"))?;
        if header.identity.ve != expected.ve {
            return Err(Unusable::Foreign("of another VE"));
        }
        if header.identity.boot != expected.boot {
            return Err(Unusable::Foreign(
                "from before the host was started, or of another private area",
            ));
        }
        if header.identity.session != expected.session {
            return Err(Unusable::Foreign("of another mount"));
        }
        if !header.sound {
            return Err(Unusable::Incomplete);
        }
        if length < chunk_start(header.chunks) {
            return Err(Unusable::Damaged("it is cut off"));
        }
        let mut image = Self::default();
        for slot in 0..INTENTS {
            let bytes = part::<INTENT>(&mut input)?;
            let intent = Intent::decode(&bytes, intent_start(slot))?;
            image.intents.extend(intent);
        }
        for chunk in 0..header.chunks {
            for at in (chunk_start(chunk)..).step_by(RECORD).take(CHUNK_RECORDS) {
                let bytes = part::<RECORD>(&mut input)?;
                image.entries.extend(Entry::decode(&bytes, at)?);
            }
        }
        Ok(image)
    }

    /// The inodes to look at, with what the totals of this commit hold for each.
    pub fn touched_since(&self, epoch: Epoch) -> HashMap<InodeId, Option<Charged>> {
        let mut first: HashMap<InodeId, &Entry> = HashMap::new();
        for entry in self.entries.iter().filter(|entry| entry.epoch >= epoch) {
            let known = first.entry(entry.inode).or_insert(entry);
            if entry.epoch < known.epoch {
                *known = entry;
            }
        }
        first
            .into_iter()
            .map(|(inode, entry)| (inode, entry.charged))
            .collect()
    }

    /// The names that were being made, each with its directory.
    pub fn intents(&self) -> impl Iterator<Item = (&InodeId, &[u8])> {
        let ended: HashSet<u64> = self.entries.iter().filter_map(|entry| entry.ends).collect();
        self.intents
            .iter()
            .filter(move |intent| !ended.contains(&intent.number))
            .map(|intent| (&intent.parent, intent.name.as_slice()))
    }
}

fn part<const N: usize>(input: &mut impl Read) -> Result<[u8; N], Unusable> {
    let mut bytes = [0; N];
    match input.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(Unusable::Damaged("it is cut off"))
        }
        Err(error) => Err(error.into()),
    }
}

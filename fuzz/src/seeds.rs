//! Inputs to begin with. Targets whose input is not bytes of a known form need none: they begin with something sound.

use std::path::Path;

use quota::store::record::{self, AccountRecord, InfoRecord, Record, SchemaRecord, key};
use quota::{Epoch, GracePeriods, QuotaType, Standing, Subject, Timestamp, Uid};
use simfs::control::frame::{self, MAX_REPLY};
use simfs::control::{Reply, Request, engine_reply};

use crate::VE;

/// Writes seeds where `SIMFS_FUZZ_SEEDS` says, if it does: `scripts/fuzz.sh` names the target's corpus.
///
/// # Panics
/// Where they cannot be written.
pub fn plant(seeds: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(dir) = std::env::var_os("SIMFS_FUZZ_SEEDS") else {
        return;
    };
    let dir = Path::new(&dir);
    std::fs::create_dir_all(dir).expect("corpus");
    for (number, seed) in seeds().into_iter().enumerate() {
        std::fs::write(dir.join(format!("seed-{number}")), seed).expect("seed");
    }
}

/// Quota files that other tools wrote.
pub fn quota_files() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../quota/tests/fixtures/user.vfsv1").to_vec(),
        include_bytes!("../../quota/tests/fixtures/group.vfsv1").to_vec(),
        include_bytes!("../../quota/tests/fixtures/user.vfsv0").to_vec(),
    ]
}

/// Frames of requests, and of what an engine replies to them.
///
/// # Panics
/// If a message does not fit its frame.
pub fn frames() -> Vec<Vec<u8>> {
    let engine = crate::engine();
    let account = engine
        .account(Subject::User(Uid::new(1000)))
        .expect("account");
    let copy = quota::store::copy::AccountCopy {
        subject: account.subject,
        limits: account.limits,
        deadlines: account.deadlines,
    };
    let requests = [
        Request::Status,
        Request::Stop { lazy: true },
        Request::Check { repair: false },
        Request::Upgrade,
        Request::SetAccounts(vec![copy]),
        Request::Accounts {
            kind: QuotaType::User,
            from: 0,
            max: 100,
        },
    ];
    let mut frames = Vec::new();
    for request in requests {
        frames.push(frame::encode(&request, MAX_REPLY).expect("request"));
        if let Some(reply) = engine_reply(&engine, request) {
            frames.push(frame::encode::<Reply>(&reply, MAX_REPLY).expect("reply"));
        }
    }
    frames
}

/// One record of each kind under its key, and lines of a copy of limits. See [`parts`].
pub fn records() -> Vec<Vec<u8>> {
    let user = key::account(Subject::User(Uid::new(1000)));
    let info = InfoRecord {
        ve: VE,
        private: "/vz/private/101".into(),
        grace: [GracePeriods::default(); 3],
        enforced: [true, false, true],
        ugid_limit: 100,
        epoch: 7,
        created: Timestamp::new(1_700_000_000),
    };
    let standing = Standing::Journaled {
        session: 7,
        epoch: Epoch::new(9),
    };
    let settings = br#"{"epoch":7,"ve":101,"private":"/vz/private/101"}"#;
    let limits = br#"{"epoch":12,"subject":{"user":1000},"limits":{"space":{"soft":1,"hard":2},"inodes":{}},"deadlines":{}}"#;
    vec![
        joined(
            &user,
            &body(&user, &AccountRecord::default()),
            settings,
            limits,
        ),
        joined(&key::info(), &body(&key::info(), &info), settings, limits),
        joined(
            &key::schema(),
            &body(&key::schema(), &SchemaRecord { ve: VE }),
            b"",
            b"",
        ),
        joined(
            &key::standing(),
            &body(&key::standing(), &standing),
            b"",
            b"",
        ),
    ]
}

/// The value without its checksum.
fn body<T: Record>(key: &[u8], record: &T) -> Vec<u8> {
    let mut bytes = record::encode(key, record);
    bytes.truncate(bytes.len().saturating_sub(4));
    bytes
}

fn joined(key: &[u8], body: &[u8], settings: &[u8], limits: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [key, body, settings, limits] {
        bytes.extend(u16::try_from(part.len()).expect("length").to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Splits bytes: before each part its length, little-endian, 16 bits. What is missing is empty.
pub fn parts<const N: usize>(mut bytes: &[u8]) -> [&[u8]; N] {
    std::array::from_fn(|_| {
        let Some((length, rest)) = bytes.split_first_chunk() else {
            return Default::default();
        };
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (part, rest) = rest.split_at(length);
        bytes = rest;
        part
    })
}

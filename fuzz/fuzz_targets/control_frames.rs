//! Frames of the control protocol, both ways, and what a running VE's engine answers to any request that can be read.
//!
//! Beyond "no panic": a message that was read is written and read again as the same.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use simfs::control::frame::{self, MAX_REPLY, MAX_REQUEST, VERSION};
use simfs::control::{Reply, Request, engine_reply};
use simfs_fuzz::seeds;

fn messages<T: DeserializeOwned + Serialize + PartialEq + Debug>(
    mut bytes: &[u8],
    max: u32,
) -> Vec<T> {
    let mut found = Vec::new();
    while let Ok(Some(message)) = frame::read::<T>(&mut bytes, max) {
        // What is longer written than read may not fit.
        if let Ok(frame) = frame::encode(&message, max) {
            let again = frame::read::<T>(&mut frame.as_slice(), max).expect("what was written");
            assert_eq!(again.as_ref(), Some(&message));
        }
        found.push(message);
    }
    found
}

/// The bytes as the body of one frame.
fn framed(json: &[u8]) -> Vec<u8> {
    let length = u32::try_from(json.len() + 1).expect("length").to_le_bytes();
    [&length, &[VERSION][..], json].concat()
}

fuzz_target!(init: seeds::plant(seeds::frames), |bytes: &[u8]| {
    let _replies = messages::<Reply>(bytes, MAX_REPLY);
    let _replies = messages::<Reply>(&framed(bytes), MAX_REPLY);
    let mut requests = messages::<Request>(bytes, MAX_REQUEST);
    requests.extend(messages::<Request>(&framed(bytes), MAX_REQUEST));
    if requests.is_empty() {
        return;
    }
    let engine = simfs_fuzz::engine();
    for request in requests {
        if let Some(reply) = engine_reply(&engine, request) {
            let frame = frame::encode(&reply, MAX_REPLY).expect("a reply fits");
            let again = frame::read::<Reply>(&mut frame.as_slice(), MAX_REPLY).expect("reply");
            assert_eq!(again, Some(reply));
        }
    }
    simfs_fuzz::assert_usage_unmoved(&engine);
});

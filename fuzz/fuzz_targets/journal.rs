//! The journal of a daemon that died: patches over a sound one, the checksums of all parts made right again or not.
//!
//! Beyond "no panic": without right checksums nothing but what was there is read.
#![no_main]

use std::cell::RefCell;
use std::collections::HashMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use quota::journal::Image;
use quota::{Charged, Epoch, InodeId};
use simfs_fuzz::{Patch, Scratch, identity, journal};

#[derive(Arbitrary, Debug)]
struct Case {
    patches: Vec<Patch>,
    sealed: bool,
    cut: Option<u32>,
}

/// What a recovery would take from it.
type Content = (HashMap<InodeId, Option<Charged>>, Vec<(InodeId, Vec<u8>)>);

fn content(image: &Image) -> Content {
    let intents = image
        .intents()
        .map(|(parent, name)| (*parent, name.to_vec()));
    (image.touched_since(Epoch::default()), intents.collect())
}

struct Kept {
    file: Scratch,
    sound: Vec<u8>,
    content: Content,
}

impl Kept {
    fn make() -> Self {
        let (mut file, sound) = (Scratch::new().expect("file"), journal::sound());
        let mut sealed = sound.clone();
        journal::seal(&mut sealed);
        assert!(sealed == sound, "the journal has another layout now");
        file.replace(&sound).expect("write");
        let image = Image::read(&file.path(), &identity()).expect("sound");
        Self {
            file,
            sound,
            content: content(&image),
        }
    }
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

fuzz_target!(|case: Case| {
    KEPT.with_borrow_mut(|kept| {
        let kept = kept.get_or_insert_with(Kept::make);
        let mut bytes = kept.sound.clone();
        case.patches
            .iter()
            .for_each(|patch| patch.apply(&mut bytes));
        if case.sealed {
            journal::seal(&mut bytes);
        }
        if let Some(cut) = case.cut {
            bytes.truncate(usize::try_from(cut).unwrap_or(usize::MAX));
        }
        kept.file.replace(&bytes).expect("write");
        let Ok(found) = Image::read(&kept.file.path(), &identity()) else {
            return;
        };
        let found = content(&found);
        assert!(
            case.sealed || found == kept.content,
            "damage was read: {found:?}"
        );
    });
});

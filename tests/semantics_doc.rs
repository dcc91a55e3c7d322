//! Every numbered promise of SEMANTICS.md has a test that quotes its number in a comment (`// S12: ...`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("workspace")
        .to_owned()
}

/// The numbers in `- S12. ...`, in order.
fn promises() -> Vec<u32> {
    let text = fs::read_to_string(top().join("SEMANTICS.md")).expect("SEMANTICS.md");
    text.lines()
        .filter_map(|line| line.strip_prefix("- S"))
        .map(|rest| {
            rest.split_once('.')
                .and_then(|(number, _)| number.parse().ok())
                .expect("a number")
        })
        .collect()
}

/// The numbers after `S` in the comments of a source.
fn quoted(text: &str) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for comment in text
        .lines()
        .filter_map(|line| line.split_once("//"))
        .map(|(_, comment)| comment)
    {
        for word in comment.split(|c: char| !c.is_ascii_alphanumeric()) {
            found.extend(
                word.strip_prefix('S')
                    .and_then(|number| number.parse::<u32>().ok()),
            );
        }
    }
    found
}

/// Sources that hold tests: those of this package, and of the others below src and tests.
fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("target") && !entry.file_name().to_string_lossy().starts_with('.') {
                sources(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn promises_are_numbered_without_gaps() {
    let mut numbers = promises();
    // A new one has the next number and stands in its section.
    numbers.sort_unstable();
    let expected: Vec<u32> = (1..=numbers.len() as u32).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn every_promise_is_quoted_by_a_test() {
    let mut files = Vec::new();
    sources(&top(), &mut files);
    let quotes: BTreeSet<u32> = files
        .iter()
        .map(|path| fs::read_to_string(path).expect("source"))
        .filter(|text| text.contains("#[test]"))
        .flat_map(|text| quoted(&text))
        .collect();
    let promised: BTreeSet<u32> = promises().into_iter().collect();
    let untested: Vec<_> = promised.difference(&quotes).collect();
    let unknown: Vec<_> = quotes.difference(&promised).collect();
    assert!(
        untested.is_empty(),
        "promises without a test: S{untested:?}"
    );
    assert!(
        unknown.is_empty(),
        "tests quote what is not promised: S{unknown:?}"
    );
}

#[test]
fn only_comments_quote() {
    assert_eq!(
        quoted("let x = S9; // S1, S2: both\n/// S3\n//! S4"),
        BTreeSet::from([1, 2, 3, 4])
    );
    assert_eq!(quoted("S5 // SIMFS S-6 XS7"), BTreeSet::new());
}

//! The arrows of ARCHITECTURE.md, checked in manifests and sources: who may know whom.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("workspace")
        .to_owned()
}

/// Sources below a directory, by their paths from the top, without comments and unit tests.
fn code(dir: &str) -> Vec<(String, String)> {
    let mut pending = vec![top().join(dir)];
    let mut found = Vec::new();
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at)
            .unwrap_or_else(|_| panic!("{}", at.display()))
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(top())
                    .expect("below the top")
                    .display()
                    .to_string();
                found.push((
                    name,
                    without_comments(&fs::read_to_string(&path).expect("source")),
                ));
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {dir}");
    found
}

fn without_comments(text: &str) -> String {
    let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    product
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether a word stands alone in a text.
fn names(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Whether a text uses a crate: `NAME::` at the start of a path.
fn uses_crate(text: &str, name: &str) -> bool {
    let path = format!("{name}::");
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.match_indices(&path)
        .any(|(at, _)| !text[..at].chars().next_back().is_some_and(is_part))
}

/// Fails for every source below `dirs` that names one of `words`, unless its path starts with one of `but`.
#[track_caller]
fn nobody_names(words: &[&str], dirs: &[&str], but: &[&str]) {
    nobody(names, words, dirs, but);
}

/// As [`nobody_names`], for the names of crates.
#[track_caller]
fn nobody_uses(crates: &[&str], dirs: &[&str], but: &[&str]) {
    nobody(uses_crate, crates, dirs, but);
}

#[track_caller]
fn nobody(does: fn(&str, &str) -> bool, words: &[&str], dirs: &[&str], but: &[&str]) {
    let mut broken = Vec::new();
    for (path, text) in dirs.iter().flat_map(|dir| code(dir)) {
        if but.iter().any(|allowed| path.starts_with(allowed)) {
            continue;
        }
        broken.extend(
            words
                .iter()
                .filter(|word| does(&text, word))
                .map(|word| format!("{path}: {word}")),
        );
    }
    assert!(broken.is_empty(), "only {but:?} may: {broken:#?}");
}

/// Names in the dependency tables of a package.
fn dependencies(package: &str, table: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(top().join(package).join("Cargo.toml")).expect("manifest");
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line == format!("[{table}]");
        } else if inside {
            found.extend(
                line.split(['=', '.', ' '])
                    .next()
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned),
            );
        }
    }
    found
}

const PRODUCT: [&str; 3] = ["quota/src", "simfs/src", "tools/src"];

#[test]
fn packages_depend_downwards_only() {
    let members = [
        "simfs-quota",
        "simfs",
        "simfs-tools",
        "simfs-bench",
        "simfs-tests",
    ];
    let rows = [
        ("quota", &[][..]),
        ("simfs", &["simfs-quota"][..]),
        ("tools", &["simfs-quota", "simfs"][..]),
    ];
    for (package, allowed) in rows {
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for name in dependencies(package, table)
                .iter()
                .filter(|name| members.contains(&name.as_str()))
            {
                assert!(
                    allowed.contains(&name.as_str()),
                    "{package} must not depend on {name}"
                );
            }
        }
    }
}

#[test]
fn the_fuse_library_is_named_in_one_module() {
    nobody_uses(
        &["fuser"],
        &PRODUCT,
        &["simfs/src/fuse.rs", "simfs/src/fuse/"],
    );
}

#[test]
fn the_database_is_named_in_one_file() {
    // Below it only tests of that file.
    let one = ["quota/src/store/redb.rs", "quota/src/store/redb/"];
    nobody_uses(&["redb"], &PRODUCT, &one);
}

#[test]
fn unsafe_code_is_below_sys() {
    // The one exception lends numbers to the protocol library; its header says why.
    nobody_names(
        &["unsafe"],
        &PRODUCT,
        &[
            "simfs/src/sys/",
            "simfs/src/sys.rs",
            "simfs/src/fuse/backing.rs",
        ],
    );
    nobody_names(&["unsafe"], &["tests"], &["tests/layering.rs"]);
}

#[test]
fn the_quota_engine_knows_no_outside() {
    nobody_uses(&["fuser", "simfs"], &["quota/src"], &[]);
    nobody_names(
        &["UnixStream", "UnixListener", "seccomp"],
        &["quota/src"],
        &[],
    );
}

#[test]
fn file_operations_know_no_transport_and_no_tools() {
    let words = ["fuser", "crate::control", "crate::quotactl", "crate::ve"];
    nobody_uses(&words, &["simfs/src/fs"], &[]);
}

#[test]
fn what_file_operations_stand_on_knows_none_of_them() {
    let above = ["simfs/src/fs", "simfs/src/fuse", "simfs/src/ve"];
    nobody_uses(&["crate::fs"], &["simfs/src"], &above);
    // What outlives a daemon means nothing that a later one could see otherwise.
    let words = ["crate::accounting", "crate::handle", "crate::node"];
    nobody_uses(&words, &["simfs/src/shared"], &[]);
}

#[test]
fn only_the_errno_table_names_error_numbers() {
    let engine = ["quota/src"];
    nobody_names(&["EDQUOT", "ENOSPC", "EIO"], &engine, &["quota/src/store"]);
}

#[test]
fn no_module_files() {
    for dir in ["quota", "simfs", "tools", "bench", "tests"] {
        let modules: Vec<_> = code(dir)
            .into_iter()
            .map(|(path, _)| path)
            .filter(|path| path.ends_with("/mod.rs"))
            .collect();
        assert!(modules.is_empty(), "{modules:?}");
    }
}

#[test]
fn words_are_found_alone() {
    assert!(names("use fuser::Session;", "fuser"));
    assert!(!names("use confuser; fuser_like", "fuser"));
    assert!(uses_crate("use fuser::Session;", "fuser"));
    assert!(!uses_crate(
        "use store::fuser::X; confuser::y(); run(\"fuser -m\")",
        "fuser"
    ));
    assert_eq!(without_comments("a // fuser\nb"), "a \nb");
}

//! Manual pages and completion say what the programs do: all of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use simfs_tools::absent;
use simfs_tools::exit::{Exit, MountHelperExit, SimfsExit, VzctlExit, VzlistExit, VzquotaExit};
use simfs_tools::keys::KEYS;
use simfs_tools::setting::SETTINGS;

use crate::host::{Host, words};

const SIMFS: &str = env!("CARGO_BIN_EXE_simfs");
const VZQUOTA: &str = env!("CARGO_BIN_EXE_vzquota");
const VZCTL: &str = env!("CARGO_BIN_EXE_vzctl");
const VZLIST: &str = env!("CARGO_BIN_EXE_vzlist");
const VZPKG: &str = env!("CARGO_BIN_EXE_vzpkg");

/// Every page, and who prints it.
const PAGES: [(&str, &str); 7] = [
    (SIMFS, "simfs.8"),
    (SIMFS, "mount.simfs.8"),
    (VZQUOTA, "vzquota.8"),
    (VZCTL, "vzctl.8"),
    (VZCTL, "vz.conf.5"),
    (VZLIST, "vzlist.8"),
    (VZPKG, "vzpkg.8"),
];

/// A page, freed of what only roff needs.
fn page(program: &str, name: &str) -> String {
    let ended = Host::new().run(program, &["--generate", name]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{name}");
    let plain = ended.out.replace("\\-", "-").replace("\\&", "");
    ["\\fB", "\\fI", "\\fR"]
        .iter()
        .fold(plain, |text, font| text.replace(font, ""))
}

/// The options that a help text explains.
fn options(help: &str) -> BTreeSet<String> {
    help.lines()
        .filter_map(|line| Some(line.trim_start()).filter(|line| line.starts_with('-')))
        .flat_map(|line| {
            let words = line.split("  ").next().unwrap_or("").split([' ', ',']);
            words
                .filter(|word| word.starts_with('-') && *word != "-")
                .map(|word| word.trim_end_matches('.').to_owned())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or("");
    list.lines()
        .take_while(|line| !line.trim().is_empty())
        .filter_map(|line| {
            let name = line.strip_prefix("  ")?.split(' ').next()?;
            (!name.is_empty() && name != "help").then(|| name.to_owned())
        })
        .collect()
}

#[test]
fn every_option_of_every_command_is_in_the_page() {
    let host = Host::new();
    for (program, name) in [
        (SIMFS, "simfs.8"),
        (VZQUOTA, "vzquota.8"),
        (VZCTL, "vzctl.8"),
        (VZLIST, "vzlist.8"),
        (VZPKG, "vzpkg.8"),
    ] {
        let page = page(program, name);
        let top = host.run(program, &["--help"]).out;
        let mut calls = vec![vec!["--help".to_owned()]];
        calls.extend(
            commands(&top)
                .into_iter()
                .map(|sub| vec![sub, "--help".into()]),
        );
        for call in calls {
            // The part of the page that is about the command.
            let heading = format!(".SS \"{} {}\"\n", name.trim_end_matches(".8"), call[0]);
            let part = match call.len() {
                1 => page.split(".SH COMMANDS").next().unwrap(),
                _ => {
                    let rest = page.split(&heading).nth(1);
                    let rest = rest.unwrap_or_else(|| panic!("{name}: no {heading}"));
                    rest.split("\n.S").next().unwrap()
                }
            };
            let above = page.split(".SH COMMANDS").next().unwrap();
            let help = host.run(program, &call).out;
            let explained = options(&help);
            assert!(!explained.is_empty(), "{call:?}: {help}");
            for option in explained {
                let is_there = |text: &str| {
                    text.lines().any(|line| {
                        line.starts_with('-') && line.split([' ', ',']).any(|word| word == option)
                    })
                };
                assert!(
                    is_there(part) || is_there(above),
                    "{name}: {call:?}: {option}"
                );
            }
        }
    }
}

#[test]
fn every_exit_code_is_in_the_page_and_in_the_help() {
    fn check(program: &str, name: &str, exits: &[impl Exit]) {
        let page = page(program, name);
        let help = Host::new().run(program, &["--help"]).out;
        let help = words(&help).join(" ");
        for exit in exits {
            let (code, meaning) = exit.row();
            let rest = meaning.get(1..).unwrap();
            let in_page = page
                .split(&format!(".TP\n{code}\n"))
                .nth(1)
                .is_some_and(|text| text.get(1..).is_some_and(|text| text.starts_with(rest)));
            assert!(in_page, "{name}: {code} {meaning}");
            let is_helper = name.starts_with("mount");
            assert!(
                is_helper || help.contains(&format!("{code} {meaning}")),
                "{name}: {code}"
            );
        }
    }
    check(SIMFS, "simfs.8", SimfsExit::ALL);
    check(SIMFS, "mount.simfs.8", MountHelperExit::ALL);
    check(VZQUOTA, "vzquota.8", VzquotaExit::ALL);
    check(VZCTL, "vzctl.8", VzctlExit::ALL);
    check(VZLIST, "vzlist.8", VzlistExit::ALL);
    let vzpkg = ["main.rs", "debian.rs", "import.rs", "oci.rs"].map(|file| format!("vzpkg/{file}"));
    let vzpkg: Vec<&str> = vzpkg.iter().map(String::as_str).collect();
    check(VZPKG, "vzpkg.8", &used(VzctlExit::ALL, &vzpkg));
}

/// The codes that sources name outside of their list for the page.
fn used(all: &[VzctlExit], files: &[&str]) -> Vec<VzctlExit> {
    let text: String = files
        .iter()
        .map(|file| std::fs::read_to_string(sources().join("bin").join(file)).unwrap())
        .collect();
    let (before, list) = text.split_once("const EXITS").unwrap_or((&text, "];"));
    let text = [before, list.split_once("];").unwrap().1].concat();
    let is_used = |exit: &VzctlExit| {
        let name = format!("VzctlExit::{exit:?}");
        text.match_indices(&name).any(|(at, _)| {
            let after = text
                .get(at + name.len()..)
                .and_then(|rest| rest.chars().next());
            !after.is_some_and(char::is_alphanumeric)
        })
    };
    let used: Vec<VzctlExit> = all.iter().copied().filter(is_used).collect();
    assert!(!used.is_empty(), "{files:?}");
    used
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// A key that the programs read and that no page explains would be a secret.
#[test]
fn every_key_of_the_configuration_is_in_the_page() {
    let page = page(VZCTL, "vz.conf.5");
    let known: BTreeSet<&str> = KEYS
        .iter()
        .map(|key| key.name)
        .chain(SETTINGS.iter().map(|setting| setting.key))
        .collect();
    for key in &known {
        let item = format!(".TP\n{key}");
        assert!(page.contains(&item), "{key}");
    }
    let mut files = Vec::new();
    rust_files(&sources(), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests below the code make up keys of their own.
        let text = text.split("#[cfg(test)]").next().unwrap();
        for call in [
            ".get(\"",
            ".number(\"",
            ".is_on(\"",
            ".pair(\"",
            ".ve_path(ve, \"",
        ] {
            for rest in text.split(call).skip(1) {
                let key = rest.split('"').next().unwrap();
                let is_key = key
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'_');
                assert!(
                    !is_key || known.contains(key),
                    "{}: {key} is read but stands neither in keys.rs nor in setting.rs",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn man_finds_nothing_wrong_with_the_pages() {
    if Command::new("man").arg("--version").output().is_err() {
        skip("man is not installed");
        return;
    }
    let host = Host::new();
    for (program, name) in PAGES {
        let file = host.path(name);
        std::fs::write(&file, host.run(program, &["--generate", name]).out).unwrap();
        let mut man = Command::new("man");
        let shown = man
            .env("LC_ALL", "C.UTF-8")
            .env("MANWIDTH", "100")
            .args(["--warnings=w", "--local-file"])
            .arg(&file)
            .output()
            .unwrap();
        let complaints = String::from_utf8_lossy(&shown.stderr);
        assert!(
            shown.status.success() && complaints.is_empty(),
            "{name}: {complaints}"
        );
        let text = String::from_utf8_lossy(&shown.stdout);
        assert!(
            text.contains("NAME") && text.contains("SEE ALSO"),
            "{name}: {text}"
        );
    }
}

/// Counted by scripts/test.sh; with SIMFS_STRICT=1 a failure.
fn skip(reason: &str) {
    assert_ne!(
        std::env::var("SIMFS_STRICT").as_deref(),
        Ok("1"),
        "skipped: {reason}"
    );
    if let Some(log) = std::env::var_os("SIMFS_SKIP_LOG") {
        use std::io::Write;
        let mut log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(log)
            .unwrap();
        writeln!(log, "manual: {reason}").unwrap();
    }
}

#[test]
fn a_page_that_is_not_there_is_refused_with_those_that_are() {
    for arguments in [&["--generate"][..], &["--generate", "vzctl.1"]] {
        let ended = Host::new().run(VZCTL, arguments);
        assert_eq!(
            (ended.code, ended.err.lines().count()),
            (20, 1),
            "{ended:?}"
        );
        assert!(ended.err.contains("vzctl.8, vz.conf.5"), "{ended:?}");
    }
}

/// What bash is offered after these words; the last one is being typed.
fn offered(host: &Host, program: &str, line: &[&str]) -> Vec<String> {
    let output = Command::new(program)
        .env("SIMFS_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", (line.len() - 1).to_string())
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .env("_CLAP_COMPLETE_IFS", "\n")
        .env("SIMFS_PREFIX", host.prefix())
        .arg("--")
        .args(line)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(['\n', '\u{b}']).map(str::to_owned).collect()
}

#[test]
fn shells_are_offered_every_option_of_every_command() {
    let host = Host::new();
    for (program, name) in [
        (SIMFS, "simfs"),
        (VZQUOTA, "vzquota"),
        (VZCTL, "vzctl"),
        (VZLIST, "vzlist"),
        (VZPKG, "vzpkg"),
    ] {
        let top = host.run(program, &["--help"]).out;
        let mut calls: Vec<Vec<String>> = commands(&top).into_iter().map(|sub| vec![sub]).collect();
        calls.push(Vec::new());
        for call in calls {
            let words: Vec<&str> = call.iter().map(String::as_str).collect();
            let help = host.run(program, &[&words[..], &["--help"]].concat()).out;
            let offered = offered(&host, program, &[&[name], &words[..], &["--"]].concat());
            for option in options(&help).iter().filter(|word| word.starts_with("--")) {
                let is_there = offered
                    .iter()
                    .any(|word| word.trim_end_matches('=') == option);
                assert!(is_there, "{name} {call:?}: {option} is not in {offered:?}");
            }
        }
    }
}

#[test]
fn what_is_absent_is_in_the_page() {
    for (name, lists) in [
        ("vzctl.8", &[absent::COMMANDS, absent::OPTIONS][..]),
        ("vzlist.8", &[absent::COLUMNS]),
    ] {
        let program = if name == "vzctl.8" { VZCTL } else { VZLIST };
        let page = page(program, name);
        let part = page.split(".SH \"NOT SUPPORTED\"").nth(1).unwrap();
        for absent in lists.iter().flat_map(|list| list.iter()) {
            let is_there = |word: &&str| part.contains(word);
            assert!(absent.names.iter().all(is_there), "{:?}", absent.names);
        }
    }
}

#[test]
fn shells_are_offered_commands_options_ves_and_templates() {
    let host = Host::new();
    for file in [
        "etc/vz/conf/101.conf",
        "etc/vz/conf/102.conf",
        "run/simfs/102/control.sock",
    ] {
        std::fs::create_dir_all(host.path(file).parent().unwrap()).unwrap();
        std::fs::write(host.path(file), "").unwrap();
    }
    std::fs::create_dir_all(host.path("var/lib/simfs/103")).unwrap();
    std::fs::create_dir_all(host.path("vz/template/cache/debian-12")).unwrap();
    type Words = &'static [&'static str];
    let rows: [(&str, Words, Words, Words); 8] = [
        (
            VZCTL,
            &["vzctl", "st"],
            &["start", "stop", "status"],
            &["create"],
        ),
        (VZCTL, &["vzctl", "start", ""], &["101", "103"], &["102"]),
        (VZCTL, &["vzctl", "stop", ""], &["102"], &["101"]),
        (
            VZCTL,
            &["vzctl", "set", "101", "--disk"],
            &["--diskspace", "--diskinodes"],
            &["--ram"],
        ),
        (
            VZCTL,
            &["vzctl", "create", "104", "--ostemplate", ""],
            &["debian-12"],
            &[],
        ),
        (
            VZQUOTA,
            &["vzquota", "setlimit", ""],
            &["101", "102", "103"],
            &[],
        ),
        (SIMFS, &["simfs", "umount", ""], &["102"], &["101"]),
        (VZPKG, &["vzpkg", "remove", ""], &["debian-12"], &[]),
    ];
    for (program, line, wanted, unwanted) in rows {
        let offer = offered(&host, program, line);
        for word in wanted {
            assert!(
                offer.iter().any(|offered| offered == word),
                "{line:?}: {offer:?}"
            );
        }
        for word in unwanted {
            assert!(
                !offer.iter().any(|offered| offered == word),
                "{line:?}: {offer:?}"
            );
        }
    }
    for (program, name) in [(VZCTL, "vzctl"), (SIMFS, "simfs")] {
        let output = Command::new(program)
            .env("SIMFS_COMPLETE", "bash")
            .output()
            .unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(
            script.contains("complete ") && script.contains(name),
            "{script}"
        );
    }
}

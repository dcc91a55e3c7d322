//! What `make install` puts on a host, and that `make uninstall` takes away just that.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::command::{Outcome, finish, program, run};
use crate::harness::require;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn installer(action: &str, prefix: &str, root: &Path) -> Outcome {
    let mut command = Command::new(top().join("scripts/install.sh"));
    let bin = program("simfs");
    command
        .args([action, prefix])
        .env("DESTDIR", root)
        .env("BIN_DIR", bin.parent().expect("directory"));
    finish(&mut command)
}

/// Every file and link below a directory, from there.
fn files(root: &Path) -> BTreeSet<String> {
    fn walk(dir: &Path, root: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).expect("directory").flatten() {
            let path = entry.path();
            if entry.file_type().expect("type").is_dir() {
                walk(&path, root, found);
            } else {
                let inside = path.strip_prefix(root).expect("below");
                found.insert(inside.display().to_string());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(root, root, &mut found);
    found
}

#[test]
fn what_is_installed_works_and_is_removed_again() {
    let dir = tempfile::tempdir().expect("directory");
    let root = dir.path();
    // What was there before, and what the administrator makes.
    let own = [
        "usr/local/sbin/own",
        "etc/vz/conf/101.conf",
        "usr/local/share/man/man8/own.8",
    ];
    for file in own {
        std::fs::create_dir_all(root.join(file).parent().expect("parent")).expect("directory");
        std::fs::write(root.join(file), "").expect("file");
    }
    installer("install", "/usr/local", root).ok();
    installer("install", "/usr/local", root).ok();
    let found = files(root);
    for program in ["simfs", "vzquota", "vzctl", "vzlist", "vzpkg"] {
        for file in [
            format!("usr/local/sbin/{program}"),
            format!("usr/local/share/man/man8/{program}.8"),
            format!("usr/local/share/bash-completion/completions/{program}"),
            format!("usr/local/share/zsh/site-functions/_{program}"),
            format!("usr/local/share/fish/vendor_completions.d/{program}.fish"),
        ] {
            assert!(found.contains(&file), "{file} is not in {found:?}");
        }
    }
    assert!(!found.iter().any(|file| file.contains(".new")), "{found:?}");
    let sbin = root.join("usr/local/sbin");
    for (name, says) in [
        ("mount.simfs", "mount.simfs "),
        ("vzpkgls", "vzpkg "),
        ("vzctl", "vzctl "),
    ] {
        let path = sbin.join(name);
        let version = run(path.to_str().expect("UTF-8"), ["--version"])
            .ok()
            .stdout;
        assert!(version.starts_with(says), "{name}: {version}");
    }
    let yum = run(
        sbin.join("vzyum").to_str().expect("UTF-8"),
        ["install", "nano"],
    );
    yum.refused(20, "apt-get install");
    let helper = std::fs::read_link(root.join("sbin/mount.simfs")).expect("mount(8)'s helper");
    assert_eq!(helper, Path::new("/usr/local/sbin/simfs"));
    let page = std::fs::read_to_string(root.join("usr/local/share/man/man5/vz.conf.5"));
    assert!(page.expect("page").contains("VE_PRIVATE"));

    let removed = installer("uninstall", "/usr/local", root).ok();
    assert!(removed.stderr.contains("untouched"), "{removed:?}");
    assert_eq!(files(root), own.map(str::to_owned).into());
    installer("uninstall", "/usr/local", root).ok();
}

#[test]
fn units_call_the_programs_where_they_are_installed() {
    let dir = tempfile::tempdir().expect("directory");
    installer("install", "/opt/simfs", dir.path()).ok();
    for unit in ["vz.service", "simfs@.service"] {
        let path = dir.path().join("opt/simfs/lib/systemd/system").join(unit);
        let text = std::fs::read_to_string(path).expect(unit);
        let calls = text
            .lines()
            .filter_map(|line| line.strip_prefix("Exec")?.split_once('='));
        for (_, call) in calls {
            let program = call.split(' ').next().expect("program");
            assert!(program.starts_with("/opt/simfs/sbin/"), "{unit}: {call}");
            assert!(dir.path().join(&program[1..]).exists(), "{unit}: {call}");
        }
        assert!(!text.contains("/usr/local"), "{unit}: {text}");
    }
    installer("install", "relative", dir.path()).expect(1);
    installer("dance", "/usr/local", dir.path()).expect(1);
}

/// bash's own completion with what is installed, as at the prompt.
#[test]
fn the_shell_completes_with_what_is_installed() {
    let dir = tempfile::tempdir().expect("directory");
    installer("install", "/usr/local", dir.path()).ok();
    let script = "PATH=$1/usr/local/sbin:$PATH; . \"$1/usr/local/share/bash-completion/completions/vzctl\"; \
                  COMP_WORDS=(vzctl sta); COMP_CWORD=1; COMP_TYPE=9; _clap_complete_vzctl vzctl sta vzctl; \
                  printf '%s\\n' \"${COMPREPLY[@]}\"";
    let place = dir.path().to_str().expect("UTF-8");
    let offered = run("bash", ["-c", script, "bash", place]).ok().stdout;
    assert_eq!(offered, "start\nstatus\n");
}

/// fish finds what is installed by itself.
#[test]
fn fish_completes_with_what_is_installed() {
    if !require::programs(&["fish"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    installer("install", "/usr/local", dir.path()).ok();
    let mut fish = with_installed("fish", dir.path());
    fish.args(["-c", "complete -C 'vzctl sta'"]);
    let offered = finish(&mut fish).ok().stdout;
    let words: Vec<&str> = offered
        .lines()
        .filter_map(|line| line.split('\t').next())
        .collect();
    assert_eq!(words, ["start", "status"]);
}

/// A key press on a terminal of zsh's own; it waits for what is to be seen there.
#[test]
fn zsh_completes_with_what_is_installed() {
    if !require::programs(&["zsh"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    installer("install", "/usr/local", dir.path()).ok();
    let script = "zmodload zsh/zpty; zpty -b shell zsh -f -i
        zpty -w shell \"fpath=($1/usr/local/share/zsh/site-functions \\$fpath); \
        autoload -U compinit; compinit -u -D; bindkey '^I' complete-word\"
        zpty -w -n shell $'vzctl dest\\t'
        zpty -r -m shell seen '*vzctl destroy *'";
    let mut zsh = with_installed("timeout", dir.path());
    zsh.args(["--kill-after=5", "60", "zsh", "-f", "-c", script, "zsh"]);
    finish(zsh.arg(dir.path())).ok();
}

/// A program of the host that finds what is installed, and no files of the user's.
fn with_installed(name: &str, root: &Path) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    let sbin = root.join("usr/local/sbin");
    command
        .env("PATH", format!("{}:{path}", sbin.display()))
        .env("XDG_DATA_DIRS", root.join("usr/local/share"))
        .env("HOME", root)
        .env("TERM", "dumb");
    command
}

/// The samples say what the programs take.
#[test]
fn the_samples_are_right() {
    let host = tempfile::tempdir().expect("directory");
    let conf = host.path().join("etc/vz/conf");
    std::fs::create_dir_all(&conf).expect("directory");
    let examples = top().join("packaging/examples");
    let copies = [
        ("vz.conf-sample", host.path().join("etc/vz/vz.conf")),
        ("ve-basic.conf-sample", conf.join("ve-basic.conf-sample")),
    ];
    for (sample, target) in copies {
        std::fs::copy(examples.join(sample), target).expect(sample);
    }
    let tree = host.path().join("vz/template/cache/tiny/bin");
    std::fs::create_dir_all(&tree).expect("template");
    std::fs::write(tree.join("sh"), "").expect("template");
    let call = |name: &str, args: &[&str]| {
        let mut command = Command::new(program(name));
        finish(command.args(args).env("SIMFS_PREFIX", host.path())).ok()
    };
    call(
        "vzctl",
        &["create", "101", "--ostemplate", "tiny", "--config", "basic"],
    );
    let listed = call(
        "vzlist",
        &[
            "-a",
            "-H",
            "-o",
            "diskspace.s,diskspace.h,diskinodes.s,diskinodes.h",
        ],
    );
    let figures: Vec<&str> = listed.stdout.split_whitespace().collect();
    assert_eq!(figures, ["2097152", "2306867", "131072", "144179"]);
}

//! Other runtimes on a mount: the blocks of RECIPES.md, run as they stand but for the paths.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::command::{Outcome, eventually, finish, program};
use crate::harness::ve::{Spec, Ve};
use crate::harness::{namespace, require, rootfs};

/// KiB of the VE: more than Debian takes, less than is written.
const LIMIT: u64 = 460_000;

/// What a container is asked in place of the command that the recipe shows.
const PROBE: &str =
    "df -Pk / | tail -n1; dd if=/dev/zero of=/big bs=1M count=600 2>&1; stat -c %s /big; rm /big";

/// A mount, bind or file system of the host must not be touched by a runtime: it gets a namespace of its own, with an
/// empty /run and /dev/shm, and one version of cgroups, of which it makes groups below one of its own. Where no systemd
/// runs, it cannot be asked for a scope.
const PRELUDE: &str = r#"
set -eu
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
[ ! -d /sys/fs/cgroup/unified ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
if [ -e /sys/fs/cgroup/cgroup.procs ]; then
    mkdir "/sys/fs/cgroup/$GROUP"
    echo $$ > "/sys/fs/cgroup/$GROUP/cgroup.procs"
fi
mkdir "$WORK/sbin"
ln -s "$BIN/simfs" "$WORK/sbin/mount.simfs"
PATH=$BIN:$PATH
cd "$WORK"
systemd-nspawn() { command systemd-nspawn --register=no --keep-unit "$@"; }
"#;

/// podman as on a host of its own: storage below the test's directory, cgroups left alone.
const PODMAN: &str = r#"
printf '[storage]\ndriver="vfs"\ngraphroot="%s/graph"\nrunroot="/run/storage"\n' "$WORK" > storage.conf
printf '[containers]\ncgroups="disabled"\n[engine]\ncgroup_manager="cgroupfs"\nevents_logger="none"\ntmp_dir="/run/libpod"\n' > containers.conf
export CONTAINERS_STORAGE_CONF=$WORK/storage.conf CONTAINERS_CONF=$WORK/containers.conf
"#;

/// The block of the recipe, for the paths of this VE.
fn recipe(name: &str, ve: &Ve) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../RECIPES.md");
    let text = std::fs::read_to_string(file).expect("RECIPES.md");
    let mark = format!(" recipe={name}\n");
    let block = text
        .split(&mark)
        .nth(1)
        .and_then(|rest| rest.split("\n```").next());
    let block = block.unwrap_or_else(|| panic!("RECIPES.md has no block {name}"));
    block.replace("/vz/root/101", &ve.root().display().to_string()) + "\n"
}

/// Runs a script as root of a host of its own.
fn on_a_host(ve: &Ve, script: &str) -> Outcome {
    let work = tempfile::tempdir_in(ve.beside("")).expect("directory");
    let bin = program("simfs");
    let group = format!("simfs-recipe{}", name_of(work.path()));
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", "100", "unshare", "--mount"])
        .args(["--propagation", "private", "bash", "-c"])
        .arg(format!("{}{PRELUDE}{script}", namespace::LET_GO))
        .env("KEEP", ve.prefix())
        .env("WORK", work.path())
        .env("GROUP", &group)
        .env("BIN", bin.parent().expect("directory"))
        .env("SIMFS_PREFIX", ve.prefix())
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    let outcome = finish(&mut command);
    remove_groups(&group);
    outcome
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().expect("a name");
    name.to_string_lossy().into_owned()
}

/// Removes the cgroups of this name with all below, in every hierarchy: runtimes make them in others, too. A daemon that a
/// recipe unmounted may take a moment to leave.
fn remove_groups(name: &str) {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(top).into_iter().flatten().flatten();
    let places = hierarchies
        .map(|entry| entry.path())
        .chain([top.to_owned()]);
    for group in places.map(|place| place.join(name)) {
        eventually("the recipe's cgroups are empty", || {
            remove_empty(&group).map_err(|error| format!("{}: {error}", group.display()))
        });
    }
}

fn remove_empty(group: &Path) -> std::io::Result<()> {
    if !group.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}

/// A mounted VE with Debian and its quota tools in it.
fn debian() -> Option<Ve> {
    let ve = Spec::default()
        .space(LIMIT, LIMIT)
        .inodes(100_000, 110_000)
        .second_level()
        .bare()?;
    if !rootfs::unpack_with_quota_tools_into(ve.private()) {
        return None;
    }
    ve.init().ok();
    ve.mount().ok();
    Some(ve)
}

/// The first level as a container saw it: its size, and a write that ended at the limit.
#[track_caller]
fn assert_limited(ve: &Ve, outcome: &Outcome) {
    let seen = format!("{}{}", outcome.stdout, outcome.stderr);
    let line = outcome
        .stdout
        .lines()
        .find(|line| line.starts_with("/dev/simfs"));
    let size = line.and_then(|line| line.split_whitespace().nth(1));
    assert_eq!(size, Some(&*LIMIT.to_string()), "{seen}");
    assert!(seen.contains("Disk quota exceeded"), "{seen}");
    let written = outcome
        .stdout
        .lines()
        .rev()
        .find_map(|line| line.trim().parse::<u64>().ok());
    assert!(
        written.is_some_and(|bytes| bytes > 0 && bytes < 600 << 20),
        "{seen}"
    );
    let peak = ve.vzquota(["stat", Ve::ID, "--json"]).ok().stdout;
    assert!(peak.contains("refused"), "{peak}");
}

// S63: A root mounted by mount(8), by hand or from fstab, is the same as one mounted by `simfs mount`.
#[test]
fn mount_and_fstab() {
    let Some(ve) = Spec::default().space(LIMIT, LIMIT).init() else {
        return;
    };
    // mount(8) looks for its helpers in /sbin only, which other tests use too.
    let helper = "target=$(readlink -f /sbin)\n\
                  mount -t overlay overlay -o \"lowerdir=$WORK/sbin:$target\" \"$target\"\n";
    let shown = on_a_host(&ve, &format!("{helper}{}", recipe("mount", &ve))).ok();
    assert!(shown.stdout.contains(&LIMIT.to_string()), "{shown:?}");
    let fstab = format!(
        "{helper}cat > fstab <<'END'\n{}END\nmount -a -T fstab\nmount -a -T fstab\n\
         grep {root} /proc/mounts\ntouch {root}/file\numount {root}\n",
        recipe("fstab", &ve),
        root = ve.root().display(),
    );
    let shown = on_a_host(&ve, &fstab).ok();
    assert_eq!(shown.stdout.lines().count(), 1, "mounted once: {shown:?}");
    assert!(shown.stdout.contains("fuse.simfs rw,nodev"), "{shown:?}");
    assert!(ve.private().join("file").exists());
    // What mount(8) says of a VE without a record is what the helper says.
    let unknown = format!("{helper}mount -t simfs 102 {}", ve.root().display());
    let refused = on_a_host(&ve, &unknown).expect(32);
    assert!(refused.stderr.contains("vzquota init 102"), "{refused:?}");
    // Flags of a root in use are changed without the helper; asked for more, the helper says so.
    let mounted = format!(
        "{helper}mount -t simfs {} {root}\n",
        Ve::ID,
        root = ve.root().display()
    );
    let script = format!(
        "{mounted}mount -o remount,bind,ro {root}\n! touch {root}/file || exit 9\n\
         mount -o remount,bind,rw {root}\ntouch {root}/file\n\
         mount -t simfs {} {root} -o remount,ro || true\numount {root}\n",
        Ve::ID,
        root = ve.root().display(),
    );
    let shown = on_a_host(&ve, &script).ok();
    assert!(shown.stderr.contains("remount,bind,ro"), "{shown:?}");
}

#[test]
fn podman() {
    if !require::programs(&["podman", "crun", "jq"]) {
        return;
    }
    let Some(ve) = debian() else { return };
    let plain = recipe("podman", &ve).replace("df -k /", PROBE);
    assert_limited(&ve, &on_a_host(&ve, &format!("{PODMAN}{plain}")).ok());
    if !Path::new("/usr/share/containers/seccomp.json").exists() {
        require::skip("podman's seccomp profile is not installed");
        return;
    }
    let quota = "setquota -u ann 1000 2000 10 20 / && touch /tmp/anns && chown ann /tmp/anns && repquota -a";
    let script = recipe("podman-quota", &ve).replace("repquota -a", quota);
    let shown = on_a_host(&ve, &format!("{PODMAN}{script}")).ok();
    let line = shown.stdout.lines().find(|line| line.starts_with("ann "));
    let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    assert_eq!(
        words,
        ["ann", "--", "0", "1000", "2000", "1", "10", "20"],
        "{shown:?}"
    );
}

#[test]
fn systemd_nspawn() {
    if !require::programs(&["systemd-nspawn"]) {
        return;
    }
    let Some(ve) = debian() else { return };
    let script = recipe("nspawn", &ve).replace("df -k /", PROBE);
    assert_limited(&ve, &on_a_host(&ve, &script).ok());
}

#[test]
fn lxc() {
    if !require::programs(&["lxc-execute"]) {
        return;
    }
    let Some(ve) = debian() else { return };
    let script = format!(
        "mkdir ve101\ncat > ve101/config <<'END'\n{}END\n\
         lxc-execute -P \"$WORK\" -n ve101 -o log -- /bin/sh -c '{PROBE}' || {{ cat log >&2; exit 1; }}\n",
        recipe("lxc", &ve)
    );
    assert_limited(&ve, &on_a_host(&ve, &script).ok());
}

/// The blocks of README.md that need no installation, as they stand, below a prefix.
#[test]
fn the_readme_can_be_followed() {
    if !require::programs(&["crun"]) {
        return;
    }
    let Some(ve) = Spec::default().bare() else {
        return;
    };
    let template = ve.prefix().join("vz/template/cache/debian-12-minbase");
    std::fs::create_dir_all(&template).expect("template");
    // What 'vzpkg cache' would download again.
    if !rootfs::unpack_with_quota_tools_into(&template) {
        return;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(file).expect("README.md");
    let blocks = text.split("```sh readme\n").skip(1);
    let lines: Vec<String> = blocks
        .flat_map(|block| block.split("```").next().unwrap_or("").lines())
        .filter(|line| !line.starts_with("vzpkg cache"))
        .map(|line| line.replace("/vz/", &format!("{}/vz/", ve.prefix().display())))
        .collect();
    assert!(lines.len() > 15, "{lines:?}");
    for line in &lines {
        let mut command = Command::new("timeout");
        let bin = program("simfs");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["--kill-after=5", "100", "bash", "-ec", line])
            .env(
                "PATH",
                format!("{}:{path}", bin.parent().expect("directory").display()),
            )
            .env("SIMFS_PREFIX", ve.prefix())
            .env("LC_ALL", "C");
        let shown = finish(&mut command).ok();
        if line.contains("repquota") {
            assert!(shown.stdout.contains("2.0G"), "{shown:?}");
            let line = shown.stdout.lines().find(|line| line.starts_with("games "));
            let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
            assert_eq!(
                words.get(3..5),
                Some(&["102400", "112640"][..]),
                "{shown:?}"
            );
        }
    }
}

/// A block that no test names would be a recipe that nobody has tried.
#[test]
fn every_recipe_is_tried() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(top.join("RECIPES.md")).expect("RECIPES.md");
    let tests = std::fs::read_to_string(top.join("tests/recipes.rs")).expect("this file");
    let blocks: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("```"))
        .filter(|info| !info.is_empty())
        .collect();
    assert!(blocks.len() >= 6, "{blocks:?}");
    for block in blocks {
        let name = block.split_once(" recipe=").map(|(_, name)| name);
        let name = name.unwrap_or_else(|| panic!("'{block}' is not named"));
        assert!(tests.contains(&format!("recipe(\"{name}\"")), "{name}");
    }
}

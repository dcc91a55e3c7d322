//! Templates of other makers, from their making to a VE that runs.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::Host;
use crate::harness::command::{finish, run};
use crate::harness::{require, rootfs};

/// create, start, a command, stop, destroy.
fn lives(host: &Host, template: &str, command: &str) -> String {
    host.vzctl(&["create", "101", "--ostemplate", template])
        .ok();
    host.vzctl(&["start", "101"]).ok();
    let said = host.exec("101", command).ok().stdout;
    host.vzctl(&["stop", "101"]).ok();
    host.vzctl(&["destroy", "101"]).ok();
    said
}

/// What debootstrap(8) is asked for, with what it made once for the other tests in place of a mirror.
const DEBOOTSTRAP: &str = "#!/bin/sh
[ \"$1 $2 $3\" = '--variant=minbase --include=procps bookworm' ] || exit 9
mkdir -p \"$4\" && cp -a --reflink=auto DEBIAN/. \"$4\"
echo spoiled > \"$4/etc/hostname\"
";

// S84: what debootstrap makes becomes a template, and a VE from it runs.
#[test]
fn a_debian_made_by_debootstrap_becomes_a_ve() {
    let Some(host) = Host::with("crun", |_| true) else {
        return;
    };
    let debian = host.path("debian");
    std::fs::create_dir(&debian).expect("directory");
    if !rootfs::unpack_into(&debian) {
        return;
    }
    let program = host.path("programs/debootstrap");
    std::fs::create_dir(host.path("programs")).expect("directory");
    let text = DEBOOTSTRAP.replace("DEBIAN", &debian.display().to_string());
    std::fs::write(&program, text).expect("a program");
    super::scripts::make_executable(&program);
    let vzpkg = |line: &[&str]| finish(host.command("vzpkg").args(line));
    vzpkg(&["cache", "debian-12-minbase", "--form", "tree"]).ok();
    let listed = vzpkg(&["list"]).ok().stdout;
    assert!(listed.contains("debian-12-minbase"), "{listed}");
    let made = host.path("vz/template/cache/debian-12-minbase");
    assert!(!made.join("etc/hostname").exists(), "each VE has its own");
    assert_eq!(
        std::fs::read(made.join("etc/machine-id")).expect("an identity"),
        b""
    );
    let said = lives(
        &host,
        "debian-12-minbase",
        "cat /etc/debian_version; dpkg -l | wc -l",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("12."), "{said}");
    assert!(
        lines[1].trim().parse::<u32>().expect("a number") > 50,
        "{said}"
    );
    vzpkg(&["remove", "debian-12-minbase"]).ok();
    host.assert_nothing_left();
}

/// Adds a blob to an image layout under the name that its content gives it; its descriptor.
fn blob(layout: &Path, file: &Path) -> serde_json::Value {
    let sum = run("sha256sum", [file]).ok().stdout;
    let hash = sum.split(' ').next().expect("a sum");
    let dir = layout.join("blobs/sha256");
    std::fs::create_dir_all(&dir).expect("directory");
    std::fs::copy(file, dir.join(hash)).expect("a blob");
    let size = file.metadata().expect("its size").len();
    serde_json::json!({ "digest": format!("sha256:{hash}"), "size": size })
}

/// An image of two layers: a shell, and what the second one changes of it.
fn image(host: &Host) -> std::path::PathBuf {
    let (below, above) = (host.path("below"), host.path("above"));
    std::fs::rename(host.path("vz/template/cache/debian"), &below).expect("a tree");
    for dir in ["etc", "tmp"] {
        std::fs::create_dir_all(above.join(dir)).expect("directory");
    }
    std::fs::write(below.join("etc/first"), "1").expect("a file");
    std::fs::write(below.join("etc/gone"), "1").expect("a file");
    std::fs::write(above.join("etc/second"), "2").expect("a file");
    std::fs::write(above.join("etc/.wh.gone"), "").expect("a whiteout");
    symlink("first", above.join("etc/link")).expect("a link");
    let layout = host.path("layout");
    let layers = [below, above].map(|tree| {
        let file = host.path("layer.tar.gz");
        let [from, to] = [&tree, &file].map(|path| path.as_os_str());
        run(
            "tar",
            ["-C".as_ref(), from, "-czf".as_ref(), to, ".".as_ref()],
        )
        .ok();
        blob(&layout, &file)
    });
    let file = host.path("manifest.json");
    let manifest = serde_json::json!({ "schemaVersion": 2, "layers": layers });
    std::fs::write(&file, manifest.to_string()).expect("a manifest");
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [blob(&layout, &file)] });
    std::fs::write(layout.join("index.json"), index.to_string()).expect("an index");
    let version = "{\"imageLayoutVersion\":\"1.0.0\"}";
    std::fs::write(layout.join("oci-layout"), version).expect("a version");
    layout
}

// S84: an OCI image becomes a template, and a VE from it runs.
#[test]
fn an_oci_image_becomes_a_ve() {
    if !require::programs(&["sha256sum", "tar"]) {
        return;
    }
    let Some(host) = Host::small("crun") else {
        return;
    };
    let layout = image(&host).display().to_string();
    let vzpkg = |line: &[&str]| finish(host.command("vzpkg").args(line));
    vzpkg(&["import", "shop", &layout]).ok();
    let said = lives(
        &host,
        "shop",
        "cat /etc/first /etc/second /etc/link; ls /etc/gone 2>&1 | wc -l",
    );
    assert!(said.starts_with("121"), "{said}");
    vzpkg(&["remove", "shop"]).ok();
    host.assert_nothing_left();
}

// S84: where files can share blocks, a VE from a tree takes next to nothing until it changes something.
fn clone_on(kind: crate::harness::backing::Kind) {
    const SIZE: u64 = 64 << 20;
    let place = std::env::var_os("SIMFS_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
    let base = tempfile::tempdir_in(place).expect("directory");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(base.path(), open).expect("chmod");
    let Some(backing) = crate::harness::backing::Backing::new(kind, base.path()) else {
        return;
    };
    let Some(host) = Host::below(backing.dir(), "crun") else {
        return;
    };
    let big = host.path("vz/template/cache/debian/big");
    let content: Vec<u8> = (0..SIZE / 8)
        .flat_map(|word| (word * 0x9e37_79b9).to_le_bytes())
        .collect();
    std::fs::write(&big, &content).expect("a template");
    let free = || {
        run("sync", ["-f".as_ref(), backing.dir().as_os_str()]).ok();
        let stat = rustix::fs::statvfs(backing.dir()).expect("statvfs");
        stat.f_bfree * stat.f_frsize
    };
    let before = free();
    host.create("101", &["--diskspace", "200M:200M"]).ok();
    let taken = before.saturating_sub(free());
    assert!(
        taken < SIZE / 4,
        "{kind:?}: {taken} bytes for a clone of {SIZE}"
    );
    let copy = host.path("vz/private/101/big");
    assert!(
        std::fs::read(&copy).expect("the clone") == content,
        "{kind:?}"
    );
    // It is charged as if it had its blocks alone, as du counts it.
    let used = host.vzlist(&["-a", "-H", "-o", "diskspace"]).ok().stdout;
    assert!(
        used.trim().parse::<u64>().expect("a number") >= SIZE >> 10,
        "{kind:?}: {used}"
    );
    // What the VE changes is its own.
    host.vzctl(&["start", "101"]).ok();
    host.exec("101", "echo changed > /big").ok();
    host.vzctl(&["stop", "101", "--fast"]).ok();
    assert!(
        std::fs::read(&big).expect("the template") == content,
        "{kind:?}"
    );
    host.vzctl(&["destroy", "101"]).ok();
    host.assert_nothing_left();
}

#[test]
fn a_tree_is_cloned_on_btrfs() {
    clone_on(crate::harness::backing::Kind::Btrfs { mib: 512 });
}

#[test]
fn a_tree_is_cloned_on_xfs() {
    clone_on(crate::harness::backing::Kind::Xfs { mib: 512 });
}

//! Templates keep what a root directory is made of, in each form and over each way in.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::host::{Ended, Host, words};

fn vzpkg(host: &Host, line: &str) -> Ended {
    host.run(env!("CARGO_BIN_EXE_vzpkg"), &words(line))
}

#[track_caller]
fn ok(ended: &Ended) {
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// A tree with everything that a copy can lose.
fn tree(host: &Host) {
    let tree = host.path("tree");
    let script = format!(
        "mkdir -p {0}/bin && cd {0} && echo x > bin/sh && chmod 4755 bin/sh && ln bin/sh bin/dash && ln -s sh bin/link \
         && chown 12345:54321 bin && chmod 1777 bin && truncate -s 64M holes && echo end >> holes && mkfifo pipe \
         && mknod null c 1 3",
        tree.display()
    );
    sh(&script);
    rustix::fs::setxattr(
        tree.join("bin/sh"),
        c"user.note",
        b"kept",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    // One capability, as package managers set it: version 2, effective, CAP_NET_RAW.
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let file = tree.join("holes");
    rustix::fs::setxattr(
        file,
        c"security.capability",
        &capability,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    if is_installed("setfacl") {
        sh(&format!("setfacl -m u:12345:rw {}/pipe", tree.display()));
    }
}

#[track_caller]
fn assert_same(host: &Host, made: &Path, form: &str) {
    let bin = made.join("bin").metadata().unwrap();
    assert_eq!((bin.uid(), bin.gid()), (12345, 54321), "{form}");
    assert_eq!(bin.permissions().mode() & 0o7777, 0o1777, "{form}");
    let (one, other) = (made.join("bin/sh"), made.join("bin/dash"));
    let (one, other) = (one.metadata().unwrap(), other.metadata().unwrap());
    assert_eq!(
        (one.nlink(), one.ino()),
        (2, other.ino()),
        "{form}: several names"
    );
    assert_eq!(one.permissions().mode() & 0o7777, 0o4755, "{form}");
    let holes = made.join("holes").metadata().unwrap();
    assert!(
        holes.len() > 64 << 20 && holes.blocks() * 512 < 1 << 20,
        "{form}: {}",
        holes.blocks()
    );
    let null = made.join("null").metadata().unwrap();
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3), "{form}");
    let mut found = [0; 64];
    for (file, name) in [("bin/sh", c"user.note"), ("holes", c"security.capability")] {
        let length = rustix::fs::getxattr(made.join(file), name, &mut found[..]);
        assert!(length.is_ok(), "{form}: {name:?}: {length:?}");
    }
    if is_installed("getfacl") {
        let list = |tree: &Path| sh(&format!("cd {} && getfacl -n pipe", tree.display()));
        assert_eq!(list(made), list(&host.path("tree")), "{form}");
    }
}

#[test]
fn every_form_and_compression_keeps_the_tree_as_it_is() {
    let host = Host::new();
    tree(&host);
    let packers = [
        ("", "cat"),
        (".gz", "gzip"),
        (".xz", "xz -0"),
        (".zst", "zstd -q"),
        (".bz2", "bzip2"),
    ];
    for (end, packer) in packers {
        if !is_installed(packer.split(' ').next().unwrap()) {
            continue;
        }
        // The name says nothing: what counts is what is in the file.
        let file = host.path(&format!("root{end}.bin"));
        sh(&format!(
            "tar --xattrs --acls -S -C {} -cf - . | {packer} > {}",
            host.path("tree").display(),
            file.display()
        ));
        ok(&vzpkg(
            &host,
            &format!("import one {} --form tree", file.display()),
        ));
        assert_same(&host, &host.path("vz/template/cache/one"), end);
        ok(&vzpkg(&host, "remove one"));
    }
    for form in ["tar", "tar.gz", "tar.xz", "tar.zst", "tree"] {
        if form == "tar.zst" && !is_installed("zstd") {
            continue;
        }
        ok(&vzpkg(
            &host,
            &format!(
                "import one {} --form {form}",
                host.path("root.bin").display()
            ),
        ));
        let end = if form == "tree" {
            String::new()
        } else {
            format!(".{form}")
        };
        assert!(
            host.path(&format!("vz/template/cache/one{end}")).exists(),
            "{form}"
        );
        let create = "-q create 101 --ostemplate one --diskspace 10M:11M --diskinodes 100:110";
        ok(&host.run(env!("CARGO_BIN_EXE_vzctl"), &words(create)));
        assert_same(&host, &host.path("vz/private/101"), form);
        ok(&host.run(env!("CARGO_BIN_EXE_vzctl"), &words("-q destroy 101")));
        ok(&vzpkg(&host, "remove one"));
    }
}

/// Adds a blob to an image layout under the name that its content gives it; its descriptor.
pub(crate) fn blob(layout: &Path, content: &[u8]) -> serde_json::Value {
    let dir = layout.join("blobs/sha256");
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("new");
    std::fs::write(&file, content).unwrap();
    let hash = sh(&format!("sha256sum {} | cut -c1-64", file.display()));
    std::fs::rename(file, dir.join(hash.trim())).unwrap();
    json!({ "digest": format!("sha256:{}", hash.trim()), "size": content.len() })
}

/// An image layout of one layer for each of these machines; each has a file with its name.
fn layout(host: &Host, machines: &[&str]) -> std::path::PathBuf {
    let layout = host.path("layout");
    let manifests: Vec<_> = machines
        .iter()
        .map(|machine| {
            let tree = host.path(machine);
            std::fs::create_dir_all(tree.join("bin")).unwrap();
            std::fs::write(tree.join("bin/sh"), machine).unwrap();
            let file = host.path("layer");
            sh(&format!(
                "tar -C {} -czf {} .",
                tree.display(),
                file.display()
            ));
            let layer = blob(&layout, &std::fs::read(&file).unwrap());
            let manifest = json!({ "schemaVersion": 2, "layers": [layer] }).to_string();
            let mut manifest = blob(&layout, manifest.as_bytes());
            manifest["platform"] = json!({ "architecture": machine, "os": "linux" });
            manifest
        })
        .collect();
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(
        layout.join("oci-layout"),
        "{\"imageLayoutVersion\":\"1.0.0\"}",
    )
    .unwrap();
    layout
}

#[test]
fn the_image_for_this_machine_is_taken() {
    let host = Host::new();
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let layout = layout(&host, &["s390x", here]);
    ok(&vzpkg(
        &host,
        &format!("import image {} --form tree", layout.display()),
    ));
    let sh_of_image = host.path("vz/template/cache/image/bin/sh");
    assert_eq!(std::fs::read_to_string(&sh_of_image).unwrap(), here);
    // The same layout as one file.
    let archive = host.path("image.tar");
    sh(&format!(
        "tar -C {} -cf {} .",
        layout.display(),
        archive.display()
    ));
    ok(&vzpkg(&host, "remove image"));
    ok(&vzpkg(
        &host,
        &format!("import image {} --form tree", archive.display()),
    ));
    assert_eq!(std::fs::read_to_string(&sh_of_image).unwrap(), here);
}

#[test]
fn an_image_that_is_damaged_or_for_another_machine_is_refused() {
    let host = Host::new();
    let layout_dir = layout(&host, &["s390x"]);
    let line = format!("import image {}", layout_dir.display());
    let refused = vzpkg(&host, &line);
    assert_eq!(refused.code, 21, "{refused:?}");
    assert!(refused.err.contains("no image for linux/"), "{refused:?}");

    let here = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let layout_dir = layout(&host, &[here]);
    for entry in std::fs::read_dir(layout_dir.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let content = std::fs::read(&path).unwrap();
        if content.starts_with(&[0x1f, 0x8b]) {
            std::fs::write(&path, [&content[..], b"more"].concat()).unwrap();
        }
    }
    let refused = vzpkg(&host, &line);
    assert_eq!(refused.code, 21, "{refused:?}");
    assert!(refused.err.contains("damaged"), "{refused:?}");
    assert_eq!(vzpkg(&host, "list").out, "", "nothing was made");
    let left = std::fs::read_dir(host.path("vz/template/cache"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

//! Other file systems that show a directory elsewhere.

use anyhow::{Context, Result};

use super::mounted::{Mounted, unmount};
use super::{Ground, Tools};
use crate::programs::command;

pub(super) fn bindfs(ground: &Ground) -> Result<Mounted> {
    let mut mount = command("bindfs", [&ground.backing, &ground.mountpoint]);
    Mounted::by(&mut mount, &ground.mountpoint, unmount(&ground.mountpoint))
}

pub(super) fn fuse_overlayfs(ground: &Ground) -> Result<Mounted> {
    let (lower, work) = (ground.state.join("lower"), ground.state.join("work"));
    std::fs::create_dir(&lower)?;
    std::fs::create_dir(&work)?;
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        ground.backing.display(),
        work.display()
    );
    let mut mount = command("fuse-overlayfs", ["-o", &layers]);
    Mounted::by(
        mount.arg(&ground.mountpoint),
        &ground.mountpoint,
        unmount(&ground.mountpoint),
    )
}

pub(super) fn mergerfs(ground: &Ground) -> Result<Mounted> {
    let mut mount = command("mergerfs", [&ground.backing, &ground.mountpoint]);
    Mounted::by(&mut mount, &ground.mountpoint, unmount(&ground.mountpoint))
}

pub(super) fn passthrough_hp(ground: &Ground, tools: &Tools) -> Result<Mounted> {
    let program = tools
        .passthrough_hp
        .as_ref()
        .context("no program was given")?;
    let mut server = command(program, ["--foreground"]);
    server.args([&ground.backing, &ground.mountpoint]);
    Mounted::served(&mut server, &ground.mountpoint)
}

//! The store on disk, whatever happens to it: kills, power cuts, damage, full file systems.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test states what it expects"
)]

mod copy;
mod crash;
mod damage;
mod disk;
mod formats;
mod full;
mod fuzz;
mod hang;
mod record;
mod sample;

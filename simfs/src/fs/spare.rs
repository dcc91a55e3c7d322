//! Files that become append-only or immutable while they are open: what was opened before goes on, as on any file system,
//! also with a successor, who could not open them again.
//!
//! The keeper is given a descriptor for writing before the flag is set. It is withdrawn with the last handle that can write.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Fs;
use crate::fault;
use crate::handle::OpenFile;
use crate::node::{NodeId, State};
use crate::open::Spare;
use crate::shared::{Deposit, Hold};
use crate::sys::file;

/// One that a predecessor deposited for a node.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) node: NodeId,
    pub(super) deposit: Deposit,
    /// `None` where it is lost.
    pub(super) fd: Option<OwnedFd>,
}

impl Fs {
    /// To be called before a flag is set that keeps a file from being opened for writing. That never fails for the keeper's sake.
    pub(super) fn keep_spare(&self, id: NodeId, state: &mut State) {
        let is_needed = |state: &State| {
            let open = state.open.as_ref();
            open.is_some_and(|open| open.writers > 0 && open.spare.is_none())
        };
        if !is_needed(state) {
            return;
        }
        let made = self.make_spare(id);
        match (made, &mut state.open) {
            (Ok(spare), Some(open)) => open.spare = Some(spare),
            (Err(error), _) => {
                tracing::warn!(node = %id, %error, "an open file that gets a flag against writing will not be written by a successor");
            }
            (Ok(_), None) => debug_assert!(false, "asked above"),
        }
        fault::point("deposited");
    }

    fn make_spare(&self, id: NodeId) -> io::Result<Spare> {
        let node = self.nodes.get(id).map_err(io::Error::other)?;
        let fd = file::reopen(self.nodes.descriptor(&node)?, libc::O_RDWR)?;
        let deposit = self.deposit_as(Hold::Spare, id, &fd)?;
        Ok(Spare {
            fd: Arc::new(fd),
            deposit,
        })
    }

    /// The last handle that could write is gone.
    pub(super) fn drop_spare(&self, spare: Option<Spare>) {
        if let Some(spare) = spare {
            self.withdraw(spare.deposit);
        }
    }

    /// Takes over what a predecessor deposited, after its handles.
    pub(super) fn adopt_spares(&self, spares: Vec<Inherited>) {
        for Inherited { node, deposit, fd } in spares {
            let known = self.nodes.get(node);
            let kept = known.ok().zip(fd).is_some_and(|(node, fd)| {
                let mut state = node.state();
                match &mut state.open {
                    Some(open) if open.writers > 0 && open.spare.is_none() => {
                        let fd = Arc::new(fd);
                        open.spare = Some(Spare { fd, deposit });
                        true
                    }
                    _ => false,
                }
            });
            if !kept {
                self.withdraw(deposit);
            }
        }
    }
}

/// The spare descriptor for a handle whose file could not be opened again.
pub(super) fn spare_for(
    open: &OpenFile,
    state: &State,
    error: io::Error,
) -> io::Result<Arc<OwnedFd>> {
    let spare = state.open.as_ref().and_then(|open| open.spare.as_ref());
    let is_forbidden = error.kind() == io::ErrorKind::PermissionDenied;
    match spare.filter(|_| is_forbidden && open.access.writes() && !open.appends) {
        Some(spare) => Ok(spare.fd.clone()),
        None => Err(error),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs::File;
    use std::sync::atomic::Ordering;

    use super::super::testbed::{Bed, ROOT, write_at};
    use super::*;
    use crate::error::{FsError, FsResult};
    use crate::handle::HandleId;
    use crate::sys::inode_flags;

    const GET_FLAGS: u32 = 0x8008_6601;
    const SET_FLAGS: u32 = 0x4008_6602;
    const SET_EXTENDED: u32 = 0x401c_5820;
    const IMMUTABLE: u32 = 0x10;
    const APPEND_ONLY: u32 = 0x20;

    /// A file whose flags are taken away at the end, so that it can be removed. To be dropped before its directory.
    #[derive(Debug)]
    pub(in super::super) struct Flagged(File);

    impl Flagged {
        pub(in super::super) fn set(file: File, flags: u32) -> Self {
            let present = inode_flags::flags(&file).unwrap();
            inode_flags::set_flags(&file, present | flags).unwrap();
            Self(file)
        }
    }

    impl Drop for Flagged {
        fn drop(&mut self) {
            let present = inode_flags::flags(&self.0).unwrap();
            inode_flags::set_flags(&self.0, present & !(IMMUTABLE | APPEND_ONLY)).unwrap();
        }
    }

    fn create(bed: &mut Bed) -> (Flagged, NodeId, HandleId) {
        let (id, handle) = bed.create("f");
        let file = File::open(bed.dir.path().join("f")).unwrap();
        (Flagged::set(file, 0), id, handle)
    }

    fn write(bed: &Bed, handle: HandleId, offset: u64) -> FsResult<usize> {
        bed.fs.write(ROOT, handle, write_at(offset, &[7; 5000]))
    }

    fn errno(result: FsResult<usize>) -> Result<usize, Option<i32>> {
        result.map_err(|error| match error {
            FsError::System(error) => error.raw_os_error(),
            other => panic!("{other}"),
        })
    }

    fn set(bed: &Bed, id: NodeId, handle: HandleId, flags: u32) {
        let present = bed.fs.ioctl(id, handle, GET_FLAGS, &[]).unwrap();
        let present = u32::from_ne_bytes(present.try_into().unwrap());
        let wanted = present & !(IMMUTABLE | APPEND_ONLY) | flags;
        let is_set = bed.fs.ioctl(id, handle, SET_FLAGS, &wanted.to_ne_bytes());
        is_set.unwrap();
    }

    /// What an open handle can do is the same before and after the death: on ext4 nothing for an immutable file, anything for
    /// one that is append-only.
    // S81
    #[test]
    fn a_flag_changes_nothing_for_the_handles_of_a_successor() {
        for flag in [APPEND_ONLY, IMMUTABLE] {
            let mut bed = Bed::new();
            let (flagged, id, handle) = create(&mut bed);
            write(&bed, handle, 0).unwrap();
            set(&bed, id, handle, flag);
            assert_eq!(bed.world.deposits(), 1);
            let before = errno(write(&bed, handle, 100));
            for _ in 0..2 {
                bed.die();
                assert_eq!(errno(write(&bed, handle, 100)), before, "{flag:x}");
                let mut buffer = [0; 5000];
                assert_eq!(bed.fs.read(handle, 0, &mut buffer).unwrap(), 5000);
                assert_eq!(buffer, [7; 5000]);
                assert!(bed.fs.fsync(handle, true).is_ok());
                assert_eq!(bed.world.deposits(), 1);
            }
            bed.fs.release(handle).unwrap();
            drop(flagged);
            bed.fs.forget(id, 1);
            bed.assert_empty();
        }
    }

    #[test]
    fn the_other_interface_is_the_same() {
        for (flag, kept) in [(0x8, 1), (0x10, 1), (0x80, 0)] {
            let mut bed = Bed::new();
            let (flagged, id, handle) = create(&mut bed);
            let mut wanted = inode_flags::extended_flags(&flagged.0).unwrap();
            wanted.flags |= flag;
            let set = bed.fs.ioctl(id, handle, SET_EXTENDED, &wanted.to_bytes());
            set.unwrap();
            assert_eq!(bed.world.deposits(), kept, "{flag:x}");
            bed.die();
            bed.fs.release(handle).unwrap();
            assert_eq!(bed.world.deposits(), 0);
        }
    }

    #[test]
    fn it_goes_with_the_last_writer() {
        let mut bed = Bed::new();
        let (_flagged, id, writer) = create(&mut bed);
        let token = bed.register();
        let (reader, _) = bed
            .ask(|fs, call| fs.open(call, id, libc::O_RDONLY, &mut |_| Ok(token.clone())))
            .unwrap();
        set(&bed, id, writer, APPEND_ONLY);
        set(&bed, id, writer, 0);
        set(&bed, id, writer, APPEND_ONLY);
        assert_eq!(bed.world.deposits(), 1, "one is enough");
        bed.die();
        bed.fs.release(writer).unwrap();
        assert_eq!(bed.world.deposits(), 0);
        set(&bed, id, reader, APPEND_ONLY | IMMUTABLE);
        assert_eq!(bed.world.deposits(), 0, "nobody can write");
        bed.fs.release(reader).unwrap();
    }

    #[test]
    fn a_death_before_the_flag_leaves_nothing() {
        let mut bed = Bed::new();
        let (_flagged, id, handle) = create(&mut bed);
        let set = |fs: &Fs| fs.ioctl(id, handle, SET_FLAGS, &APPEND_ONLY.to_ne_bytes());
        assert!(bed.cut_off("deposited", |fs, _| set(fs)));
        assert_eq!(bed.world.deposits(), 1);
        bed.again(|fs, _| set(fs)).unwrap();
        assert_eq!(bed.world.deposits(), 1);
        write(&bed, handle, 0).unwrap();
        bed.fs.release(handle).unwrap();
        bed.die();
        assert_eq!(bed.world.deposits(), 0);
    }

    /// S30: a flag is never refused for the keeper's sake.
    #[test]
    fn a_full_keeper_refuses_no_flag() {
        let mut bed = Bed::new();
        let (_flagged, id, handle) = create(&mut bed);
        bed.world.is_full.store(true, Ordering::Relaxed);
        set(&bed, id, handle, APPEND_ONLY);
        write(&bed, handle, 0).unwrap();
        bed.die();
        assert_eq!(errno(write(&bed, handle, 0)), Err(Some(libc::EPERM)));
        bed.fs.release(handle).unwrap();
    }
}

//! The daemon locks itself in: it keeps only what serving one VE needs.
//!
//! After [`enter`]:
//! 1. its root is an empty, read-only tmpfs in which only the VE's state and run directories and /proc are mounted; the
//!    private area is reached by descriptor;
//! 2. it has the capabilities of [`KEPT`] and can gain no other;
//! 3. it cannot start a program, mount, trace, load code into the kernel, or reach the network.
//!
//! To be called while the process has one thread, so that all later ones inherit everything. CAP_SYS_RESOURCE is given up on
//! purpose: with it the backing file system would let the daemon pass quotas and reserves of the host.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::sys::mount;

/// The capabilities that serving files takes.
///
/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETUID, SETGID: acting for callers whose rights the kernel has
/// checked, and opening by file handle. MKNOD, SETFCAP, LINUX_IMMUTABLE: what a guest's root may make. SYS_ADMIN: passthrough
/// and the trusted name space of attributes. SYS_PTRACE: answering quotactl(2) in the memory of its caller.
pub const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_PTRACE);

/// System calls that a file server has no use for and that an attacker would want.
const FORBIDDEN: [i64; 47] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_personality,
    libc::SYS_syslog,
];

/// Locks the process in; `kept` are the directories that stay visible, at their own paths.
///
/// # Errors
/// The kernel's; the process must not go on then.
pub fn enter(kept: &[&Path], scratch: &Path) -> io::Result<()> {
    leave_host_tree(kept, scratch)?;
    drop_privileges()?;
    forbid_calls()
}

fn leave_host_tree(kept: &[&Path], scratch: &Path) -> io::Result<()> {
    let kept: Vec<PathBuf> = kept
        .iter()
        .map(fs::canonicalize)
        .collect::<Result<_, _>>()?;
    match fs::create_dir(scratch) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    mount::unshare_mounts()?;
    mount::make_private(Path::new("/"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount::mount(
        Path::new("simfs"),
        scratch,
        "tmpfs",
        flags,
        c"size=64k,mode=0700",
    )?;
    for path in kept
        .iter()
        .map(PathBuf::as_path)
        .chain([Path::new("/proc")])
    {
        let inside = scratch.join(path.strip_prefix("/").map_err(io::Error::other)?);
        fs::create_dir_all(&inside)?;
        rustix::mount::mount_bind(path, &inside)?;
    }
    rustix::process::chdir(scratch)?;
    mount::pivot_root(Path::new("."), Path::new("."))?;
    mount::unmount(Path::new("."), UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    rustix::mount::mount_remount("/", flags | MountFlags::RDONLY, "")?;
    Ok(())
}

fn drop_privileges() -> io::Result<()> {
    rustix::thread::set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_SETUID_FIXUP | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE,
    )?;
    for capability in CapabilitySet::all().difference(KEPT).iter() {
        // One that this kernel does not know cannot be held either.
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let sets = CapabilitySets {
        effective: KEPT,
        permitted: KEPT,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

fn forbid_calls() -> io::Result<()> {
    let mut rules: BTreeMap<i64, Vec<_>> =
        FORBIDDEN.iter().map(|&call| (call, Vec::new())).collect();
    let unix = u64::try_from(libc::AF_UNIX).map_err(io::Error::other)?;
    let no_network = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, unix)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)?;
    rules.insert(libc::SYS_socket, vec![no_network]);
    let errno = libc::EPERM.unsigned_abs();
    let architecture = std::env::consts::ARCH
        .try_into()
        .map_err(io::Error::other)?;
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno),
        architecture,
    )
    .map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}

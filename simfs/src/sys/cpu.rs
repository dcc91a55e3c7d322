//! CPUs: where a thread ran last, where the calling thread may run.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Bound on the length of a stat file: 52 numbers and a name.
const STAT_MAX: usize = 2048;
/// The number of the last CPU, counted from the field behind the name.
///
/// # Source
/// proc_pid_stat(5), field 39; the name is field 2.
const PROCESSOR: usize = 36;

/// A CPU's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu(u32);

impl Cpu {
    /// Wraps a number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    fn index(self) -> Option<usize> {
        usize::try_from(self.0)
            .ok()
            .filter(|&index| index < CpuSet::MAX_CPU)
    }
}

/// Tells where threads ran; holds `/proc` open.
#[derive(Debug)]
pub struct CpuOf {
    proc_dir: OwnedFd,
}

impl CpuOf {
    /// Opens `/proc`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc_dir = rustix::fs::open(Path::new("/proc"), flags, Mode::empty())?;
        Ok(Self { proc_dir })
    }

    /// The CPU that a thread ran on last.
    ///
    /// # Errors
    /// Where there is no such thread.
    pub fn last_cpu(&self, pid: u32) -> io::Result<Cpu> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.proc_dir, format!("{pid}/stat"), flags, Mode::empty())?;
        let mut text = [0; STAT_MAX];
        let length = rustix::io::read(&file, &mut text)?;
        processor(text.get(..length).unwrap_or_default())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

/// The name may hold anything, also parentheses: what counts stands behind the last one.
fn processor(stat: &[u8]) -> Option<Cpu> {
    let behind = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(stat.get(behind + 1..)?).ok()?;
    let number = fields.split_ascii_whitespace().nth(PROCESSOR)?;
    number.parse().ok().map(Cpu::new)
}

/// Lets the calling thread run on this CPU only.
///
/// # Errors
/// EINVAL where it may not run there.
pub fn bind_thread(cpu: Cpu) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu.index().ok_or(io::ErrorKind::InvalidInput)?);
    Ok(sched_setaffinity(None, &set)?)
}

/// Lets the calling thread run on every CPU that its cpuset allows.
///
/// # Errors
/// The kernel's.
pub fn free_thread() -> io::Result<()> {
    let mut set = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| set.set(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_thread_is_seen_where_it_is() {
        let thread = || {
            let callers = CpuOf::open().unwrap();
            let own = rustix::thread::gettid().as_raw_pid().cast_unsigned();
            let allowed = rustix::thread::sched_getaffinity(None).unwrap();
            for index in (0..CpuSet::MAX_CPU).filter(|&index| allowed.is_set(index)) {
                let cpu = Cpu::new(u32::try_from(index).unwrap());
                bind_thread(cpu).unwrap();
                std::thread::yield_now();
                assert_eq!(callers.last_cpu(own).unwrap(), cpu);
            }
            free_thread().unwrap();
            let free = rustix::thread::sched_getaffinity(None).unwrap();
            assert_eq!(free, allowed);
        };
        std::thread::spawn(thread).join().unwrap();
    }

    #[test]
    fn a_name_cannot_pretend() {
        let numbers = vec!["7"; 60].join(" ");
        let mut fields: Vec<&str> = numbers.split(' ').collect();
        fields[PROCESSOR] = "3";
        let line = format!("12 (a) 1 2) {}", fields.join(" "));
        assert_eq!(processor(line.as_bytes()), Some(Cpu::new(3)));
        assert_eq!(processor(b"12 (a"), None);
        assert_eq!(processor(b"12 (a) S 1"), None);
    }

    #[test]
    fn what_does_not_exist_is_an_error() {
        assert!(CpuOf::open().unwrap().last_cpu(u32::MAX).is_err());
        assert!(bind_thread(Cpu::new(u32::MAX)).is_err());
    }
}

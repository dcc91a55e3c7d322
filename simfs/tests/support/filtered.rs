//! The child's parts: a process under a filter that notifies quotactl(2), and the calls it makes.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub(crate) const PART: &str = "SIMFS_TEST_QUOTACTL_PART";
pub(crate) const SOCKET: &str = "SIMFS_TEST_QUOTACTL_SOCKET";

const GETINFO: u32 = 0x0080_0005;
const GETQUOTA: u32 = 0x0080_0007;
const SETQUOTA: u32 = 0x0080_0008;
const NEXT: u32 = 0x0080_0009;

/// `name errno` and `name=value` lines that a child printed.
pub(crate) struct Lines {
    results: HashMap<String, i32>,
    values: HashMap<String, u64>,
}

impl Lines {
    pub(crate) fn parse(output: &str) -> Self {
        let words = |mark: &str| {
            let mark = mark.to_owned();
            output.lines().filter_map(move |line| {
                let (name, value) = line.strip_prefix("@")?.split_once(mark.as_str())?;
                Some((name.to_owned(), value.to_owned()))
            })
        };
        Self {
            results: words(" ")
                .map(|(name, value)| (name, value.parse().unwrap()))
                .collect(),
            values: words("=")
                .map(|(name, value)| (name, value.parse().unwrap()))
                .collect(),
        }
    }

    pub(crate) fn expect(&self, name: &str, errno: i32) {
        let found = self
            .results
            .get(name)
            .unwrap_or_else(|| panic!("{name} was not called"));
        let text = |errno| std::io::Error::from_raw_os_error(errno);
        assert_eq!(
            *found,
            errno,
            "{name}: {} instead of {}",
            text(*found),
            text(errno)
        );
    }

    pub(crate) fn value(&self, name: &str) -> u64 {
        *self
            .values
            .get(name)
            .unwrap_or_else(|| panic!("{name} was not printed"))
    }
}

fn say(name: &str, errno: i32) {
    println!("\n@{name} {errno}");
}

fn tell(name: &str, value: u64) {
    println!("\n@{name}={value}");
}

/// Installs the filter on this thread and those it starts, and returns the listener.
fn install() -> OwnedFd {
    const RETURN: u16 = 0x06;
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD, 0, 0, 4), // architecture
        step(EQUAL, 0, 4, 0xC000_003E),
        step(LOAD, 0, 0, 0),    // number
        step(EQUAL, 6, 0, 179), // quotactl of x86-64
        step(EQUAL, 5, 0, 306), // syncfs
        step(EQUAL, 4, 3, 443), // quotactl_fd
        step(LOAD, 0, 0, 0),
        step(EQUAL, 2, 0, 131), // quotactl of i386
        step(EQUAL, 1, 0, 344), // syncfs
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
    ];
    let filter = libc::sock_fprog {
        len: 11,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: plain prctl; the program outlives the call that copies it.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        let flags =
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        let fd = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        );
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(i32::try_from(fd).unwrap())
    }
}

/// Sends the listener as a runtime does at `create`, or with pid 0 as crun does at `exec`.
fn register(pid: u32) {
    let listener = install();
    let stream = UnixStream::connect(std::env::var_os(SOCKET).unwrap()).unwrap();
    send(&stream, listener.as_fd(), pid);
}

/// Sends a listener over a connection.
pub(crate) fn send(stream: &UnixStream, listener: BorrowedFd<'_>, pid: u32) {
    let text = format!(
        r#"{{"ociVersion":"1.0.2","fds":["seccompFd"],"pid":{pid},"metadata":"ve=101",
        "state":{{"ociVersion":"1.0.2","id":"101","status":"creating","pid":{pid},"bundle":"/b"}}}}"#
    );
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [listener];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = sendmsg(
        stream,
        &[IoSlice::new(text.as_bytes())],
        &mut control,
        SendFlags::empty(),
    );
    assert_eq!(sent.unwrap(), text.len());
}

/// The calls stay below what the kernel could be harmed by: it never sees them.
fn call(number: i64, args: [u64; 4]) -> i32 {
    let [a, b, c, d] = args;
    // SAFETY: the call is notified, nothing but the service reads or writes through these numbers.
    let result = unsafe { libc::syscall(number, a, b, c, d) };
    if result == 0 {
        0
    } else {
        std::io::Error::last_os_error().raw_os_error().unwrap()
    }
}

fn word(command: u32, kind: u32) -> u64 {
    u64::from(command << 8 | kind)
}

fn address<T>(value: *const T) -> u64 {
    u64::try_from(value.addr()).unwrap()
}

fn quotactl(command: u32, kind: u32, path: &str, id: u32, data: u64) -> i32 {
    let path = CString::new(path).unwrap();
    call(
        libc::SYS_quotactl,
        [word(command, kind), address(path.as_ptr()), id.into(), data],
    )
}

fn simfs(command: u32, kind: u32, id: u32, buffer: &mut [u8; 256]) -> i32 {
    quotactl(command, kind, "/dev/simfs", id, address(buffer.as_ptr()))
}

fn number(buffer: &[u8], at: usize, length: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..length].copy_from_slice(&buffer[at..at + length]);
    u64::from_le_bytes(bytes)
}

fn put(buffer: &mut [u8; 256], at: usize, bytes: &[u8]) {
    buffer[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn play(part: &str) {
    match part.split_once(':') {
        Some((_, "self")) => namespace(std::process::id()),
        Some((_, "nobody")) => namespace(0),
        Some((_, pid)) => namespace(pid.parse().unwrap()),
        None => {
            if part == "user" {
                become_user_after(|| register(std::process::id()));
                return user();
            }
            register(std::process::id());
            match part {
                "commands" => commands(),
                "arguments" => arguments(),
                "syncfs" => syncfs(),
                "unprivileged" => say("next", simfs(NEXT, 0, 0, &mut [0; 256])),
                "flood" => flood(u64::MAX),
                "flood-to-end" => flood(500),
                "stuck" => stuck(),
                "patient" => {
                    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
                    say("next", simfs(NEXT, 0, 0, &mut [0; 256]));
                }
                other => panic!("no part {other}"),
            }
        }
    }
}

fn commands() {
    let mut data = [0; 256];
    say(
        "sync-null",
        call(libc::SYS_quotactl, [word(0x0080_0001, 0), 0, 0, 0]),
    );
    say(
        "getinfo-null",
        call(
            libc::SYS_quotactl,
            [word(GETINFO, 0), 0, 0, address(data.as_ptr())],
        ),
    );
    say("sync", simfs(0x0080_0001, 0, 0, &mut data));
    say("getinfo", simfs(GETINFO, 0, 0, &mut data));
    tell("getinfo-flags", number(&data, 16, 4));
    say("getfmt", simfs(0x0080_0004, 1, 0, &mut data));
    say("getquota", simfs(GETQUOTA, 0, 1000, &mut data));
    tell("getquota-hard", number(&data, 0, 8));
    tell("getquota-space", number(&data, 16, 8));
    say("getquota-group", simfs(GETQUOTA, 1, 50, &mut data));
    let dir = std::fs::File::open(".").unwrap();
    let fd = u64::try_from(dir.as_raw_fd()).unwrap();
    let by_fd = [fd, word(GETQUOTA, 0), 1000, address(data.as_ptr())];
    say("getquota-fd", call(libc::SYS_quotactl_fd, by_fd));
    say("next", simfs(NEXT, 0, 1, &mut data));
    tell("next-id", number(&data, 68, 4));
    say("next-end", simfs(NEXT, 0, 1001, &mut data));
    say("xgetquota", simfs(0x5803, 0, 1000, &mut data));
    tell("xgetquota-hard", number(&data, 8, 8));
    say("xnext", simfs(0x5809, 0, 0, &mut data));
    say("xgetqstat", simfs(0x5805, 0, 0, &mut data));
    data[0] = 1;
    say("xgetqstatv", simfs(0x5808, 0, 0, &mut data));
    say("xquotasync", simfs(0x5807, 0, 0, &mut data));
    say("xquotarm", simfs(0x5806, 0, 0, &mut data));
    say("project", simfs(GETINFO, 2, 0, &mut data));
    say("type-3", simfs(GETINFO, 3, 0, &mut data));
    say("unknown", simfs(0x0080_000a, 0, 0, &mut data));
    changes();
}

fn changes() {
    let mut data = [0; 256];
    put(&mut data, 0, &200_u64.to_le_bytes());
    put(&mut data, 8, &100_u64.to_le_bytes());
    put(&mut data, 64, &1_u32.to_le_bytes());
    say("setquota", simfs(SETQUOTA, 0, 1000, &mut data));
    let mut data = [0; 256];
    put(&mut data, 0, &60_u64.to_le_bytes());
    put(&mut data, 20, &1_u32.to_le_bytes());
    say("setinfo", simfs(0x0080_0006, 0, 0, &mut data));
    let mut data = [0; 256];
    put(&mut data, 2, &2_u16.to_le_bytes());
    put(&mut data, 24, &300_u64.to_le_bytes());
    say("xsetqlim", simfs(0x5804, 0, 1000, &mut data));
    say("quotaoff", simfs(0x0080_0003, 0, 0, &mut data));
    say("getinfo-off", simfs(GETINFO, 0, 0, &mut data));
    say("getfmt-off", simfs(0x0080_0004, 0, 0, &mut data));
    say("quotaon", simfs(0x0080_0002, 0, 2, &mut data));
    say("quotaon-again", simfs(0x0080_0002, 0, 2, &mut data));
}

/// Calls with a path on a file system of its own that never answers, and keeps that until its input ends.
fn stuck() {
    // Whoever waits for this process for ever fails the test, and does not hang it.
    // SAFETY: a plain call; nothing handles the signal.
    unsafe { libc::alarm(120) };
    // SAFETY: descriptors are not unshared.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
    let private =
        rustix::mount::MountPropagationFlags::REC | rustix::mount::MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change("/", private).unwrap();
    let dir = format!("stuck-{}", std::process::id());
    std::fs::create_dir(&dir).unwrap();
    let device = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .unwrap();
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    let options = CString::new(options).unwrap();
    let flags = rustix::mount::MountFlags::NOSUID;
    rustix::mount::mount("stuck", &dir, "fuse", flags, options.as_c_str()).unwrap();
    std::thread::spawn(move || never_answer(&device));
    let errno = quotactl(GETINFO, 0, &format!("{dir}/x"), 0, address(&raw const dir));
    say("stuck", errno);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Serves a FUSE device as far as its first request beyond FUSE_INIT, which stays in work.
fn never_answer(mut device: &std::fs::File) {
    let mut request = [0; 1 << 16];
    let _ = device.read(&mut request).unwrap();
    let mut answer = [0; 256];
    put(&mut answer, 0, &80_u32.to_le_bytes());
    put(&mut answer, 8, &request[8..16]);
    put(&mut answer, 16, &7_u32.to_le_bytes());
    put(&mut answer, 20, &31_u32.to_le_bytes());
    put(&mut answer, 36, &4096_u32.to_le_bytes()); // max_write
    assert_eq!(device.write(&answer[..80]).unwrap(), 80);
    let _ = device.read(&mut request).unwrap();
    say("caught", 0);
    loop {
        std::thread::park();
    }
}

/// Two pages, of which only the first is mapped.
fn page_before_a_hole() -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: fresh anonymous memory; the second page is taken away again.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = libc::mmap(ptr::null_mut(), 8192, protection, flags, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        assert_eq!(libc::munmap(page.cast::<u8>().add(4096).cast(), 4096), 0);
        page.cast()
    }
}

fn arguments() {
    let data = [0; 256];
    let into = address(data.as_ptr());
    let by_address = |path| call(libc::SYS_quotactl, [word(GETINFO, 0), path, 0, into]);
    say("path-null-page", by_address(8));
    say("path-high", by_address(u64::MAX - 4));
    let page = page_before_a_hole();
    // SAFETY: the first page is ours.
    unsafe { page.write_bytes(b'a', 4096) };
    say("path-unended", by_address(address(page) + 4000));
    say(
        "path-long",
        quotactl(GETINFO, 0, &"a".repeat(5000), 0, into),
    );
    say("path-missing", quotactl(GETINFO, 0, "/nowhere", 0, into));
    say("path-empty", quotactl(GETINFO, 0, "", 0, into));
    say("path-char", quotactl(GETINFO, 0, "/dev/null", 0, into));
    say("path-dir", quotactl(GETINFO, 0, "/", 0, into));
    let node = |name: &str, device| {
        let kind = rustix::fs::FileType::BlockDevice;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, name, kind, mode, device).unwrap();
        std::path::absolute(name)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    let here = rustix::fs::stat(".").unwrap().st_dev;
    let (ours, other) = (
        node("ours", here),
        node("other", rustix::fs::makedev(0, 0xf_fff0)),
    );
    say("path-node", quotactl(GETINFO, 0, &ours, 0, into));
    say("path-relative-node", quotactl(GETINFO, 0, "ours", 0, into));
    say("path-other-device", quotactl(GETINFO, 0, &other, 0, into));
    say("data-null", quotactl(GETINFO, 0, "/dev/simfs", 0, 0));
    say(
        "data-edge",
        quotactl(GETINFO, 0, "/dev/simfs", 0, address(page) + 4090),
    );
    say(
        "set-data-null",
        quotactl(SETQUOTA, 0, "/dev/simfs", 1000, 0),
    );
    descriptors(into);
    i386();
}

fn descriptors(into: u64) {
    let by_fd = |fd, kind| call(libc::SYS_quotactl_fd, [fd, word(GETINFO, kind), 0, into]);
    say("fd-closed", by_fd(1000, 0));
    let raw = |fd: &OwnedFd| u64::try_from(fd.as_raw_fd()).unwrap();
    let foreign = OwnedFd::from(std::fs::File::open("/proc").unwrap());
    say("fd-foreign", by_fd(raw(&foreign), 0));
    let flags = rustix::fs::OFlags::PATH;
    let here = rustix::fs::open(".", flags, rustix::fs::Mode::empty()).unwrap();
    say("fd-path-only", by_fd(raw(&here), 0));
    say("fd-type-3", by_fd(raw(&here), 3));
}

/// quotactl(2) as a 32-bit program calls it, with memory below 4 GiB.
fn i386() {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: fresh memory below 4 GiB.
    let page = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0).cast::<u8>()
    };
    // SAFETY: the page is ours, path and data do not overlap.
    unsafe {
        page.copy_from(c"/dev/simfs".as_ptr().cast(), 11);
        page.add(1024).write_bytes(0xee, 256);
    }
    let result: i64;
    // SAFETY: the call is notified; the service writes 68 bytes to our page. rbx is restored.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "mov rbx, {word}",
            "int 0x80",
            "pop rbx",
            word = in(reg) word(GETQUOTA, 0),
            inlateout("rax") 131_i64 => result,
            in("rcx") address(page),
            in("rdx") 1000_u64,
            in("rsi") address(page) + 1024,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    say("i386-getquota", i32::try_from(-result).unwrap());
    // SAFETY: the page is ours.
    let after = unsafe { std::slice::from_raw_parts(page.add(1024), 72) };
    tell(
        "i386-untouched",
        u64::from(after[67] != 0xee && after[68..] == [0xee; 4]),
    );
}

fn syncfs() {
    let sync = |fd: u64| call(libc::SYS_syncfs, [fd, 0, 0, 0]);
    let raw = |file: &std::fs::File| u64::try_from(file.as_raw_fd()).unwrap();
    say("syncfs", sync(raw(&std::fs::File::open(".").unwrap())));
    let foreign = std::fs::File::open("/proc").unwrap();
    say("syncfs-foreign", sync(raw(&foreign)));
    say("syncfs-closed", sync(1000));
    let result: i64;
    // SAFETY: syncfs(2) takes a number only. rbx is restored.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "mov ebx, 1000",
            "int 0x80",
            "pop rbx",
            inlateout("rax") 344_i64 => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    say("syncfs-i386", i32::try_from(-result).unwrap());
}

/// Becomes user 1000 with groups 100 and 50.
fn become_user_after(prepare: impl FnOnce()) {
    prepare();
    // SAFETY: this process has one thread that matters, and keeps nothing of root.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_setgroups, 1, [50].as_ptr()), 0);
        assert_eq!(libc::syscall(libc::SYS_setresgid, 100, 100, 100), 0);
        assert_eq!(libc::syscall(libc::SYS_setresuid, 1000, 1000, 1000), 0);
    }
}

fn user() {
    let mut data = [0; 256];
    say("own", simfs(GETQUOTA, 0, 1000, &mut data));
    say("other", simfs(GETQUOTA, 0, 1001, &mut data));
    say("root", simfs(GETQUOTA, 0, 0, &mut data));
    say("own-group", simfs(GETQUOTA, 1, 100, &mut data));
    say("supplementary-group", simfs(GETQUOTA, 1, 50, &mut data));
    say("other-group", simfs(GETQUOTA, 1, 51, &mut data));
    say("next", simfs(NEXT, 0, 0, &mut data));
    say("set", simfs(SETQUOTA, 0, 1000, &mut data));
    say("unknown", simfs(0x0080_000a, 0, 1000, &mut data));
    say("info", simfs(GETINFO, 0, 0, &mut data));
    say(
        "path-missing",
        quotactl(GETINFO, 0, "/nowhere", 0, address(data.as_ptr())),
    );
    say(
        "path-char",
        quotactl(GETINFO, 0, "/dev/null", 0, address(data.as_ptr())),
    );
}

fn namespace(pid: u32) {
    register(pid);
    let mut data = [0; 256];
    say("info", simfs(GETINFO, 0, 0, &mut data));
    say("next", simfs(NEXT, 0, 0, &mut data));
    tell("next-id", number(&data, 68, 4));
    say("next-after-root", simfs(NEXT, 0, 1, &mut data));
    say("get-unmapped", simfs(GETQUOTA, 0, 1000, &mut data));
}

fn flood(rounds: u64) {
    let (calls, failures) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut data = [0; 256];
                for _ in 0..rounds {
                    let errno = simfs(GETQUOTA, 0, 1000, &mut data);
                    calls.fetch_add(1, Ordering::Relaxed);
                    failures.fetch_add(u64::from(errno != 0), Ordering::Relaxed);
                }
            });
        }
    });
    tell("calls", calls.into_inner());
    tell("failures", failures.into_inner());
}

//! Quota tools at work while the daemon is replaced or dies.

use std::path::Path;
use std::time::Duration;

use super::{answers, debian};
use crate::harness::Ve;
use crate::harness::command::within;
use crate::harness::container::Guest;
use crate::harness::{crash, i386};

/// For a round of tools whose orders wait for a busy disk.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the daemon goes.
const ENDS: u32 = 3;

/// Calls of all kinds, one after the other, until the host says stop; every one must end well.
const LOOP: &str = "touch /srv/working; rounds=0; while [ ! -e /srv/stop ]; do \
    setquota -u ann $((100 + rounds)) 4000 10 2000 / && quota -u ann > /tmp/shown && repquota -a -n -u -g > /tmp/report \
    && grep -q '^#1002 ' /tmp/report && quotasync -a && sync -f / && grep -q \" $((100 + rounds)) \" /tmp/shown || exit 1; \
    rounds=$((rounds + 1)); echo $rounds > /srv/rounds; done; [ $rounds -gt 0 ]";

/// Ends the loop, however the test ends.
struct Stop<'a>(&'a Ve);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let _ended_anyway = std::fs::write(self.0.path("srv/stop"), "");
    }
}

fn rounds(file: &Path) -> u32 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// The tools work in a loop, and in processes that are started meanwhile, while something is done to the daemon.
fn tools_go_on(happens: impl Fn(&Ve)) {
    let Some(ve) = debian("crun", "rw") else {
        return;
    };
    let (daemon, keeper) = crash::pids(&ve);
    let _end = crash::EndOnFailure([daemon, keeper]);
    let guest = Guest::new(&ve, "crun");
    let worked = std::thread::scope(|scope| {
        let stop = Stop(&ve);
        let inside = scope.spawn(|| answers(&guest, "loop", &[("loop", LOOP)]));
        for _ in 0..ENDS {
            let before = rounds(&ve.path("srv/rounds"));
            within(PATIENCE, "the tools work", || {
                let now = rounds(&ve.path("srv/rounds"));
                (now > before).then_some(()).ok_or(format!("{now} rounds"))
            });
            happens(&ve);
            // Started while there may be no daemon: its filter is to be served all the same.
            let shown = guest
                .exec("loop", "quota -u -v bob && repquota -n -g / && quotasync /")
                .ok();
            assert!(shown.stdout.contains("#1002 "), "{shown:?}");
        }
        drop(stop);
        inside.join().unwrap()
    });
    assert_eq!(worked["loop"].code, 0, "{worked:#?}");
    ve.assert_exact();
}

// S73, S76: quota tools that work meanwhile notice nothing, nor do those that are started meanwhile.
#[test]
fn tools_at_work_notice_no_upgrade() {
    tools_go_on(|ve| {
        ve.simfs(["upgrade", Ve::ID]).ok();
    });
}

#[test]
fn tools_at_work_notice_no_death() {
    tools_go_on(|ve| crash::kill(ve.pid()));
}

/// Where in the program its path and its room for an answer are: in a page that nothing but the call itself reads, too far
/// from all others to be read with them.
const FAR: usize = 2 << 20;
/// Each round has the kernel forget the program's pages, runs it, and wants one call answered or put off (EAGAIN is 11).
const FORGET_AND_CALL: &str = "touch /srv/working; for round in $(seq 40); do \
    dd of=/usr/bin/call-i386 oflag=nocache conv=notrunc,fdatasync count=0 status=none; \
    call-i386 | od -An -td4 >> /srv/results; done; sort /srv/results | uniq -c | sort -n | sed 's/^ *//'; wc -l < /srv/results";

// S80: memory that lies on the VE's own mount is waited for while the daemon dies and is replaced, and nobody hangs.
#[test]
fn memory_on_the_ves_own_mount_outlasts_the_daemon() {
    let Some(ve) = debian("crun", "passthrough=off") else {
        return;
    };
    if !i386::runs(&ve.beside("")) {
        return;
    }
    let (daemon, keeper) = crash::pids(&ve);
    let _end = crash::EndOnFailure([daemon, keeper]);
    let mut data = vec![0; 2 * FAR];
    data[FAR..FAR + 10].copy_from_slice(b"/dev/simfs");
    let (path, room) = (i386::address(1, FAR), i386::address(1, FAR + 64));
    let get_quota = [131, 0x80_0007 << 8, path, 1001, room];
    i386::build_telling(&ve.path("usr/bin/call-i386"), &[get_quota], &data, 0);
    let rows = [("calls", FORGET_AND_CALL)];
    let called = std::thread::scope(|scope| {
        let inside = scope.spawn(|| answers(&Guest::new(&ve, "crun"), "own", &rows));
        within(PATIENCE, "the container runs", || {
            let runs = ve.path("srv/working").exists();
            runs.then_some(()).ok_or("not yet".into())
        });
        for round in 0..ENDS {
            match round % 2 {
                0 => crash::kill(ve.pid()),
                _ => drop(ve.simfs(["upgrade", Ve::ID]).ok()),
            }
        }
        inside.join().unwrap()
    });
    let said: Vec<&str> = called["calls"].text.lines().collect();
    let (last, results) = said.split_last().unwrap();
    assert_eq!(*last, "40", "{called:#?}");
    for line in results {
        let result = line.split_whitespace().last().unwrap();
        assert!(["0", "-11"].contains(&result), "{called:#?}");
    }
    ve.assert_exact();
}

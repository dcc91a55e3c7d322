//! Two VEs on one host: what is done in one is nothing to the other.

use std::os::linux::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{answers, debian};
use crate::harness::command::within;
use crate::harness::container::Guest;

/// For the start of a container on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Processes that make the calls, and rounds of each; in a round a child is killed in the middle of its calls.
const FLOOD: &str = r#"#!/usr/bin/perl
my $data = "\0" x 200;
my $path = "/dev/simfs";
my $theirs = "/srv/theirs";
my @data = ($data, 0, 8, -1, 0x7fffffffffff);
sub round {
    for my $command (0x800009, 0x800008, 0x800007, 0x800006, 0x5803, 0x5804, 0x800003, 0x800002, 0x800001, 0x5805) {
        for my $kind (0, 1) {
            for my $into (@data) {
                syscall(179, $command << 8 | $kind, $path, 1001, $into);
                syscall(179, $command << 8 | $kind, $into, 1001, $data);
                syscall(443, 0, $command << 8 | $kind, 1001, $into);
            }
            syscall(179, $command << 8 | $kind, $theirs, 1001, $data);
        }
    }
}
for (1 .. 6) {
    next if fork;
    for my $round (1 .. 500) {
        my $child = fork;
        if (!$child) { round; exit; }
        select undef, undef, undef, 0.002 * ($round % 5);
        kill 9, $child;
        waitpid $child, 0;
        exit if -e "/srv/enough";
    }
    exit;
}
1 while wait > 0;
print "flooded\n";
"#;

/// Ends the flood, however the test ends.
struct Enough(PathBuf);

impl Drop for Enough {
    fn drop(&mut self) {
        let _ended_anyway = std::fs::write(&self.0, "");
    }
}

// S49: a VE that floods its own service keeps no other waiting, and another's device is one without quota.
#[test]
fn a_flood_in_one_ve_is_nothing_to_another() {
    let (Some(hostile), Some(quiet)) = (debian("crun", "rw"), debian("crun", "rw")) else {
        return;
    };
    quiet.setlimit2(&["-u", "ann", "1000", "2000", "30", "40"]);
    let before = quiet.stat()["second_level"].clone();
    let device = std::fs::metadata(quiet.root()).unwrap().st_dev();
    let mode = Mode::from_raw_mode(0o666);
    mknodat(
        CWD,
        hostile.path("srv/theirs"),
        FileType::BlockDevice,
        mode,
        device,
    )
    .unwrap();
    std::fs::write(hostile.path("srv/flood"), FLOOD).unwrap();
    let ask_theirs = "perl -e '$p=\"/srv/theirs\"; $d=\"\\0\"x200; \
        for (0x800005, 0x800007, 0x800008, 0x800009, 0x5805) { print syscall(179, $_<<8, $p, 1001, $d) < 0 ? $!+0 : \"ok\", \"\\n\" }'";
    let started = "touch /srv/started; perl /srv/flood";
    let rows = [("theirs", ask_theirs), ("flood", started)];
    let (flood, shown) = std::thread::scope(|scope| {
        let enough = Enough(hostile.path("srv/enough"));
        let flood = scope.spawn(|| answers(&Guest::new(&hostile, "crun"), "flood", &rows));
        within(PATIENCE, "the flood has begun", || {
            let begun = hostile.path("srv/started").exists();
            begun.then_some(()).ok_or("not yet".into())
        });
        let rows = [
            ("before", "quota -u ann"),
            ("set", "setquota -u bob 100 200 10 20 /"),
            ("report", "repquota -a -n -u -g"),
            ("sync", "quotasync -a; sync -f /"),
            ("lift", "setquota -u bob 0 0 0 0 /"),
        ];
        let shown = answers(&Guest::new(&quiet, "crun"), "quiet", &rows);
        drop(enough);
        (flood.join().unwrap(), shown)
    });
    // ENODEV is 19: the device of another VE is as one without quota.
    assert_eq!(flood["theirs"].text, "19\n".repeat(5));
    assert_eq!(flood["flood"].text, "flooded\n");
    for (row, answer) in &shown {
        assert_eq!(answer.code, 0, "{row}: {shown:#?}");
    }
    let ann = "12    1000    2000               2      30      40";
    assert!(shown["before"].text.contains(ann), "{shown:#?}");
    let rest = |stat: &serde_json::Value| {
        let accounts = stat["users"]["accounts"].as_array().unwrap().clone();
        let others = accounts.into_iter().filter(|one| one["id"] != 1002);
        // Root's usage is that of the container's own files.
        let others = others.filter(|one| one["id"] != 0);
        (
            others.collect::<Vec<_>>(),
            stat["users"]["grace_periods"].clone(),
        )
    };
    assert_eq!(rest(&quiet.stat()["second_level"]), rest(&before));
    assert_eq!(hostile.status()["restarts"], 0);
    hostile.assert_exact();
    quiet.assert_exact();
}

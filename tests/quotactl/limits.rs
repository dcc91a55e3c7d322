//! Limits that the tools set hold, and what the host sets is seen by the tools at once.

use super::{answers, debian};
use crate::harness::Ve;
use crate::harness::command::eventually;
use crate::harness::container::Guest;

const ANN: &str = "setpriv --reuid 1001 --regid 1001 --clear-groups";
const BOB: &str = "setpriv --reuid 1002 --regid 1002 --clear-groups";

// S45: what the VE's administrator sets holds for the next request.
#[test]
fn a_user_meets_the_limits_and_others_write_on() {
    let Some(ve) = debian("crun", "rw") else {
        return;
    };
    let write = |user: &str, name: &str, size: &str| {
        format!("{user} dd if=/dev/zero of=/srv/{name} bs=4k count={size}")
    };
    let (hard, late) = (write(ANN, "ann/hard", "100"), write(ANN, "ann/late", "1"));
    // In one request, which the grace period begins with: the next one may be too late.
    let soft = format!("{ANN} dd if=/dev/zero of=/srv/ann/soft bs=40k count=1");
    let others = write(BOB, "bob/more", "100");
    let rows = [
        ("limit", "setquota -u ann 0 200 0 0 /"),
        ("hard", &hard),
        ("others", &others),
        ("shown", "quota -u ann"),
        ("clear", "rm /srv/ann/hard"),
        (
            "grace",
            "setquota -u -t 1 1 /; setquota -u ann 20 2000 0 0 /",
        ),
        ("soft", &soft),
        ("wait", "sleep 2.1"),
        ("late", &late),
        ("expired", "quota -u ann"),
        ("lift", "setquota -u ann 0 0 0 0 /"),
        ("again", &late),
    ];
    let answers = answers(&Guest::new(&ve, "crun"), "limits", &rows);
    let code = |row: &str| answers[row].code;
    let says = |row: &str, words: &str| {
        assert!(answers[row].text.contains(words), "{row}: {answers:#?}");
    };
    assert_eq!(code("hard"), 1);
    says("hard", "Disk quota exceeded");
    // The last block is kept for what describes the file, as long as its data is not written out.
    assert!(
        ["196", "200*"]
            .iter()
            .any(|used| answers["shown"].text.contains(used)),
        "{answers:#?}"
    );
    assert_eq!((code("others"), code("soft")), (0, 0), "{answers:#?}");
    assert_eq!(code("late"), 1);
    says("late", "Disk quota exceeded");
    says("expired", "none");
    assert_eq!(code("again"), 0, "{answers:#?}");
    ve.assert_exact();
}

// S45: the switch counts for the very next request, of a process that has its file open, too.
#[test]
fn what_is_switched_holds_for_the_next_request() {
    let Some(ve) = debian("crun", "rw") else {
        return;
    };
    ve.setlimit(&["-b", "1G", "-B", "1G", "-i", "100000", "-I", "100000"]);
    let df = "df -Pk / | tail -n1 | tr -s ' ' | cut -d' ' -f2; df -Pi / | tail -n1 | tr -s ' ' | cut -d' ' -f2";
    let of_ann = format!("{ANN} sh -c \"{df}\"");
    // ann has a directory and a file of 8 KiB: 12 KiB and 2 inodes.
    let writer = "exec 3> /srv/ann/open; try() { head -c 40960 /dev/zero | setpriv --reuid 1001 --regid 1001 \
        --clear-groups dd bs=40k count=1 iflag=fullblock conv=notrunc oflag=append status=none >&3 2> /tmp/why && echo written \
        || grep -o 'Disk quota exceeded' /tmp/why; }; chown ann /srv/ann/open; try; quotaoff -u /; try; quotaon -u /; try; \
        setquota -u ann 0 0 0 0 /; try";
    let names = format!(
        "{ANN} sh -c 'for name in 1 2 3; do : > /srv/ann/$name || exit 7; echo $name; done'"
    );
    let rows = [
        ("df before", df),
        (
            "limit",
            "setquota -u ann 0 40 0 0 /; setquota -g ann 0 40 0 3 /",
        ),
        ("df after", df),
        ("df of ann", &of_ann),
        ("lift the group's", "setquota -g ann 0 0 0 0 /"),
        ("written", writer),
        ("limit names", "setquota -u ann 0 0 0 5 /"),
        ("names", &names),
    ];
    let answers = answers(&Guest::new(&ve, "crun"), "switched", &rows);
    let text = |row: &str| answers[row].text.as_str();
    assert_eq!(text("df before"), "1048576\n100000\n", "the first level");
    assert_eq!(text("df after"), text("df before"));
    assert_eq!(text("df of ann"), text("df before"));
    let refused = "Disk quota exceeded\n";
    let expected = format!("{refused}written\n{refused}written\n");
    assert_eq!(text("written"), expected, "{answers:#?}");
    // With the directory, the file and the open file the fifth inode is the second name.
    assert!(text("names").starts_with("1\n2\n"), "{answers:#?}");
    assert!(
        text("names").contains("Disk quota exceeded"),
        "{answers:#?}"
    );
    ve.assert_exact();
}

// S29: 0 takes the second level away at the next start, any other number gives it back and refuses nobody.
#[test]
fn the_number_of_ids_says_only_whether_there_is_a_second_level() {
    let Some(ve) = debian("crun", "rw") else {
        return;
    };
    let write = |user: &str, path: &str| {
        format!("{user} dd if=/dev/zero of=/srv/{path} bs=4k count=20 conv=fsync")
    };
    let (ann, bob) = (write(ANN, "ann/file"), write(BOB, "bob/file"));
    let codes = |name: &str, first: &str| {
        let rows = [("first", first), ("ann", &ann), ("bob", &bob)];
        let answers = answers(&Guest::new(&ve, "crun"), name, &rows);
        ["first", "ann", "bob"].map(|row| answers[row].code)
    };
    ve.setlimit(&["-u", "0"]);
    let limit = codes("running", "setquota -u ann 0 40 0 0 /");
    assert_eq!(limit, [0, 1, 0], "not before the next start");
    ve.remount();
    // quotaon(8) ends with the number of what it could not switch on: users and groups.
    assert_eq!(codes("without", "quotaon -a"), [2, 0, 0]);
    let owned = &ve.charged().users[&1001];
    assert!(owned.space >= 80 << 10, "counted all the same: {owned:?}");
    ve.assert_exact();
    ve.setlimit(&["-u", "1"]);
    ve.remount();
    assert_eq!(codes("again", "quotaoff -a && quotaon -a"), [0, 1, 0]);
}

// S46: what the host sets for a user of a running VE is seen inside at once.
#[test]
fn what_the_host_sets_is_seen_inside_at_once() {
    let Some(ve) = debian("crun", "rw") else {
        return;
    };
    let rows = [
        ("before", "quota -u ann"),
        (
            "wait",
            "touch /srv/asked; while [ ! -e /srv/go ]; do sleep 0.05; done",
        ),
        ("after", "quota -u ann"),
    ];
    let answers = std::thread::scope(|scope| {
        let inside = scope.spawn(|| answers(&Guest::new(&ve, "crun"), "seen", &rows));
        eventually("the container runs", || {
            if ve.path("srv/asked").exists() {
                Ok(())
            } else {
                Err("not yet".into())
            }
        });
        ve.setlimit2(&["-u", "ann", "1000", "2000", "30", "40"]);
        std::fs::write(ve.path("srv/go"), "").unwrap();
        inside.join().unwrap()
    });
    assert!(answers["before"].text.contains("none"), "{answers:?}");
    let after = &answers["after"].text;
    assert!(
        after.contains("12    1000    2000               2      30      40"),
        "{after}"
    );
}

// S47: any number of ids, also for the tools. `SIMFS_TEST_IDS` says how many.
#[test]
fn many_ids_are_reported() {
    let ids: u32 = std::env::var("SIMFS_TEST_IDS").map_or(5_000, |ids| ids.parse().unwrap());
    let Some(ve) = debian("crun", "rw") else {
        return;
    };
    ve.umount_and_wait();
    let many = ve.private().join("srv/many");
    std::fs::create_dir(&many).unwrap();
    for id in 10_000..10_000 + ids {
        let path = many.join(id.to_string());
        std::fs::File::create(&path).unwrap();
        std::os::unix::fs::chown(path, Some(id), Some(id)).unwrap();
    }
    ve.simfs(["check", Ve::ID, "--repair"]).expect(1);
    ve.mount().ok();
    let rows = [
        ("users", "repquota -n -u /"),
        ("groups", "repquota -n -g / | grep -c '^#[0-9]'"),
    ];
    let answers = answers(&Guest::new(&ve, "crun"), "many", &rows);
    let report = &answers["users"].text;
    let seen: Vec<u32> = report
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split(' ').next()?.parse().ok())
        .filter(|id| (10_000..10_000 + ids).contains(id))
        .collect();
    assert!(
        seen.iter().copied().eq(10_000..10_000 + ids),
        "{} ids",
        seen.len()
    );
    let groups: u32 = answers["groups"].text.trim().parse().unwrap();
    assert!(groups >= ids, "{groups}");
}

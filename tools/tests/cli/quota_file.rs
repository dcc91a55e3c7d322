//! Quota files, out of one VE and into another.

use std::path::Path;

use quota::store::LimitsCopy;
use quota::vfsv1::{self, QuotaFile, QuotaFileEntry};
use quota::{Bytes, Deadlines, GracePeriods, Limit, Limits, QuotaType, Usage, VeId};

use crate::host::{Host, words};

fn limits(host: &Host, kind: &str, id: u64) -> serde_json::Value {
    let stat: serde_json::Value =
        serde_json::from_str(&host.vzquota_ok("stat 101 -t --json")).unwrap();
    let accounts = stat["second_level"][kind]["accounts"]
        .as_array()
        .unwrap()
        .clone();
    let found = accounts.into_iter().find(|account| account["id"] == id);
    found.unwrap_or_default()
}

fn grace(host: &Host, kind: &str) -> serde_json::Value {
    let stat: serde_json::Value =
        serde_json::from_str(&host.vzquota_ok("stat 101 -t --json")).unwrap();
    stat["second_level"][kind]["grace_periods"].clone()
}

// S50: limits move from VE to VE in the quota tools' own format.
#[test]
fn what_is_exported_can_be_imported() {
    for (flag, kind) in [("-u", "users"), ("-g", "groups")] {
        let (from, to) = (Host::new(), Host::new());
        for host in [&from, &to] {
            host.init();
        }
        from.vzquota_ok(&format!("setlimit2 101 {flag} 1000 1M 2M 10 20"));
        from.vzquota_ok(&format!("setlimit2 101 {flag} 4000000000 0 0 0 7"));
        from.vzquota_ok(&format!("setlimit2 101 {flag} -t 100 200"));
        to.vzquota_ok(&format!("setlimit2 101 {flag} 77 1M 2M 10 20"));
        let file = from.path("aquota");
        let line = format!("101 {flag} {}", file.display());
        from.vzquota_ok(&format!("export-quota-file {line}"));
        for _ in 0..2 {
            to.vzquota_ok(&format!("import-quota-file {line}"));
            for id in [1000, 4_000_000_000, 77] {
                let of = if id == 77 { &to } else { &from };
                let expected = limits(of, kind, id);
                assert!(!expected.is_null());
                assert_eq!(
                    limits(&to, kind, id)["limits"],
                    expected["limits"],
                    "{kind} {id}"
                );
            }
            assert_eq!(grace(&to, kind), grace(&from, kind));
        }
        assert!(!from.path("aquota.new").exists());
    }
}

#[test]
fn usage_stays_what_it_is_and_deadlines_are_taken_over() {
    let (from, to) = (Host::new(), Host::new());
    for host in [&from, &to] {
        host.init();
        host.vzquota_ok("setlimit2 101 -u 0 4 0 0 0");
    }
    let deadline = |host: &Host| {
        limits(host, "users", 0)["deadlines"]["space"]
            .as_u64()
            .unwrap()
    };
    let (used, file) = (
        limits(&to, "users", 0)["used"].clone(),
        from.path("aquota.user"),
    );
    from.vzquota_ok("setlimit2 101 -u -t 60 60");
    from.vzquota_ok("setlimit2 101 -u 0 0 0 0 0");
    from.vzquota_ok("setlimit2 101 -u 0 4 0 0 0");
    assert!(deadline(&from) < deadline(&to));
    from.vzquota_ok(&format!("export-quota-file 101 -u {}", file.display()));
    to.vzquota_ok(&format!("import-quota-file 101 -u {}", file.display()));
    assert_eq!(deadline(&to), deadline(&from));
    assert_eq!(limits(&to, "users", 0)["used"], used);
}

#[test]
fn what_is_not_a_quota_file_of_this_kind_is_refused() {
    let host = Host::new();
    host.init();
    let (users, nonsense) = (host.path("users"), host.path("nonsense"));
    host.vzquota_ok(&format!("export-quota-file 101 -u {}", users.display()));
    std::fs::write(&nonsense, vec![7; 5000]).unwrap();
    let import = |flag: &str, file: &Path| {
        let line = format!("import-quota-file 101 {flag} {}", file.display());
        let ended = host.vzquota(&words(&line));
        assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
        (ended.code, ended.err)
    };
    let (code, said) = import("-g", &users);
    assert!(code == 2 && said.contains("is a file of users"), "{said}");
    let (code, said) = import("-u", &nonsense);
    assert!(code == 2 && said.contains("not a quota file"), "{said}");
    let (code, said) = import("-u", &host.path("absent"));
    assert!(code == 1 && said.contains("absent"), "{said}");
    let ended = host.vzquota(&words(&format!(
        "export-quota-file 101 {}",
        users.display()
    )));
    assert_eq!(ended.code, 2, "{ended:?}");
}

// One commit for many accounts: the copy of limits says how many there were.
#[test]
fn an_import_of_many_ids_takes_few_commits() {
    let host = Host::new();
    host.init();
    let ids = std::env::var("SIMFS_IMPORT_IDS").map_or(3000, |ids| ids.parse().unwrap());
    let entries = (0..ids).map(|id| {
        let space = Limit::new(None, Some(Bytes::new(1024 * (u64::from(id) + 1))));
        let limits = Limits {
            space,
            ..Limits::UNLIMITED
        };
        QuotaFileEntry {
            id,
            limits,
            usage: Usage::ZERO,
            deadlines: Deadlines::NONE,
        }
    });
    let file = QuotaFile {
        kind: QuotaType::User,
        grace: GracePeriods::default(),
        entries: entries.collect(),
    };
    let path = host.path("aquota.user");
    std::fs::write(&path, vfsv1::write(&file)).unwrap();
    let path = path.to_str().unwrap();
    host.vzquota_ok(&format!("import-quota-file 101 -u {path}"));
    let state = host.path("var/lib/simfs/101");
    let copy = LimitsCopy::read(&state, VeId::new(101)).unwrap().unwrap();
    assert_eq!(u32::try_from(copy.accounts.len()).unwrap(), ids + 1);
    let commits = copy.epoch;
    assert!(commits < u64::from(ids) / 100, "{commits} commits");
    host.vzquota_ok(&format!("import-quota-file 101 -u {path}"));
    let again = LimitsCopy::read(&state, VeId::new(101)).unwrap().unwrap();
    assert_eq!(again.epoch, commits, "a second import changes nothing");
}

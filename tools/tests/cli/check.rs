//! `simfs check` and `status` of a VE that is not mounted.

use crate::host::{Host, du};

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_recount_is_compared_and_mended() {
    let host = Host::new();
    let private = host.init();
    let equal = host.simfs(&["check", "101"]);
    assert_eq!(equal.code, 0, "{equal:?}");
    std::fs::write(private.join("behind the back"), vec![1; 50_000]).unwrap();
    let differs = host.simfs(&["check", "101", "--json"]);
    assert_eq!(differs.code, 4, "{differs:?}");
    let report = json(&differs.out);
    assert_eq!(
        (&report["equal"], &report["repaired"]),
        (&false.into(), &false.into())
    );
    let kinds: Vec<_> = report["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| &d["type"])
        .collect();
    assert_eq!(kinds, ["ve", "user", "group"]);
    let repaired = host.simfs(&["check", "101", "--repair"]);
    assert_eq!(repaired.code, 1, "{repaired:?}");
    assert_eq!(host.simfs(&["check", "101"]).code, 0);
    let (kib, inodes) = du(&private);
    let batch = host.vzquota_ok("-b stat 101");
    assert!(batch.starts_with(&format!("{kib} ")), "{batch}");
    assert!(batch.contains(&format!("\n{inodes} ")), "{batch}");
}

#[test]
fn status_lists_what_is_known() {
    let host = Host::new();
    assert_eq!(json(&host.simfs(&["status", "--json"]).out), json("[]"));
    let private = host.init();
    std::fs::create_dir_all(host.path("run/simfs/103")).unwrap();
    let socket = host.path("run/simfs/103/control.sock");
    drop(std::os::unix::net::UnixListener::bind(socket).unwrap());
    let all = json(&host.simfs(&["status", "--json"]).out);
    assert_eq!(all[0]["veid"], 101);
    assert_eq!(all[0]["state"], "unmounted");
    assert_eq!(all[0]["private"], private.to_str().unwrap());
    assert!(all[0]["pid"].is_null());
    assert_eq!(all[0]["used"]["inodes"], du(&private).1);
    assert_eq!(all[0]["limits"]["space"]["hard"], 200 << 20);
    assert_eq!(
        (&all[1]["veid"], &all[1]["state"]),
        (&103.into(), &"dead".into())
    );
    assert_eq!(
        json(&host.simfs(&["status", "101", "--json"]).out)
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let text = host.simfs(&["status"]).out;
    assert!(
        text.contains("unmounted") && text.contains("'simfs umount 103'"),
        "{text}"
    );
    assert_eq!(host.simfs(&["umount", "103"]).code, 0);
    let swept = json(&host.simfs(&["status", "103", "--json"]).out);
    assert_eq!(swept[0]["state"], "unmounted");
    assert_eq!(host.simfs(&["umount", "103"]).code, 1);
}

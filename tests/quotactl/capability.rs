//! Whom CAP_SYS_RESOURCE takes past limits: root of the VE, in the VE's own user namespace.

use super::{answers, debian_owned_from};
use crate::harness::container::Guest;

const BASE: u32 = 100_000;
/// Every one in its own user namespace has every capability in it.
const NESTED: &str = "unshare -U -r";
const NESTED_ANN: &str = "setpriv --reuid 1001 --regid 1001 --clear-groups unshare -U -r";
const WITHOUT: &str = "setpriv --bounding-set -sys_resource --inh-caps -sys_resource";

fn write(prefix: &str, name: &str) -> String {
    format!("{prefix} dd if=/dev/zero of=/srv/{name} bs=4k count=20 conv=fsync")
}

// S28: the second level is passed by the VE's own root, and by nobody who made himself one; the first level by nobody.
#[test]
fn a_capability_counts_where_the_ve_gave_it() {
    let Some(ve) = debian_owned_from("crun", "rw", BASE) else {
        return;
    };
    let guest = Guest {
        id_base: Some(BASE),
        capabilities: &["CAP_SYS_RESOURCE", "CAP_SETPCAP", "CAP_SETFCAP"],
        ..Guest::new(&ve, "crun")
    };
    let root = write("", "root");
    let refused = [
        ("root without it", write(WITHOUT, "without")),
        ("nested root", write(NESTED, "nested")),
        ("nested user", write(NESTED_ANN, "ann/nested")),
    ];
    let limits = "setquota -u root 0 4 0 0 / && setquota -u ann 0 12 0 0 /";
    let mut rows = vec![("limits", limits), ("root", root.as_str())];
    rows.extend(
        refused
            .iter()
            .map(|(who, command)| (*who, command.as_str())),
    );
    let second = answers(&guest, "second-level", &rows);
    for row in ["limits", "root"] {
        assert_eq!(second[row].code, 0, "{row}: {second:#?}");
    }
    for (who, _) in &refused {
        let answer = &second[*who];
        assert_eq!(answer.code, 1, "{who}: {second:#?}");
        assert!(
            answer.text.contains("Disk quota exceeded"),
            "{who}: {second:#?}"
        );
    }

    ve.setlimit(&["-b", "1M", "-B", "1M"]);
    let first = answers(&guest, "first-level", &[("root", &root)]);
    let answer = &first["root"];
    assert_eq!(answer.code, 1, "{first:#?}");
    assert!(answer.text.contains("Disk quota exceeded"), "{first:#?}");
    ve.assert_exact();
}

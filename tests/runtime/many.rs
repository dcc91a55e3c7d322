//! Many small VEs at a time: started with the host, listed, stopped with it.

use std::collections::BTreeSet;

use super::Host;
use super::boot::boot;
use super::failures::put_program;

/// How many; `SIMFS_MANY_VES` says another number.
fn count() -> u32 {
    let given = std::env::var("SIMFS_MANY_VES").ok();
    given.map_or(20, |text| text.parse().expect("SIMFS_MANY_VES: a number"))
}

// S58: all of an order side by side, order after order; each has its own counters, and nothing is left of any.
#[test]
fn many_ves_are_started_listed_and_stopped() {
    let Some(host) = Host::small("crun") else {
        return;
    };
    let ves: Vec<String> = (0..count())
        .map(|number| (1001 + number).to_string())
        .collect();
    for (number, ve) in ves.iter().enumerate() {
        let order = if number % 2 == 0 { "20" } else { "10" };
        let size = format!("{}M", 20 + number);
        host.create(
            ve,
            &[
                "--onboot",
                "yes",
                "--bootorder",
                order,
                "--diskspace",
                &size,
            ],
        )
        .ok();
    }
    std::fs::write(
        host.path("etc/vz/vz.conf"),
        "RUNTIME=\"crun\"\nVE_PARALLEL=\"4\"\n",
    )
    .expect("vz.conf");
    let script = host.path("etc/vz/conf/vps.premount");
    let text = format!(
        "#!/bin/sh\necho $VEID >> {}\n",
        host.path("order").display()
    );
    std::fs::write(&script, text).expect("a script");
    super::scripts::make_executable(&script);
    let started = boot(&host, "start").ok();
    assert_eq!(started.stderr, "");
    std::fs::remove_file(&script).expect("the script");

    let order = std::fs::read_to_string(host.path("order")).expect("order");
    let order: Vec<&str> = order.lines().collect();
    assert_eq!(order.len(), ves.len());
    let is_early = |ve: &str| ve.parse::<u32>().expect("a number") % 2 == 1;
    let early = order.iter().filter(|ve| is_early(ve)).count();
    assert!(order[..early].iter().all(|ve| is_early(ve)), "{order:?}");

    let listed = host
        .vzlist(&["-H", "-o", "ctid,status,diskspace.h,numproc"])
        .ok()
        .stdout;
    let rows: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), ves.len(), "{listed}");
    for (number, (row, ve)) in rows.iter().zip(&ves).enumerate() {
        let limit = ((20 + number) << 10).to_string();
        assert_eq!(
            row[..3],
            [ve.as_str(), "running", limit.as_str()],
            "{listed}"
        );
        let held: u64 = row[3].parse().expect("a number");
        assert!(held > 0, "{listed}");
    }
    // A list of those that run asks no runtime.
    put_program(&host.path("programs"), "crun", "exit 1");
    let running = host.vzlist(&["-H", "-o", "ctid,status"]).ok().stdout;
    assert_eq!(running.matches("running").count(), ves.len(), "{running}");
    std::fs::remove_dir_all(host.path("programs")).expect("programs");
    let counters = host.vzctl(&["ubc"]).ok().stdout;
    let counted: BTreeSet<&str> = counters
        .lines()
        .filter_map(|line| line.trim_start().split_once(":  "))
        .map(|(ve, _)| ve)
        .collect();
    assert_eq!(
        counted,
        ves.iter().map(String::as_str).collect(),
        "{counters}"
    );
    for ve in &ves {
        let said = host
            .exec(ve, "echo $VEID from $(hostname) > /mark; cat /mark")
            .ok();
        assert!(said.stdout.contains("from"), "{said:?}");
    }

    boot(&host, "stop").ok();
    assert_eq!(host.vzlist(&["-H"]).ok().stdout, "");
    for ve in &ves {
        host.vzctl(&["destroy", ve]).ok();
    }
    host.assert_nothing_left();
}

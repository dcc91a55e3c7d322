//! The socket where runtimes register.

use std::path::Path;
use std::sync::Arc;

use simfs::quotactl::{AdminPolicy, QuotactlConfig, QuotactlService};

use super::Bench;

#[test]
fn the_socket_is_for_root_and_replaces_a_stale_one() {
    use std::os::unix::fs::PermissionsExt;
    let mut bench = Bench::new(AdminPolicy::RootOfVe);
    let mode = std::fs::metadata(bench.dir.path().join("run"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(bench.service.take());
    drop(std::os::unix::net::UnixListener::bind(bench.socket()).unwrap());
    bench.start(AdminPolicy::RootOfVe);
    bench.run("namespace:self", &[]).expect("next", 0);
    // A file that is no socket is not ours to remove.
    drop(bench.service.take());
    std::fs::write(bench.socket(), "precious").unwrap();
    let config = QuotactlConfig {
        socket_path: bench.socket(),
        device: (0, 0),
        policy: AdminPolicy::RootOfVe,
        own_ids: false,
        kept: None,
    };
    assert!(
        QuotactlService::start(config, Arc::new(bench.engine.clone()), drop, || Ok(())).is_err()
    );
    assert!(Path::new(&bench.socket()).exists());
}

#[test]
fn nonsense_at_the_socket_does_no_harm() {
    use std::io::Write;
    let bench = Bench::new(AdminPolicy::RootOfVe);
    for bytes in [
        &b""[..],
        b"{",
        b"null",
        b"[1,2]",
        &[0xff; 4096],
        b"{\"fds\":[\"seccompFd\"]}",
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(bench.socket()).unwrap();
        let _ = stream.write_all(bytes);
    }
    bench.run("commands", &[]).expect("getquota", 0);
}

//! What a service manager is told: that the mount answers, and that it is being taken away.
//!
//! The way to the manager is opened before the daemon locks itself in, since no path of the host leads anywhere
//! afterwards; telling takes no path. A manager that cannot be reached is no reason not to serve.
//!
//! # Source
//! sd_notify(3).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable that names the manager's socket.
pub const VARIABLE: &str = "NOTIFY_SOCKET";

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Manager(Option<UnixDatagram>);

impl Manager {
    /// The manager that the environment names.
    pub fn of_environment() -> Self {
        let named = std::env::var_os(VARIABLE).filter(|name| !name.is_empty());
        let socket = named.and_then(|name| match reach(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(socket = %name.display(), %error, "the service manager is not told");
                None
            }
        });
        Self(socket)
    }

    /// The mount answers.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// The mount is gone, what is left is being settled.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    fn tell(&self, message: &str) {
        let Some(socket) = &self.0 else { return };
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }
}

/// A socket to a path, or where the name begins with '@' to a name of no file system.
fn reach(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::from(io::ErrorKind::Unsupported)),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A manager that reads nothing must not hold the mount up.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_abstract_names_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let abstract_name = format!("simfs-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (name, manager) in [
            (path.display().to_string(), UnixDatagram::bind(&path)),
            (
                format!("@{abstract_name}"),
                UnixDatagram::bind_addr(&address),
            ),
        ] {
            let manager = manager.unwrap();
            Manager(Some(reach(OsStr::new(&name)).unwrap())).ready("well");
            let mut bytes = [0; 64];
            let length = manager.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"READY=1\nSTATUS=well\n", "{name}");
        }
        assert!(reach(OsStr::new("/no/such/socket")).is_err());
        assert!(reach(OsStr::new("vsock:2:1234")).is_err());
        // A manager that has ended, and none at all.
        Manager(None).stopping();
    }
}

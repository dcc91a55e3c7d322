//! The same operations on a mount and on a plain directory of the same backing file system.

use std::path::PathBuf;

use super::ops::{Op, perform};
use super::tree::dump;
use super::user::User;
use super::ve::{Spec, Ve};

/// A mounted VE and a plain directory beside its private area.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) ve: Ve,
    plain: PathBuf,
}

impl Pair {
    /// Both empty and open to everybody; `None` after a skip.
    #[track_caller]
    pub(crate) fn new(spec: Spec) -> Option<Self> {
        let ve = spec.mount()?;
        let plain = ve.beside("plain");
        std::fs::create_dir(&plain).expect("plain directory");
        for dir in [&plain, &ve.root()] {
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
            std::fs::set_permissions(dir, open).expect("chmod");
        }
        Some(Self { ve, plain })
    }

    /// Runs `work` on both sides as one user and asserts the same answer.
    #[track_caller]
    pub(crate) fn same<T: PartialEq + std::fmt::Debug + Send>(
        &self,
        user: User,
        what: &str,
        work: impl Fn(&std::path::Path) -> T + Send + Sync,
    ) {
        let _compared = self.agreed(user, what, work);
    }

    /// Like [`Pair::same`]; gives the answer.
    #[track_caller]
    pub(crate) fn agreed<T: PartialEq + std::fmt::Debug + Send>(
        &self,
        user: User,
        what: &str,
        work: impl Fn(&std::path::Path) -> T + Send + Sync,
    ) -> T {
        let native = user.run(|| work(&self.plain));
        let root = self.ve.root();
        let mounted = user.run(|| work(&root));
        assert_eq!(
            mounted, native,
            "{what} as {user:?}: mount (left), plain directory (right)"
        );
        mounted
    }

    /// Performs operations one by one on both sides; answers and trees must be equal throughout.
    #[track_caller]
    pub(crate) fn play(&self, ops: &[(User, Op)]) {
        for (step, (user, op)) in ops.iter().enumerate() {
            self.same(*user, &format!("step {step}: {op:?}"), |root| {
                perform(root, op)
            });
        }
        assert_eq!(dump(&self.ve.root()), dump(&self.plain), "after {ops:?}");
        self.ve.assert_exact();
    }

    /// Empties both sides.
    pub(crate) fn clear(&self) {
        for dir in [&self.plain, &self.ve.root()] {
            for entry in std::fs::read_dir(dir).expect("readdir") {
                let entry = entry.expect("entry");
                let is_dir = entry.file_type().expect("type").is_dir();
                let path = entry.path();
                let removed = if is_dir {
                    std::fs::remove_dir_all(&path)
                } else {
                    std::fs::remove_file(&path)
                };
                removed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        }
    }
}

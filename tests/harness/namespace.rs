//! Mount namespaces that tests make.

/// For a shell in a mount namespace of its own: lets go of the roots of all VEs that other tests have mounted at that
/// moment, but for those below `$KEEP`. None of them could be unmounted to the end otherwise.
pub(crate) const LET_GO: &str = "awk -v keep=\"${KEEP:-/none}/\" '$3 == \"fuse.simfs\" && index($2, keep) != 1 { print $2 }' \\\n\
    /proc/self/mounts | xargs -r umount -l 2> /dev/null || true\n";

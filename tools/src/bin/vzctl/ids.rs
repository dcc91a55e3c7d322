//! The ids of the host that VEs with user namespaces have.
//!
//! Two VEs may have the same ones: files and processes stay apart all the same, by private areas and namespaces. But
//! what the host's kernel counts by user (processes, pipes, inotify watches, locked memory) it counts for both together.

use simfs::sys::user_namespace::IdRange;
use simfs_tools::ve_config::VeConfig;
use simfs_tools::ve_state::known;

use crate::Context;

/// The keys that say which ids a VE has.
pub(crate) const KEYS: [&str; 2] = ["LOCAL_UID", "LOCAL_GID"];

/// Tells which other VEs have ids of this one.
pub(crate) fn warn_of_shared(context: &Context, config: &VeConfig) {
    let Some(range) = config.id_range() else {
        return;
    };
    let others = known(&context.paths).into_iter().filter(|other| {
        // One wrong file of another VE is not this one's matter.
        let theirs = VeConfig::open(&context.paths, *other).ok();
        let theirs = theirs.and_then(|config| config.id_range());
        *other != context.ve && theirs.is_some_and(|theirs| overlap(&range, &theirs))
    });
    let others: Vec<String> = others.map(|ve| ve.to_string()).collect();
    if !others.is_empty() {
        context.warn(&format!(
            "LOCAL_UID: some of its ids are also those of VE {}: what the host limits for each user, it limits for \
             these VEs together; give each of them {} ids of its own",
            others.join(", "),
            range.count
        ));
    }
}

fn overlap(one: &IdRange, other: &IdRange) -> bool {
    let meets = |first: u32, other: u32| first.abs_diff(other) < one.count;
    meets(one.uid, other.uid) || meets(one.gid, other.gid)
}

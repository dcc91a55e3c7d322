//! Templates of what others have made.

use std::fs;
use std::path::Path;

use simfs_tools::archive;
use simfs_tools::exit::{Failure, VzctlExit};

use crate::args::ImportArgs;
use crate::{Fallible, Workshop, check_name, oci, system};

pub(crate) fn import(cache: &Path, args: &ImportArgs) -> Fallible<()> {
    check_name(&args.name)?;
    let workshop = Workshop::open(cache, &args.name)?;
    let tree = workshop.dir.join("root");
    fs::create_dir(&tree).map_err(system)?;
    if args.source.is_file() {
        archive::unpack(&args.source, &tree).map_err(system)?;
        if tree.join("oci-layout").is_file() {
            let layout = workshop.dir.join("layout");
            fs::rename(&tree, &layout).map_err(system)?;
            fs::create_dir(&tree).map_err(system)?;
            oci::unpack(&layout, &workshop.dir, &tree)?;
        }
    } else if args.source.join("index.json").is_file() {
        oci::unpack(&args.source, &workshop.dir, &tree)?;
    } else {
        return Err(Failure::new(
            VzctlExit::Value,
            format!(
                "'{}' is neither a tar file nor an OCI image layout (a directory with index.json)",
                args.source.display()
            ),
        ));
    }
    if tree.join("bin/sh").symlink_metadata().is_err()
        && tree.join("sbin/init").symlink_metadata().is_err()
    {
        return Err(Failure::new(
            VzctlExit::BrokenVe,
            format!(
                "'{}' holds neither /sbin/init nor /bin/sh: it is not a whole root directory",
                args.source.display()
            ),
        ));
    }
    workshop.publish(&tree, cache, &args.name, args.form)
}

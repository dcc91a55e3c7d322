//! The devices controller of the first generation: lists of what a group may use.
//!
//! A group begins with the list of the one above. What is taken from a list is taken from those below; what is added is
//! not, and stands above already or is refused.
//!
//! # Source
//! Linux `Documentation/admin-guide/cgroup-v1/devices.rst`.

use std::fs;
use std::io;
use std::path::Path;

use super::{ResourceGroups, make, remove_tree};

impl ResourceGroups {
    /// Whether devices are limited by a controller of the first generation.
    pub fn has_device_lists(&self) -> bool {
        self.is_first("devices")
    }

    /// Refuses all devices but these, each as `c 1:3 rwm`. Only with [`ResourceGroups::has_device_lists`].
    ///
    /// # Errors
    /// Those of writing the lists.
    pub fn allow_devices(&self, lines: &[String]) -> io::Result<()> {
        let Some(mount) = self.first.get("devices") else {
            return Ok(());
        };
        let group = mount.join(&self.name);
        // The list can be emptied only while nothing stands below it.
        remove_tree(&group);
        make(&group)?;
        fs::write(group.join("devices.deny"), "a")?;
        write_lines(&group, "devices.allow", lines)?;
        make(&mount.join(self.root()))
    }

    /// Takes devices from the VE's processes, then gives them these; the same lines.
    ///
    /// # Errors
    /// Those of writing the lists of the VE's own groups.
    pub fn change_devices(&self, taken: &[String], given: &[String]) -> io::Result<()> {
        let Some(mount) = self.first.get("devices") else {
            return Ok(());
        };
        write_lines(&mount.join(self.root()), "devices.deny", taken)?;
        let above = [self.name.clone(), self.members(), self.root()];
        for group in above {
            write_lines(&mount.join(group), "devices.allow", given)?;
        }
        allow_below(&mount.join(self.root()), given);
        Ok(())
    }
}

/// Groups that the VE has made: they may go at any time, and may have given up what is given here.
fn allow_below(group: &Path, lines: &[String]) {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let _its_own_affair = write_lines(&entry.path(), "devices.allow", lines);
        allow_below(&entry.path(), lines);
    }
}

fn write_lines(group: &Path, file: &str, lines: &[String]) -> io::Result<()> {
    lines
        .iter()
        .try_for_each(|line| fs::write(group.join(file), line))
}

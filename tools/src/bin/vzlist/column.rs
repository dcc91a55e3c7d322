//! The columns that can be shown.

use simfs_tools::ubc;

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its name in `-o`.
    pub(crate) name: String,
    pub(crate) heading: String,
    pub(crate) width: usize,
    /// Numbers stand to the right and are sorted by their worth.
    pub(crate) is_number: bool,
}

/// The columns that are not beancounters: name, heading, width, and whether it is a number.
#[rustfmt::skip]
pub(crate) const FIXED: &[(&str, &str, usize, bool)] = &[
    ("ctid", "CTID", 10, true), ("status", "STATUS", 9, false), ("numproc", "NPROC", 6, true),
    ("ip", "IP_ADDR", 15, false), ("hostname", "HOSTNAME", 16, false), ("name", "NAME", 16, false),
    ("smart_name", "SMARTNAME", 16, false), ("description", "DESCRIPTION", 16, false),
    ("ostemplate", "OSTEMPLATE", 24, false), ("private", "PRIVATE", 24, false), ("root", "ROOT", 24, false),
    ("nameserver", "NAMESERVER", 16, false), ("searchdomain", "SEARCHDOMAIN", 16, false),
    ("layout", "LAYOUT", 6, false), ("onboot", "ONBOOT", 6, false), ("bootorder", "BOOTORDER", 9, true),
    ("disabled", "DISABLED", 8, false), ("cpulimit", "CPULIM", 8, true), ("cpuunits", "CPUUNI", 8, true),
    ("cpus", "CPUS", 6, true), ("ioprio", "IOP", 3, true), ("iolimit", "IOLIMIT", 10, true),
    ("iopslimit", "IOPSLIMIT", 9, true),
    ("diskspace.s", "DISKSPACE_S", 11, true), ("diskspace.h", "DISKSPACE_H", 11, true),
    ("diskinodes.s", "DISKINODES_S", 12, true), ("diskinodes.h", "DISKINODES_H", 12, true),
];

/// The column of a name, also of an old one.
pub(crate) fn column(name: &str) -> Option<Column> {
    let name = match name {
        "veid" | "vpsid" => "ctid",
        name => name,
    };
    all().into_iter().find(|column| column.name == name)
}

/// Every column: the fixed ones, then five for each beancounter.
pub(crate) fn all() -> Vec<Column> {
    let fixed = FIXED
        .iter()
        .map(|(name, heading, width, is_number)| Column {
            name: (*name).into(),
            heading: (*heading).into(),
            width: *width,
            is_number: *is_number,
        });
    let mut columns: Vec<Column> = fixed.collect();
    for name in counted() {
        for letter in ["", ".m", ".b", ".l", ".f"] {
            let name = format!("{name}{letter}");
            if columns.iter().any(|known| known.name == name) {
                continue;
            }
            let heading = name.to_ascii_uppercase().replace('.', "_");
            columns.push(Column {
                width: heading.len().max(10),
                name,
                heading,
                is_number: true,
            });
        }
    }
    columns
}

/// The beancounters that have columns.
pub(crate) fn counted() -> impl Iterator<Item = &'static str> {
    ubc::RESOURCES.into_iter().filter(|name| *name != "dummy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_found_by_its_name_and_only_once() {
        let all = all();
        for column in &all {
            let same = all.iter().filter(|other| other.name == column.name);
            assert_eq!(same.count(), 1, "{}", column.name);
            assert!(column.heading.len() <= column.width, "{}", column.name);
        }
        assert_eq!(column("vpsid"), column("ctid"));
        assert!(column("physpages.f").is_some() && column("physpages.x").is_none());
        assert!(column("dummy").is_none());
    }
}

//! What can be set of a VE: option of `vzctl`, key of the configuration file, and form, in one table.
//!
//! A value is brought into its stored form once, where it is typed; a file's values are checked against the same
//! table when they are read.
//!
//! # Source
//! vzctl(8), ctid.conf(5), vzctl `src/lib/config.c`.

use std::net::IpAddr;

use quota::Blocks;

use crate::value::{ValueError, parse_inodes, parse_space};

/// When and where a value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// In the quota record, at once.
    Disk,
    /// In the VE's resource groups, at once while it runs.
    Group,
    /// In the VE's files and namespaces, at once while it runs.
    Guest,
    /// At the next start.
    Start,
    /// On the host only.
    Host,
}

/// One thing that can be set.
pub struct Setting {
    /// The long option, without dashes.
    pub flag: &'static str,
    /// The key of the configuration file.
    pub key: &'static str,
    /// The option's value in `--help`.
    pub value_name: &'static str,
    /// The option's line in `--help`.
    pub help: &'static str,
    /// When it takes effect.
    pub effect: Effect,
    /// From what is typed to what is stored.
    typed: Form,
    /// From what stands in a file to the same.
    stored: Form,
}

type Form = fn(&str) -> Result<String, ValueError>;

impl Setting {
    /// The stored form of a value of the command line.
    ///
    /// # Errors
    /// A value that is not of the setting's form.
    pub fn typed(&self, value: &str) -> Result<String, ValueError> {
        (self.typed)(value)
    }

    /// The stored form of a value of a file.
    ///
    /// # Errors
    /// A value that is not of the setting's form.
    pub fn stored(&self, value: &str) -> Result<String, ValueError> {
        (self.stored)(value)
    }
}

/// A setting whose typed and stored forms are the same.
const fn plain(
    flag: &'static str,
    key: &'static str,
    value_name: &'static str,
    effect: Effect,
    form: Form,
    help: &'static str,
) -> Setting {
    Setting {
        flag,
        key,
        value_name,
        help,
        effect,
        typed: form,
        stored: form,
    }
}

/// A setting that is typed in another unit than it is stored in.
const fn scaled(setting: Setting, typed: Form) -> Setting {
    Setting { typed, ..setting }
}

use Effect::{Disk, Group, Guest, Host, Start};

/// Everything that can be set.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    plain("diskspace", "DISKSPACE", "S[:H]", Disk, space_pair, "Space, soft and hard limit: KiB, or with a suffix (10G), or 'unlimited'"),
    plain("diskinodes", "DISKINODES", "S[:H]", Disk, inode_pair, "Inodes, soft and hard limit: a number, or with a suffix (200K), or 'unlimited'"),
    plain("quotatime", "QUOTATIME", "SECONDS", Disk, number_or_unlimited, "Grace period of both soft limits; or 'unlimited'"),
    plain("quotaugidlimit", "QUOTAUGIDLIMIT", "N", Disk, number_or_unlimited, "0: no limits of users and groups from the next start on; else they are enforced, for any number of ids"),
    plain("cpuunits", "CPUUNITS", "N", Group, cpuunits, "Share of the CPU against other VEs: 8 to 500000, 1000 is usual"),
    scaled(plain("cpulimit", "CPULIMIT", "N[%]", Group, number, "Percent of one CPU, with '%' of the whole host; 0: no limit"), cpulimit),
    plain("cpus", "CPUS", "N", Group, number, "Number of CPUs; 0: all"),
    plain("physpages", "PHYSPAGES", "B[:L]", Group, pages, "Memory, in pages of 4 KiB, or with a suffix (512M)"),
    scaled(plain("ram", "PHYSPAGES", "SIZE", Group, pages, "Memory: bytes, or with a suffix (512M)"), size_to_pages),
    plain("swappages", "SWAPPAGES", "B[:L]", Group, pages, "Swap space, in pages of 4 KiB, or with a suffix (1G)"),
    scaled(plain("swap", "SWAPPAGES", "SIZE", Group, pages, "Swap space: bytes, or with a suffix (1G)"), size_to_pages),
    plain("numproc", "NUMPROC", "B[:L]", Group, counter, "Processes and threads"),
    plain("ioprio", "IOPRIO", "0-7", Group, ioprio, "Priority of disk I/O; 4 is usual"),
    scaled(plain("iolimit", "IOLIMIT", "RATE", Group, rate, "Disk bandwidth: MB/s, or bytes/s with a suffix (512K); 0: no limit"), iolimit),
    plain("iopslimit", "IOPSLIMIT", "N", Group, number, "Disk operations per second; 0: no limit"),
    plain("hostname", "HOSTNAME", "NAME", Guest, hostname, "Host name"),
    plain("nameserver", "NAMESERVER", "ADDRESS", Guest, addresses, "DNS server; may be repeated"),
    plain("searchdomain", "SEARCHDOMAIN", "NAME", Guest, domains, "DNS search domain; may be repeated"),
    plain("devnodes", "DEVNODES", "NAME:rwmq", Guest, devnodes, "A device of the host to give to the VE, 'NAME:none' to take it away; may be repeated"),
    plain("capability", "CAPABILITY", "NAME:on|off", Start, capabilities, "A capability to give or take; may be repeated"),
    plain("local_uid", "LOCAL_UID", "UID", Start, first_id, "First user id on the host of a user namespace of the VE's own; 0: none"),
    plain("local_gid", "LOCAL_GID", "GID", Start, first_id, "First group id of the same (default: the number of local_uid)"),
    plain("onboot", "ONBOOT", "yes|no", Host, yes_no, "Whether to start it when the host boots"),
    plain("bootorder", "BOOTORDER", "N", Host, number, "VEs with larger numbers start earlier"),
    plain("name", "NAME", "NAME", Host, name, "A name to use for the number"),
    plain("description", "DESCRIPTION", "TEXT", Host, text, "A note"),
    plain("disabled", "DISABLED", "yes|no", Host, yes_no, "Whether it may not be started"),
];

/// The setting of an option.
pub fn of_flag(flag: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.flag == flag)
}

/// The setting of a key.
pub fn of_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

fn wrong(value: &str, wanted: &'static str) -> ValueError {
    ValueError::Form {
        value: value.into(),
        wanted,
    }
}

/// `soft:hard` or one value for both, each read by `read`; a hard limit below the soft one is refused.
fn pair(
    value: &str,
    read: impl Fn(&str) -> Result<Option<u64>, ValueError>,
) -> Result<String, ValueError> {
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (read(soft)?, read(hard)?);
    if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
        return Err(wrong(
            value,
            "a pair of limits: the soft limit, first, must not be above the hard one",
        ));
    }
    let shown =
        |limit: Option<u64>| limit.map_or_else(|| "unlimited".into(), |limit| limit.to_string());
    Ok(format!("{}:{}", shown(soft), shown(hard)))
}

fn space_pair(value: &str) -> Result<String, ValueError> {
    pair(value, |part| {
        Ok(parse_space(part)?.map(|bytes| Blocks::ceil_from(bytes).get()))
    })
}

fn inode_pair(value: &str) -> Result<String, ValueError> {
    pair(
        value,
        |part| Ok(parse_inodes(part)?.map(quota::Inodes::get)),
    )
}

fn whole(value: &str, wanted: &'static str) -> Result<u64, ValueError> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value
        .parse::<u32>()
        .ok()
        .filter(|_| is_number)
        .map(u64::from)
        .ok_or_else(|| wrong(value, wanted))
}

fn number(value: &str) -> Result<String, ValueError> {
    whole(value, "a number: give 0 to 4294967295").map(|number| number.to_string())
}

/// The same, where files of OpenVZ also say `unlimited` or give a number of 64 bits for it.
fn number_or_unlimited(value: &str) -> Result<String, ValueError> {
    let is_unlimited = value.eq_ignore_ascii_case("unlimited")
        || value.bytes().all(|byte| byte.is_ascii_digit())
            && value.parse() == Ok(i64::MAX.unsigned_abs());
    number(if is_unlimited { "4294967295" } else { value })
}

fn ranged(
    value: &str,
    range: std::ops::RangeInclusive<u64>,
    wanted: &'static str,
) -> Result<String, ValueError> {
    let number = whole(value, wanted)?;
    if range.contains(&number) {
        Ok(number.to_string())
    } else {
        Err(wrong(value, wanted))
    }
}

/// How many ids a VE's user namespace has.
pub const IDS: u32 = 65_536;

/// The first id of a range on the host: none, or one that leaves the host's own users alone.
fn first_id(value: &str) -> Result<String, ValueError> {
    const WANTED: &str =
        "the first of 65536 ids: give 0 for no user namespace, or 65536 to 4294901759";
    let first = whole(value, WANTED)?;
    let last = u64::from(u32::MAX - IDS);
    if first == 0 || (u64::from(IDS)..=last).contains(&first) {
        Ok(first.to_string())
    } else {
        Err(wrong(value, WANTED))
    }
}

fn cpuunits(value: &str) -> Result<String, ValueError> {
    ranged(value, 8..=500_000, "a CPU share: give 8 to 500000")
}

fn ioprio(value: &str) -> Result<String, ValueError> {
    ranged(value, 0..=7, "an I/O priority: give 0 to 7")
}

fn cpulimit(value: &str) -> Result<String, ValueError> {
    const WANTED: &str =
        "a CPU limit: give percent of one CPU (150), or of the host (50%), or 0 for none";
    match value.strip_suffix('%') {
        None => whole(value, WANTED).map(|percent| percent.to_string()),
        Some(percent) => {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            let cpus = u64::try_from(cpus).unwrap_or(1);
            let percent = whole(percent, WANTED)?.saturating_mul(cpus);
            number(&percent.to_string()).map_err(|_| wrong(value, WANTED))
        }
    }
}

/// A beancounter: `barrier[:limit]`, counts or `unlimited`; the largest number of the original means the same.
fn counter(value: &str) -> Result<String, ValueError> {
    pair(value, |part| {
        let count = parse_inodes(part)?.map(quota::Inodes::get);
        Ok(count.filter(|count| *count < i64::MAX.unsigned_abs()))
    })
}

/// The pages that beancounters are counted in.
const PAGE: u64 = 4096;

/// A beancounter of memory: pages, or with a suffix an amount; `P` stands for pages.
///
/// # Source
/// vzctl `src/lib/config.c`: samples say `PHYSPAGES="0:256M"`.
fn pages(value: &str) -> Result<String, ValueError> {
    pair(value, |part| {
        let number = part.strip_suffix(['p', 'P']).unwrap_or(part);
        if number.bytes().all(|byte| byte.is_ascii_digit()) {
            let count = parse_inodes(number)?.map(quota::Inodes::get);
            return Ok(count.filter(|count| *count < i64::MAX.unsigned_abs()));
        }
        Ok(parse_space(part)?.map(|bytes| bytes.get() / PAGE))
    })
}

fn size_to_pages(value: &str) -> Result<String, ValueError> {
    const WANTED: &str =
        "an amount of memory: give bytes, or a number with K, M or G (512M), or 'unlimited'";
    let is_bytes = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let typed = if is_bytes {
        format!("{value}B")
    } else {
        value.to_owned()
    };
    Ok(
        match parse_space(&typed).map_err(|_| wrong(value, WANTED))? {
            None => "unlimited:unlimited".into(),
            Some(bytes) => format!("{0}:{0}", bytes.get().div_ceil(PAGE)),
        },
    )
}

/// Bytes per second as a file has it: with a suffix or without.
fn rate(value: &str) -> Result<String, ValueError> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        return number(value);
    }
    iolimit(value)
}

fn iolimit(value: &str) -> Result<String, ValueError> {
    const WANTED: &str = "a disk bandwidth: give MB/s (10), bytes/s with a suffix (512K), or 0 for none, up to 2047M";
    if value.eq_ignore_ascii_case("unlimited") {
        return Ok("0".into());
    }
    let is_megabytes = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let typed = if is_megabytes {
        format!("{value}M")
    } else {
        value.to_owned()
    };
    let bytes = parse_space(&typed).map_err(|_| wrong(value, WANTED))?;
    let bytes = bytes.map_or(0, quota::Bytes::get);
    ranged(&bytes.to_string(), 0..=2_147_483_647, WANTED).map_err(|_| wrong(value, WANTED))
}

fn hostname(value: &str) -> Result<String, ValueError> {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if value.len() <= 64 && value.split('.').all(is_label) {
        Ok(value.into())
    } else {
        Err(wrong(
            value,
            "a host name: give up to 64 letters, digits and '-', in parts separated by '.'",
        ))
    }
}

fn words(
    value: &str,
    is_right: impl Fn(&str) -> bool,
    wanted: &'static str,
) -> Result<String, ValueError> {
    let words: Vec<&str> = value.split_whitespace().collect();
    if words.iter().all(|word| is_right(word)) {
        Ok(words.join(" "))
    } else {
        Err(wrong(value, wanted))
    }
}

fn addresses(value: &str) -> Result<String, ValueError> {
    words(
        value,
        |word| word.parse::<IpAddr>().is_ok(),
        "an address: give numbers, as 192.0.2.1 or 2001:db8::1",
    )
}

fn domains(value: &str) -> Result<String, ValueError> {
    words(
        value,
        |word| hostname(word).is_ok(),
        "a domain: give a name such as example.org",
    )
}

fn devnodes(value: &str) -> Result<String, ValueError> {
    let is_device = |word: &str| {
        word.split_once(':').is_some_and(|(name, access)| {
            !name.is_empty()
                && !name.split('/').any(|part| part == ".." || part.is_empty())
                && (access == "none" || access.chars().all(|letter| "rwmq".contains(letter)))
        })
    };
    words(
        value,
        is_device,
        "a device: give its name below /dev and r, w, m or none, as fuse:rw",
    )
}

fn capabilities(value: &str) -> Result<String, ValueError> {
    let is_capability = |word: &str| {
        word.split_once(':').is_some_and(|(name, switch)| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
                && matches!(switch, "on" | "off")
        })
    };
    words(
        value,
        is_capability,
        "a capability: give its name and on or off, as sys_time:on",
    )
}

fn yes_no(value: &str) -> Result<String, ValueError> {
    match value {
        "yes" | "no" => Ok(value.into()),
        _ => Err(wrong(value, "a switch: give yes or no")),
    }
}

fn name(value: &str) -> Result<String, ValueError> {
    let is_name = value.len() <= 64
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !value.starts_with(['.', '-'])
        && !value.bytes().all(|byte| byte.is_ascii_digit());
    if is_name && !value.is_empty() {
        Ok(value.into())
    } else {
        Err(wrong(
            value,
            "a name: give letters, digits, '.', '_' and '-', not a number",
        ))
    }
}

fn text(value: &str) -> Result<String, ValueError> {
    if value
        .chars()
        .any(|letter| letter.is_control() || letter == '"')
    {
        Err(wrong(value, "a note: give one line without '\"'"))
    } else {
        Ok(value.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(flag: &str, value: &str) -> Option<String> {
        of_flag(flag).unwrap().typed(value).ok()
    }

    #[test]
    fn typed_values_and_what_is_stored() {
        let rows = [
            ("diskspace", "1G:1.1G", Some("1048576:1153433")),
            ("diskspace", "2048", Some("2048:2048")),
            ("diskspace", "unlimited", Some("unlimited:unlimited")),
            ("diskspace", "2G:1G", None),
            ("diskspace", "unlimited:1G", None),
            ("diskspace", "10GB", None),
            ("diskspace", "", None),
            ("diskinodes", "200000:220000", Some("200000:220000")),
            ("diskinodes", "-5", None),
            ("quotatime", "604800", Some("604800")),
            ("quotatime", "7d", None),
            ("quotatime", "unlimited", Some("4294967295")),
            ("quotatime", "9223372036854775807", Some("4294967295")),
            ("quotatime", "-1", None),
            ("quotaugidlimit", "unlimited", Some("4294967295")),
            ("diskspace", "2.2G", Some("2306867:2306867")),
            ("diskspace", "10.9", None),
            ("diskspace", "2050B", Some("2:2")),
            ("diskspace", "1T:1t", Some("1073741824:1073741824")),
            ("diskspace", "1 G", None),
            ("diskspace", "9223372036854775808", None),
            ("physpages", "0:256M", Some("0:65536")),
            ("physpages", "0:64P", Some("0:64")),
            ("physpages", "65536", Some("65536:65536")),
            ("swappages", "0:unlimited", Some("0:unlimited")),
            ("numproc", "2K", Some("2048:2048")),
            ("cpuunits", "7", None),
            ("cpuunits", "1000", Some("1000")),
            ("cpulimit", "150", Some("150")),
            ("ram", "512M", Some("131072:131072")),
            ("ram", "8192", Some("2:2")),
            ("physpages", "0:9223372036854775807", Some("0:unlimited")),
            ("iolimit", "10", Some("10485760")),
            ("iolimit", "512K", Some("524288")),
            ("iolimit", "3G", None),
            ("ioprio", "8", None),
            ("hostname", "web-1.example.org", Some("web-1.example.org")),
            ("hostname", "a b", None),
            ("hostname", "", None),
            (
                "nameserver",
                "192.0.2.1 2001:db8::1",
                Some("192.0.2.1 2001:db8::1"),
            ),
            ("nameserver", "ns1", None),
            ("devnodes", "fuse:rw", Some("fuse:rw")),
            ("devnodes", "../sda:rw", None),
            ("capability", "sys_time:on", Some("sys_time:on")),
            ("capability", "sys_time", None),
            ("onboot", "maybe", None),
            ("local_uid", "100000", Some("100000")),
            ("local_uid", "0", Some("0")),
            ("local_uid", "1000", None),
            ("local_uid", "4294901759", Some("4294901759")),
            ("local_uid", "4294901760", None),
            ("name", "web", Some("web")),
            ("name", "../x", None),
            ("name", "17", None),
            ("description", "a \"b\"", None),
        ];
        for (flag, value, stored) in rows {
            assert_eq!(typed(flag, value).as_deref(), stored, "--{flag} {value}");
        }
    }

    #[test]
    fn files_of_openvz_are_read() {
        // vzctl `etc/conf/ve-vswap-256m.conf-sample` and ctid.conf(5).
        for (key, value, stored) in [
            ("PHYSPAGES", "0:256M", "0:65536"),
            ("SWAPPAGES", "0:512M", "0:131072"),
            ("DISKSPACE", "2G:2.2G", "2097152:2306867"),
            ("DISKINODES", "131072:144179", "131072:144179"),
            ("QUOTATIME", "0", "0"),
            ("IOLIMIT", "10M", "10485760"),
            ("IOLIMIT", "4096", "4096"),
            ("NUMPROC", "unlimited", "unlimited:unlimited"),
        ] {
            assert_eq!(of_key(key).unwrap().stored(value).unwrap(), stored, "{key}");
        }
    }

    #[test]
    fn what_is_stored_is_read_back_as_it_is() {
        for (flag, value) in [
            ("diskspace", "1G:1.1G"),
            ("iolimit", "10"),
            ("ram", "512M"),
            ("physpages", "unlimited"),
        ] {
            let setting = of_flag(flag).unwrap();
            let stored = setting.typed(value).unwrap();
            assert_eq!(setting.stored(&stored).unwrap(), stored, "--{flag}");
        }
    }
}

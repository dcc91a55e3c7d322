//! Mount options, and the mount itself as the mount table shows it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::mount::MountFlags;
use serde::{Deserialize, Serialize};

use crate::quotactl::AdminPolicy;
use crate::resources::OOM_SCORE_ADJ;
use crate::sys::mount::{self, AtimePolicy};
use crate::sys::task::DeviceNumber;

/// The type that /proc/mounts shows.
pub const FS_TYPE: &str = "fuse.simfs";
/// What /proc/mounts shows as source, unless told otherwise: says nothing of the host, and is what guests' quota tools
/// look for.
pub const DEFAULT_SOURCE: &str = "/dev/simfs";

/// Every option that has an effect, and what it does.
pub const OPTIONS: [(&str, &str); 18] = [
    ("ro", "nothing can be changed through the mount"),
    ("rw", "the contrary; the default"),
    ("dev", "device nodes can be opened; the default"),
    ("nodev", "the contrary"),
    ("suid", "set-id bits have effect; the default"),
    ("nosuid", "the contrary"),
    ("exec", "programs can be run; the default"),
    ("noexec", "the contrary"),
    (
        "atime",
        "access times are kept as the private area's mount does; the default",
    ),
    ("noatime", "reading never updates the access time"),
    ("strictatime", "reading always updates it"),
    (
        "relatime",
        "reading updates it when it is older than the file or a day",
    ),
    (
        "fsname=NAME",
        "what the mount table shows as source; /dev/simfs is the default, and what quota tools in the VE look for",
    ),
    (
        "passthrough=auto|off",
        "whether reads go to the backing file in the kernel where it can (Linux 6.9)",
    ),
    (
        "quotaadmin=root|strict",
        "who administers users' and groups' quota in the VE: its root, or who has CAP_SYS_ADMIN in its user namespace",
    ),
    (
        "idmap",
        "the ids on the disk are those of the VE's user namespace: the VE is given a clone of the mount whose ids are \
         mapped (Linux 6.12)",
    ),
    (
        "oom_score_adj=N",
        "how far the daemon is spared when memory runs out, from -1000 (always) to 1000 (killed first); -900 is the default",
    ),
    (
        "watchdog=SECONDS|off",
        "how long requests may wait without any being answered before the daemon is ended and another takes over; 60 is the default",
    ),
];

/// Longer than any single request takes on a disk that works.
const DEFAULT_WATCHDOG: Duration = Duration::from_secs(60);
/// A day, in seconds.
const WATCHDOG_MAX: u32 = 86_400;

/// Options of fstab that concern others, not the mount.
const TOLERATED: [&str; 14] = [
    "defaults",
    "_netdev",
    "nofail",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "auto",
    "noauto",
    "async",
    "nodiratime",
    "diratime",
    "nomand",
];
const TOLERATED_PREFIXES: [&str; 2] = ["x-", "comment="];

/// How a VE is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountOptions {
    /// Nothing can be changed through the mount.
    pub read_only: bool,
    /// Device nodes can be opened.
    pub devices: bool,
    /// Set-id bits have effect.
    pub setid: bool,
    /// Programs can be run.
    pub exec: bool,
    /// When reading updates the access time.
    pub atime: AtimePolicy,
    /// What the mount table shows as source.
    pub source: String,
    /// Reads go to the backing file in the kernel, where it can.
    pub passthrough: bool,
    /// Who administers the second level from inside the VE.
    pub quota_admin: AdminPolicy,
    /// The ids on the disk are those of the VE's user namespace, which sees a clone of the mount with mapped ids.
    pub own_ids: bool,
    /// How far the daemon is spared when memory runs out: its `oom_score_adj`.
    pub oom_score_adj: i16,
    /// How long requests may wait without any being finished before the daemon is ended and started anew.
    pub watchdog: Option<Duration>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            devices: true,
            setid: true,
            exec: true,
            atime: AtimePolicy::Inherited,
            source: DEFAULT_SOURCE.to_owned(),
            passthrough: true,
            quota_admin: AdminPolicy::RootOfVe,
            own_ids: false,
            oom_score_adj: OOM_SCORE_ADJ,
            watchdog: Some(DEFAULT_WATCHDOG),
        }
    }
}

/// An option that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MountOptionError {
    /// Not an option of simfs.
    #[error("unknown mount option '{0}': known are {known}", known = OPTIONS.map(|(option, _)| option).join(" "))]
    Unknown(String),
    /// The option is known, its value is not.
    #[error("mount option '{option}={value}': {wanted}")]
    Value {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What it may be.
        wanted: &'static str,
    },
}

impl MountOptions {
    /// Reads options as in fstab, separated by commas; a later one overrides an earlier.
    ///
    /// # Errors
    /// Names the option that is not known or the value that is not possible.
    pub fn parse(options: &str) -> Result<Self, MountOptionError> {
        let mut parsed = Self::default();
        for option in options
            .split(',')
            .map(str::trim)
            .filter(|option| !option.is_empty())
        {
            parsed.apply(option)?;
        }
        Ok(parsed)
    }

    fn apply(&mut self, option: &str) -> Result<(), MountOptionError> {
        match option {
            "idmap" => self.own_ids = true,
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "dev" => self.devices = true,
            "nodev" => self.devices = false,
            "suid" => self.setid = true,
            "nosuid" => self.setid = false,
            "exec" => self.exec = true,
            "noexec" => self.exec = false,
            "atime" => self.atime = AtimePolicy::Inherited,
            "noatime" => self.atime = AtimePolicy::Noatime,
            "relatime" => self.atime = AtimePolicy::Relatime,
            "strictatime" => self.atime = AtimePolicy::Strictatime,
            _ => return self.apply_valued(option),
        }
        Ok(())
    }

    fn apply_valued(&mut self, option: &str) -> Result<(), MountOptionError> {
        match option.split_once('=') {
            Some(("fsname", name)) if name.is_empty() || name.contains('\0') => {
                Err(MountOptionError::Value {
                    option: "fsname",
                    value: name.replace('\0', "\\0"),
                    wanted: "give a name",
                })
            }
            Some(("fsname", name)) => {
                name.clone_into(&mut self.source);
                Ok(())
            }
            Some(("passthrough", "auto")) => {
                self.passthrough = true;
                Ok(())
            }
            Some(("passthrough", "off")) => {
                self.passthrough = false;
                Ok(())
            }
            Some(("passthrough", value)) => Err(MountOptionError::Value {
                option: "passthrough",
                value: value.to_owned(),
                wanted: "may be auto or off",
            }),
            Some(("quotaadmin", value)) => {
                self.quota_admin = match value {
                    "root" => AdminPolicy::RootOfVe,
                    "strict" => AdminPolicy::SysAdmin,
                    _ => {
                        return Err(MountOptionError::Value {
                            option: "quotaadmin",
                            value: value.to_owned(),
                            wanted: "may be root or strict",
                        });
                    }
                };
                Ok(())
            }
            Some(("oom_score_adj", value)) => {
                let number = value.parse().ok();
                let in_range = number.filter(|number| (-1000..=1000).contains(number));
                self.oom_score_adj = in_range.ok_or_else(|| MountOptionError::Value {
                    option: "oom_score_adj",
                    value: value.to_owned(),
                    wanted: "may be a number from -1000 to 1000",
                })?;
                Ok(())
            }
            Some(("watchdog", value)) => {
                self.watchdog = watchdog(value)?;
                Ok(())
            }
            _ if is_tolerated(option) => Ok(()),
            _ => Err(MountOptionError::Unknown(option.to_owned())),
        }
    }

    fn flags(&self) -> MountFlags {
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::RDONLY, self.read_only);
        flags.set(MountFlags::NODEV, !self.devices);
        flags.set(MountFlags::NOSUID, !self.setid);
        flags.set(MountFlags::NOEXEC, !self.exec);
        flags.set(MountFlags::NOATIME, self.atime == AtimePolicy::Noatime);
        flags.set(MountFlags::RELATIME, self.atime == AtimePolicy::Relatime);
        flags.set(
            MountFlags::STRICTATIME,
            self.atime == AtimePolicy::Strictatime,
        );
        flags
    }
}

fn watchdog(value: &str) -> Result<Option<Duration>, MountOptionError> {
    match (value, value.parse::<u32>()) {
        ("off", _) => Ok(None),
        (_, Ok(seconds)) if (1..=WATCHDOG_MAX).contains(&seconds) => {
            Ok(Some(Duration::from_secs(u64::from(seconds))))
        }
        _ => Err(MountOptionError::Value {
            option: "watchdog",
            value: value.to_owned(),
            wanted: "give seconds from 1 to 86400, or off",
        }),
    }
}

fn is_tolerated(option: &str) -> bool {
    TOLERATED.contains(&option)
        || TOLERATED_PREFIXES
            .iter()
            .any(|prefix| option.starts_with(prefix))
}

/// Makes the mount: requests will arrive at the device.
///
/// # Errors
/// mount(2)'s own.
///
/// # Source
/// Linux `fs/fuse/inode.c`, mount options.
pub fn attach(device: impl AsFd, mountpoint: &Path, options: &MountOptions) -> io::Result<()> {
    let fd = device.as_fd().as_raw_fd();
    let data =
        format!("fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions");
    let data = CString::new(data).map_err(io::Error::other)?;
    mount::mount(
        Path::new(&options.source),
        mountpoint,
        FS_TYPE,
        options.flags(),
        &data,
    )
}

/// The device number of what is mounted there, from what the kernel knows: no request is sent, so the server of the
/// mount may ask before it serves.
///
/// # Errors
/// statx(2)'s own.
pub fn device_number(mountpoint: &Path) -> io::Result<DeviceNumber> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    let stat = rustix::fs::statx(CWD, mountpoint, flags, StatxFlags::empty())?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_option_wins() {
        let options = MountOptions::parse("ro,nosuid,rw,noatime").unwrap();
        assert!(!options.read_only && !options.setid);
        assert_eq!(options.atime, AtimePolicy::Noatime);
        assert_eq!(MountOptions::parse("").unwrap(), MountOptions::default());
        for (text, policy) in [
            ("root", AdminPolicy::RootOfVe),
            ("strict", AdminPolicy::SysAdmin),
        ] {
            let options = MountOptions::parse(&format!("quotaadmin={text}")).unwrap();
            assert_eq!(options.quota_admin, policy);
        }
    }

    #[test]
    fn every_listed_option_is_known_with_each_of_its_values() {
        for (option, _) in OPTIONS {
            let (name, values) = option.split_once('=').unwrap_or((option, ""));
            for value in values.split('|') {
                let text = [name, value].join(if value.is_empty() { "" } else { "=" });
                let text = text.replace("SECONDS", "5").replace("=N", "=-900");
                assert!(MountOptions::parse(&text).is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn the_watchdog_has_a_limit_or_none() {
        let limit = |text| MountOptions::parse(text).unwrap().watchdog;
        assert_eq!(limit(""), Some(Duration::from_secs(60)));
        assert_eq!(limit("watchdog=5"), Some(Duration::from_secs(5)));
        assert_eq!(limit("watchdog=5,watchdog=off"), None);
    }

    #[test]
    fn options_of_fstab_are_tolerated_and_others_are_named() {
        assert!(MountOptions::parse("defaults,_netdev,nofail,user,x-systemd.automount").is_ok());
        let error = MountOptions::parse("rw,frobnicate").unwrap_err();
        assert_eq!(error, MountOptionError::Unknown("frobnicate".into()));
        assert!(MountOptions::parse("passthrough=maybe").is_err());
        assert!(MountOptions::parse("quotaadmin=everybody").is_err());
        assert!(MountOptions::parse("fsname=").is_err());
        for bad in ["", "0", "-1", "86401", "soon", "4294967296"] {
            let error = MountOptions::parse(&format!("watchdog={bad}")).unwrap_err();
            assert!(error.to_string().contains("from 1 to 86400"), "{error}");
        }
    }
}

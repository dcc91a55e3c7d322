//! Containers of crun or runc rooted at a mount.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Ve;
use super::command::{Outcome, finish};

/// What container runtimes give root by default, as far as it matters to files. No CAP_SYS_ADMIN.
const CAPABILITIES: [&str; 8] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// How containers of a VE are run.
#[derive(Debug)]
pub(crate) struct Guest<'a> {
    pub(crate) ve: &'a Ve,
    /// `crun` or `runc`.
    pub(crate) runtime: &'static str,
    /// First id on the host of a user namespace of the container's own.
    pub(crate) id_base: Option<u32>,
    /// Capabilities beyond the default ones.
    pub(crate) capabilities: &'static [&'static str],
    /// Whether `simfs oci` is asked what to add for quota tools.
    pub(crate) quota_tools: bool,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(ve: &'a Ve, runtime: &'static str) -> Self {
        Self {
            ve,
            runtime,
            id_base: None,
            capabilities: &[],
            quota_tools: true,
        }
    }

    /// Runs a shell script in a container made for it, to its end.
    #[track_caller]
    pub(crate) fn run(&self, name: &str, script: &str) -> Outcome {
        let bundle = self.ve.beside(&format!("bundle-{}-{name}", self.runtime));
        std::fs::create_dir(&bundle).expect("bundle");
        let config = self.config(script).to_string();
        std::fs::write(bundle.join("config.json"), config).expect("config.json");
        let id = self.id(name);
        let mut command = self.command();
        command.args(["run", "--bundle"]).arg(&bundle).arg(&id);
        let outcome = finish(command.stdin(Stdio::null()));
        // Only there after a failed start.
        let _gone = finish(self.command().args(["delete", "--force", &id]));
        outcome
    }

    /// Runs a shell script in the container of this name, which [`Guest::run`] runs meanwhile.
    #[track_caller]
    pub(crate) fn exec(&self, name: &str, script: &str) -> Outcome {
        let mut command = self.command();
        let env = "--env=PATH=/usr/sbin:/usr/bin:/sbin:/bin";
        command.args(["exec", env, &self.id(name), "sh", "-c", script]);
        finish(command.stdin(Stdio::null()))
    }

    fn id(&self, name: &str) -> String {
        format!("simfs-e2e-{}-{}-{name}", std::process::id(), self.runtime)
    }

    fn command(&self) -> Command {
        let is_mixed = Path::new("/sys/fs/cgroup/unified").exists();
        let mut command = if self.runtime == "crun" && is_mixed {
            // crun refuses hosts with both kinds of cgroups: it gets a view with one, and uses none.
            let script = "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", script, "sh", "crun"]);
            command
        } else {
            Command::new(self.runtime)
        };
        command
            .arg("--root")
            .arg(self.ve.beside(&format!("state-{}", self.runtime)));
        if self.runtime == "crun" {
            command.arg("--cgroup-manager=disabled");
        }
        command
    }

    fn config(&self, script: &str) -> Value {
        let capabilities = [&CAPABILITIES[..], self.capabilities].concat();
        let mut namespaces = vec!["mount", "pid", "ipc", "uts"];
        namespaces.extend(self.id_base.map(|_| "user"));
        let namespaces: Vec<_> = namespaces
            .iter()
            .map(|kind| json!({ "type": kind }))
            .collect();
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"],
                "cwd": "/",
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities, "permitted": capabilities
                },
                "noNewPrivileges": true
            },
            "root": { "path": self.ve.root(), "readonly": false },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                  "options": ["nosuid", "mode=755", "size=64k"] }
            ],
            "linux": { "namespaces": namespaces }
        });
        if let Some(base) = self.id_base {
            for map in ["uidMappings", "gidMappings"] {
                config["linux"][map] = json!([{ "containerID": 0, "hostID": base, "size": 65536 }]);
            }
        }
        if self.quota_tools {
            self.add_quota_tools(&mut config);
        }
        config
    }

    /// What an administrator would do with the fragments: this config has none of the lists but `mounts`.
    fn add_quota_tools(&self, config: &mut Value) {
        let mut args = vec!["oci", Ve::ID, "--json"];
        args.extend(self.id_base.map(|_| "--userns"));
        args.extend((self.runtime == "runc").then_some("--no-flags"));
        let outcome = self.ve.simfs(args).ok();
        let made: Value = serde_json::from_str(&outcome.stdout).expect("JSON of oci");
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.extend(made["mounts"].as_array().expect("mounts").iter().cloned());
        for (key, value) in made["linux"].as_object().expect("linux") {
            config["linux"][key] = value.clone();
        }
    }
}

//! From options to a specification.

use std::path::Path;

use longshore::{
    Cancel, ContainerSpec, Dns, IdMap, InvalidSpec, ProcessMode, Rootfs, Seccomp, Security, Selinux,
    TimeLimit,
};

use super::values::absolute;
use super::{Apart, Container, Mode, Run};
use crate::command::terminal;

impl Run {
    /// The specification this stands for, streams apart.
    pub(crate) fn spec(&self) -> Result<ContainerSpec, InvalidSpec> {
        let mut spec = self.container.spec()?;
        let cancel = Cancel::with_grace(self.grace);
        spec.process.time_limit = self.timeout.map(|after| TimeLimit { after, cancel });
        spec.process.terminal = self.tty.then(terminal::size);
        Ok(spec)
    }
}

impl Container {
    /// The specification this stands for. What makes no sense is left for it to find out.
    pub(crate) fn spec(&self) -> Result<ContainerSpec, InvalidSpec> {
        let rootfs = match self.rootfs.as_path() {
            _ if !self.layer.is_empty() => {
                let lower = self.layer.iter().map(|layer| absolute(layer)).collect();
                Rootfs::Overlay { lower, upper: None }
            }
            host if host == Path::new("host") => Rootfs::Host,
            dir => Rootfs::Dir(absolute(dir)),
        };
        let mut spec = match &self.config {
            Some(bundle) => ContainerSpec::from_config(bundle)?,
            None => ContainerSpec::new(rootfs, self.command.iter().cloned()),
        };
        if !self.command.is_empty() {
            spec.process.args = self.command.clone();
        }
        spec.id = self.id.clone();
        spec.read_only |= self.read_only;
        spec.mounts = self.volume.iter().chain(&self.mount).chain(&self.secret).cloned().collect();
        spec.remove_stub_parents = self.remove_stub_parents;
        spec.hostname = self.hostname.clone().or(spec.hostname);
        spec.network = self.net.clone();
        spec.extra_hosts = self.add_host.clone();
        spec.dns = Dns {
            nameservers: self.dns.clone(),
            search: self.dns_search.clone(),
            options: self.dns_option.clone(),
        };
        let limits = &mut spec.resources;
        limits.memory = self.memory;
        limits.memory_swap = self.memory_swap;
        limits.cpus = self.cpus;
        limits.cpu_quota = self.cpu_quota;
        limits.cpu_period = self.cpu_period;
        limits.cpu_shares = self.cpu_shares;
        limits.cpuset_cpus = self.cpuset_cpus.clone();
        limits.cpuset_mems = self.cpuset_mems.clone();
        limits.pids = self.pids;
        spec.cgroup_parent = self.cgroup_parent.clone();
        spec.id_map = (!self.uidmap.is_empty()).then(|| IdMap {
            uids: self.uidmap.clone(),
            gids: if self.gidmap.is_empty() { self.uidmap.clone() } else { self.gidmap.clone() },
        });
        spec.devices = self.device.clone();
        spec.init = self.init;
        spec.apparmor = self.apparmor.clone();
        spec.selinux = self.selinux.then_some(Selinux::Generated);
        spec.telemetry.socket = self.tracing_socket.as_deref().map(absolute);
        spec.process.valid_exit_codes = self.valid_exit_code.iter().copied().collect();
        spec.process.env.extend(self.env.iter().filter_map(|entry| variable(entry)));
        if let Some(workdir) = &self.workdir {
            spec.process.cwd = workdir.clone();
        }
        spec.process.user = self.user.clone().or(spec.process.user);
        spec.process_mode = match self.process_mode {
            Mode::Sandbox => ProcessMode::Sandbox,
            Mode::NoSandbox => ProcessMode::NoSandbox,
        };
        spec.security = match self.security {
            Apart::Sandbox => Security::Sandbox,
            Apart::Insecure => Security::Insecure,
        };
        spec.seccomp = match self.seccomp.as_path() {
            path if path == Path::new("default") => Seccomp::Default,
            path if path == Path::new("unconfined") => Seccomp::Unconfined,
            path => Seccomp::Profile(absolute(path)),
        };
        spec.process.cap_add = self.cap_add.concat();
        // What is added by name stays when all are dropped.
        let by_name = self.cap_add.iter().filter(|added| added.len() == 1).flatten();
        let kept: &Vec<_> = &by_name.collect();
        let drops = self.cap_drop.iter().flat_map(|dropped| {
            let all = dropped.len() > 1;
            dropped.iter().filter(move |capability| !all || !kept.contains(capability))
        });
        spec.process.cap_drop = drops.copied().collect();
        spec.process.no_new_privileges = self.no_new_privileges;
        spec.process.ulimits = self.ulimit.clone();
        spec.process.oom_score_adj = self.oom_score_adj;
        Ok(spec)
    }
}

fn variable(entry: &str) -> Option<(String, String)> {
    match entry.split_once('=') {
        Some((key, value)) => Some((key.to_owned(), value.to_owned())),
        None => Some((entry.to_owned(), std::env::var(entry).ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;
    use longshore::Rootfs;

    use super::super::{Action, Arguments};

    #[test]
    fn the_command_line_of_the_manual() {
        let line = "longshore --root /r run --id a --rootfs /x -e K=V -w /w -u 1:2 -v /s:/d:ro --hostname h --net host \
                    --read-only -i --timeout 30s --grace 1s --memory 64m --cpus 0.5 --pids 64 --events - -- sh -c true";
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Action::Run(run) = arguments.action else { panic!("not run") };
        let spec = run.spec().unwrap();
        assert_eq!(spec.validate(), Ok(()));
        assert_eq!(spec.process.args, ["sh", "-c", "true"]);
        assert_eq!(spec.rootfs, Rootfs::Dir("/x".into()));
        let limits = longshore::Resources::default().memory(64 << 20).cpus(0.5).pids(64);
        assert_eq!(spec.resources, limits);
        assert_eq!(spec.process.time_limit.map(|limit| limit.after), Some(Duration::from_secs(30)));
    }

    #[test]
    fn id_traversal() {
        for bad in ["..", "a/b", "-x", ""] {
            let parsed =
                Arguments::try_parse_from(["longshore", "run", &format!("--id={bad}"), "--", "true"]);
            assert!(parsed.is_err(), "{bad:?} was taken");
        }
    }
}

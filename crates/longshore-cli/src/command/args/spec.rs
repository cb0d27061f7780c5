//! From options to a specification: they are added to that of `--spec` or `--config`, or take its place.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use longshore::{
    Cancel, ContainerSpec, Error, IdMap, ProcessMode, Resources, Rootfs, Seccomp, Security, Selinux,
    TimeLimit,
};

use super::values::absolute;
use super::{Apart, Container, Mode, Run};
use crate::command::status::Failure;
use crate::command::terminal;

impl Run {
    /// The specification of these options, without streams.
    pub(crate) fn spec(&self) -> Result<ContainerSpec, Failure> {
        let from_stdin = self.container.spec.as_deref() == Some(Path::new("-"));
        if self.interactive && from_stdin {
            let cause = "the specification is read from stdin, so the program cannot have it";
            return Err(Failure::new(cause, "leave out -i, or name a file with --spec"));
        }
        let mut spec = self.container.spec()?;
        let process = &mut spec.process;
        if let Some(after) = self.timeout {
            process.time_limit = Some(TimeLimit { after, cancel: Cancel::with_grace(self.grace) });
        }
        // Whether a bundle has a terminal is left to -t: `runc spec` writes `true` into every one.
        process.terminal = match (self.tty, &self.container.spec) {
            (true, _) => Some(terminal::size()),
            (false, Some(_)) => process.terminal,
            (false, None) => None,
        };
        spec.validate().map_err(Error::from)?;
        Ok(spec)
    }
}

impl Container {
    fn spec(&self) -> Result<ContainerSpec, Failure> {
        let mut spec = match (&self.spec, &self.config) {
            (Some(file), _) => read_spec(file)?,
            (None, Some(bundle)) => ContainerSpec::from_config(bundle).map_err(Error::from)?,
            (None, None) => ContainerSpec::host::<String>([]),
        };
        spec.id = self.id.clone().or(spec.id);
        spec.hostname = self.hostname.clone().or(spec.hostname);
        spec.init |= self.init;
        spec.devices.extend_from_slice(&self.device);
        if let Some(socket) = &self.tracing_socket {
            spec.telemetry.socket = Some(absolute(socket));
        }
        self.add_files(&mut spec);
        self.add_network(&mut spec);
        self.limit(&mut spec.resources);
        self.add_rights(&mut spec);
        self.add_process(&mut spec);
        Ok(spec)
    }

    fn add_files(&self, spec: &mut ContainerSpec) {
        if !self.layer.is_empty() {
            let lower = self.layer.iter().map(|layer| absolute(layer)).collect();
            spec.rootfs = Rootfs::Overlay { lower, upper: None };
        }
        if let Some(rootfs) = &self.rootfs {
            let is_host = rootfs == Path::new("host");
            spec.rootfs = if is_host { Rootfs::Host } else { Rootfs::Dir(absolute(rootfs)) };
        }
        spec.read_only |= self.read_only;
        spec.mounts.extend(self.volume.iter().chain(&self.mount).chain(&self.secret).cloned());
        spec.remove_stub_parents |= self.remove_stub_parents;
        spec.allow_host_namespaces |= self.allow_host_namespaces;
    }

    fn add_network(&self, spec: &mut ContainerSpec) {
        if let Some(network) = &self.net {
            spec.network = network.clone();
        }
        spec.extra_hosts.extend_from_slice(&self.add_host);
        // Each takes the place of this machine's, and so of the specification's.
        let dns = &mut spec.dns;
        replace(&mut dns.nameservers, &self.dns);
        replace(&mut dns.search, &self.dns_search);
        replace(&mut dns.options, &self.dns_option);
    }

    fn limit(&self, resources: &mut Resources) {
        resources.memory = self.memory.or(resources.memory);
        resources.memory_swap = self.memory_swap.or(resources.memory_swap);
        resources.cpus = self.cpus.or(resources.cpus);
        resources.cpu_quota = self.cpu_quota.or(resources.cpu_quota);
        resources.cpu_period = self.cpu_period.or(resources.cpu_period);
        resources.cpu_shares = self.cpu_shares.or(resources.cpu_shares);
        resources.cpuset_cpus = self.cpuset_cpus.clone().or(resources.cpuset_cpus.take());
        resources.cpuset_mems = self.cpuset_mems.clone().or(resources.cpuset_mems.take());
        resources.pids = self.pids.or(resources.pids);
    }

    fn add_rights(&self, spec: &mut ContainerSpec) {
        spec.cgroup_parent = self.cgroup_parent.clone().or(spec.cgroup_parent.take());
        if !self.uidmap.is_empty() {
            let gids = if self.gidmap.is_empty() { &self.uidmap } else { &self.gidmap };
            spec.id_map = Some(IdMap { uids: self.uidmap.clone(), gids: gids.clone() });
        }
        spec.apparmor = self.apparmor.clone().or(spec.apparmor.take());
        if self.selinux {
            spec.selinux = Some(Selinux::Generated);
        }
        match self.process_mode {
            Some(Mode::Sandbox) => spec.process_mode = ProcessMode::Sandbox,
            Some(Mode::NoSandbox) => spec.process_mode = ProcessMode::NoSandbox,
            None => {}
        }
        match self.security {
            Some(Apart::Sandbox) => spec.security = Security::Sandbox,
            Some(Apart::Insecure) => spec.security = Security::Insecure,
            None => {}
        }
        if let Some(profile) = &self.seccomp {
            spec.seccomp = match profile.to_str() {
                Some("default") => Seccomp::Default,
                Some("unconfined") => Seccomp::Unconfined,
                Some(_) | None => Seccomp::Profile(absolute(profile)),
            };
        }
    }

    fn add_process(&self, spec: &mut ContainerSpec) {
        let process = &mut spec.process;
        replace(&mut process.args, &self.command);
        process.env.extend(self.env.iter().flatten().cloned());
        if let Some(workdir) = &self.workdir {
            process.cwd.clone_from(workdir);
        }
        process.user = self.user.clone().or(process.user.take());
        process.valid_exit_codes.extend(&self.valid_exit_code);
        process.cap_add.extend(self.cap_add.iter().flatten());
        // A capability that is added by name stays when all are dropped.
        let by_name: Vec<_> = self.cap_add.iter().filter(|added| added.len() == 1).flatten().collect();
        for dropped in &self.cap_drop {
            let drops_all = dropped.len() > 1;
            let drops = dropped.iter().filter(|capability| !drops_all || !by_name.contains(capability));
            process.cap_drop.extend(drops);
        }
        process.no_new_privileges |= self.no_new_privileges;
        process.ulimits.extend_from_slice(&self.ulimit);
        process.oom_score_adj = self.oom_score_adj.or(process.oom_score_adj);
    }
}

/// Reads a specification in the library's JSON form. An error names the file, the field, and the line.
fn read_spec(file: &Path) -> Result<ContainerSpec, Failure> {
    let wrong = |cause: String, remedy| Failure::new(format!("--spec {}: {cause}", file.display()), remedy);
    let mut text = Vec::new();
    let read = match file == Path::new("-") {
        true => io::stdin().lock().read_to_end(&mut text).map(drop),
        false => fs::read(file).map(|bytes| text = bytes),
    };
    read.map_err(|error| wrong(error.to_string(), "name a file that you may read"))?;
    let mut json = serde_json::Deserializer::from_slice(&text);
    let spec: Result<ContainerSpec, _> = serde_path_to_error::deserialize(&mut json);
    let form = "docs/schema/container-spec.json has the form";
    let spec = spec.map_err(|error| wrong(error.to_string(), form))?;
    json.end().map_err(|error| wrong(error.to_string(), form))?;
    Ok(spec)
}

/// A list that is given takes the place of another.
fn replace<T: Clone>(list: &mut Vec<T>, given: &[T]) {
    if !given.is_empty() {
        *list = given.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;
    use longshore::{ContainerSpec, Network, Rootfs, Seccomp};

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

    fn spec(line: &[&str]) -> ContainerSpec {
        let line = [&["longshore", "run"], line].concat();
        let Action::Run(run) = Arguments::try_parse_from(line).unwrap().action else { panic!("not run") };
        run.spec().unwrap()
    }

    #[test]
    fn the_first_word_that_is_no_option_is_the_program() {
        for (line, args) in [
            (&["echo", "hi"][..], &["echo", "hi"][..]),
            (&["--", "echo", "hi"], &["echo", "hi"]),
            (&["--pids", "5", "ls", "-l", "--pids", "--", "x"], &["ls", "-l", "--pids", "--", "x"]),
            (&["--", "-x", "--", "y"], &["-x", "--", "y"]),
        ] {
            assert_eq!(spec(line).process.args, args, "{line:?}");
        }
        assert!(Arguments::try_parse_from(["longshore", "run", "--pds", "5", "ls"]).is_err());
    }

    #[test]
    fn options_are_added_to_a_specification() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let before = spec(&[
            "--id",
            "a",
            "--net",
            "host",
            "-v",
            "/a:/a",
            "-e",
            "A=1",
            "--memory",
            "64m",
            "--seccomp",
            "unconfined",
            "--timeout",
            "2s",
            "--dns",
            "10.0.0.1",
            "sleep",
            "1",
        ]);
        std::fs::write(file.path(), serde_json::to_string(&before).unwrap()).unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(spec(&["--spec", path]), before);
        let after = spec(&[
            "--spec", path, "-v", "/b:/b", "-e", "B=2", "--pids", "5", "--dns", "10.0.0.2", "--net", "none",
            "true",
        ]);
        assert_eq!(after.mounts.len(), 2);
        assert_eq!(after.process.env, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())]);
        assert_eq!((after.resources.memory, after.resources.pids), (Some(64 << 20), Some(5)));
        assert_eq!(after.dns.nameservers, ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!((&after.network, &after.seccomp), (&Network::None, &Seccomp::Unconfined));
        assert_eq!(after.process.args, ["true"]);
        assert_eq!(after.process.time_limit, before.process.time_limit);
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

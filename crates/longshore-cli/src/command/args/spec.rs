//! From options to a specification: they are added to that of `--spec` or `--config`, or take its place.

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use longshore::runtime::{read_whole, without_mark};
use longshore::{
    Cancel, ContainerSpec, Error, IdMap, Mount, ProcessMode, ProcessSpec, Rootfs, Seccomp, Security, Selinux,
    TimeLimit,
};
use rustix::fs::FileType;

use super::Run;
use super::container::{Apart, Container, Files, Identity, Limits, Mode, Net, Process, Rights};
use super::numbers::Limit;
use super::values::absolute;
use crate::command::refused::Refused;
use crate::command::status::Failure;
use crate::command::terminal;

/// Whether a process 1 is put in front of the program if no option says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefaultInit {
    Yes,
    No,
}

impl Run {
    /// The specification of these options, without streams.
    pub(crate) fn spec(&self, init: DefaultInit) -> Result<ContainerSpec, Failure> {
        let from_stdin = self.container.identity.spec.as_deref() == Some(Path::new("-"));
        if self.interactive && from_stdin {
            return Err(Refused::StdinTwice.into());
        }
        let stat = rustix::fs::fstat(io::stdin());
        let is_directory = |mode| FileType::from_raw_mode(mode) == FileType::Directory;
        if self.interactive && stat.is_ok_and(|stat| is_directory(stat.st_mode)) {
            return Err(Refused::StdinDirectory.into());
        }
        let mut spec = self.container.spec(init)?;
        spec.id = self.id.clone().or(spec.id);
        let process = &mut spec.process;
        process.time_limit = match self.timeout {
            Some(Duration::ZERO) => None,
            Some(after) => Some(TimeLimit { after, cancel: self.cancel() }),
            None => process.time_limit,
        };
        // Whether a bundle has a terminal is left to -t: `runc spec` writes `true` into every one.
        process.terminal = match (self.tty, &self.container.identity.spec) {
            (true, _) => Some(terminal::size()),
            (false, Some(_)) => process.terminal,
            (false, None) => None,
        };
        if self.tty && process.env.iter().all(|(name, _)| name != "TERM") {
            process.env.push(("TERM".into(), term()));
        }
        spec.validate().map_err(Error::from)?;
        Ok(spec)
    }

    /// How the program is asked to end.
    pub(crate) fn cancel(&self) -> Cancel {
        let mut cancel = Cancel::with_grace(self.grace);
        // Without a grace it is SIGKILL already.
        if let Some(signal) = self.container.process.stop_signal
            && !cancel.is_immediate()
        {
            cancel.signal = signal;
        }
        cancel
    }
}

/// The user's terminal, as programs know it.
fn term() -> String {
    std::env::var("TERM").ok().filter(|term| !term.is_empty()).unwrap_or_else(|| "xterm".into())
}

impl Container {
    fn spec(&self, init: DefaultInit) -> Result<ContainerSpec, Failure> {
        let Identity { spec: file, config, label, .. } = &self.identity;
        let mut spec = match (file, config) {
            (Some(file), _) => read_spec(file)?,
            (None, Some(bundle)) => ContainerSpec::from_config(bundle).map_err(Error::from)?,
            (None, None) => ContainerSpec::host::<String>([]),
        };
        spec.labels.extend(label.iter().cloned());
        self.files.add(&mut spec);
        self.net.add(&mut spec);
        self.limits.add(&mut spec);
        self.rights.add(&mut spec);
        spec.allow_host_namespaces |= self.identity.allow_host_namespaces;
        replace(&mut spec.process.args, &self.command);
        self.process.add(&mut spec)?;
        let is_default = init == DefaultInit::Yes && file.is_none() && config.is_none() && takes_init(&spec);
        spec.init = !self.process.no_init && (spec.init || self.process.init || is_default);
        Ok(spec)
    }
}

/// Whether the program can do with a process 1 in front of it. Ours is a file in the container's own /dev, and is of no use
/// where it is not process 1.
fn takes_init(spec: &ContainerSpec) -> bool {
    let is_dev = |mount: &Mount| mount.destination.components().eq(Path::new("/dev").components());
    longshore::runtime::has_init() && !spec.shares_pids() && !spec.mounts.iter().any(is_dev)
}

impl Files {
    fn add(&self, spec: &mut ContainerSpec) {
        if !self.layer.is_empty() {
            let lower = self.layer.iter().map(|layer| absolute(layer)).collect();
            spec.rootfs = Rootfs::Overlay { lower, upper: None };
        }
        if let Some(rootfs) = &self.rootfs {
            let is_host = rootfs == Path::new("host");
            spec.rootfs = if is_host { Rootfs::Host } else { Rootfs::Dir(absolute(rootfs)) };
        }
        spec.read_only |= self.read_only;
        let mounts = [&self.volume, &self.mount, &self.tmpfs, &self.secret].into_iter().flatten();
        // They take the place of those of a specification.
        let same =
            |one: &Mount, other: &Mount| one.destination.components().eq(other.destination.components());
        spec.mounts.retain(|other| !mounts.clone().any(|one| same(one, other)));
        spec.mounts.extend(mounts.cloned());
        // As with docker, 0 is the default.
        spec.shm_size = self.shm_size.or(spec.shm_size).filter(|bytes| *bytes > 0);
        spec.devices.extend_from_slice(&self.device);
        spec.remove_stub_parents |= self.remove_stub_parents;
    }
}

impl Net {
    fn add(&self, spec: &mut ContainerSpec) {
        spec.hostname = self.hostname.clone().or(spec.hostname.take());
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
}

impl Limits {
    fn add(&self, spec: &mut ContainerSpec) {
        let resources = &mut spec.resources;
        if self.memory == Some(Limit::Unlimited) {
            // It would be a limit of both.
            resources.memory_swap = None;
        }
        resources.memory = Limit::over(self.memory, resources.memory);
        resources.memory_swap = Limit::over_default(self.memory_swap, resources.memory_swap);
        resources.cpus = Limit::over(self.cpus, resources.cpus);
        resources.cpu_quota = Limit::over(self.cpu_quota, resources.cpu_quota);
        resources.cpu_period = self.cpu_period.or(resources.cpu_period);
        resources.cpu_shares = self.cpu_shares.or(resources.cpu_shares);
        resources.cpuset_cpus = self.cpuset_cpus.clone().or(resources.cpuset_cpus.take());
        resources.cpuset_mems = self.cpuset_mems.clone().or(resources.cpuset_mems.take());
        resources.pids = Limit::over_default(self.pids, resources.pids);
        spec.cgroup_parent = self.cgroup_parent.clone().or(spec.cgroup_parent.take());
        spec.process.oom_score_adj = self.oom_score_adj.or(spec.process.oom_score_adj);
    }
}

impl Rights {
    fn add(&self, spec: &mut ContainerSpec) {
        spec.sysctls.extend(self.sysctl.iter().cloned());
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
            None if self.privileged => spec.security = Security::Insecure,
            None => {}
        }
        if let Some(profile) = &self.seccomp {
            spec.seccomp = Some(match profile.to_str() {
                Some("default") => Seccomp::Default,
                Some("unconfined") => Seccomp::Unconfined,
                Some(_) | None => Seccomp::Profile(absolute(profile)),
            });
        }
        self.add_capabilities(&mut spec.process);
    }

    fn add_capabilities(&self, process: &mut ProcessSpec) {
        for added in &self.cap_add {
            // All are those that this process has.
            let adds_all = added.len() > 1;
            process.cap_add.extend(added.iter().filter(|one| !adds_all || one.can_be_given()));
        }
        // A capability that is added by name stays when all are dropped.
        let by_name: Vec<_> = self.cap_add.iter().filter(|added| added.len() == 1).flatten().collect();
        for dropped in &self.cap_drop {
            let drops_all = dropped.len() > 1;
            let drops = dropped.iter().filter(|capability| !drops_all || !by_name.contains(capability));
            process.cap_drop.extend(drops);
        }
        process.no_new_privileges |= self.no_new_privileges;
    }
}

impl Process {
    fn add(&self, spec: &mut ContainerSpec) -> Result<(), Failure> {
        if let Some(socket) = &self.tracing_socket {
            spec.telemetry.socket = Some(absolute(socket));
        }
        let process = &mut spec.process;
        process.env.extend(self.variables()?);
        if let Some(workdir) = &self.workdir {
            process.cwd.clone_from(workdir);
        }
        process.user = self.user.clone().or(process.user.take());
        process.valid_exit_codes.extend(&self.valid_exit_code);
        process.ulimits.extend_from_slice(&self.ulimit);
        Ok(())
    }
}

/// Reads a specification in the library's JSON form. An error names the file, the field, and the line.
fn read_spec(file: &Path) -> Result<ContainerSpec, Refused> {
    const LARGEST: u64 = 16 << 20;
    let mut text = Vec::new();
    let read = match file == Path::new("-") {
        true => io::stdin().lock().take(LARGEST).read_to_end(&mut text).map(drop),
        false => read_whole(file).map(|bytes| text = bytes),
    };
    read.map_err(|error| Refused::SpecUnreadable { file: file.to_owned(), why: error.to_string() })?;
    let wrong = |why: String| Refused::SpecWrong { file: file.to_owned(), why };
    let mut json = serde_json::Deserializer::from_slice(without_mark(&text));
    let spec: Result<ContainerSpec, _> = serde_path_to_error::deserialize(&mut json);
    let spec = spec.map_err(|error| wrong(error.to_string()))?;
    json.end().map_err(|error| wrong(error.to_string()))?;
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
    use super::DefaultInit;

    #[test]
    fn the_command_line_of_the_manual() {
        let line = "longshore --root /r run --id a --rootfs /x -e K=V -w /w -u 1:2 -v /s:/d:ro --hostname h --net host \
                    --read-only -i --timeout 30s --grace 1s --memory 64m --cpus 0.5 --pids 64 --events - -- sh -c true";
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Action::Run(run) = arguments.action else { panic!("not run") };
        let spec = run.spec(DefaultInit::Yes).unwrap();
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
        run.spec(DefaultInit::Yes).unwrap()
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
        let over = spec(&["--spec", path, "-v", "/b:/a/"]);
        assert_eq!(over.mounts, [longshore::Mount::bind("/b", "/a/")], "it takes the place of that at /a");
        assert_eq!(after.process.env, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())]);
        assert_eq!(
            (spec(&["--shm-size", "0", "true"]).shm_size, spec(&["--shm-size", "1m", "true"]).shm_size),
            (None, Some(1 << 20))
        );
        assert_eq!((after.resources.memory, after.resources.pids), (Some(64 << 20), Some(5)));
        assert_eq!(after.dns.nameservers, ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!((&after.network, &after.seccomp), (&Network::None, &Some(Seccomp::Unconfined)));
        assert_eq!(after.process.args, ["true"]);
        assert_eq!(after.process.time_limit, before.process.time_limit);
    }

    #[test]
    fn familiar_flags_mean_what_they_mean_elsewhere() {
        let spec = spec(&[
            "--rm",
            "--name",
            "a",
            "--network",
            "host",
            "-m",
            "1.5g",
            "--pids-limit",
            "-1",
            "--privileged",
            "-c",
            "512",
            "--tmpfs",
            "/t:size=1m",
            "--shm-size",
            "1g",
            "--label",
            "team=blue",
            "-l",
            "x",
            "--sysctl",
            "kernel.sem=1",
            "--device",
            "/dev/fuse:/dev/f:r",
            "--memory-swap",
            "-1",
            "true",
        ]);
        assert_eq!(spec.id.as_ref().map(longshore::ContainerId::as_str), Some("a"));
        assert_eq!((&spec.network, spec.security), (&Network::Host, longshore::Security::Insecure));
        assert_eq!((spec.resources.memory, spec.resources.pids), (Some(3 << 29), Some(u64::MAX)));
        assert_eq!((spec.resources.memory_swap, spec.resources.cpu_shares), (Some(u64::MAX), Some(512)));
        assert_eq!((spec.shm_size, spec.mounts.len(), spec.devices.len()), (Some(1 << 30), 1, 1));
        assert_eq!(spec.labels["team"], "blue");
        assert_eq!((spec.labels["x"].as_str(), spec.sysctls["kernel.sem"].as_str()), ("", "1"));
    }

    #[test]
    fn minus_one_and_nothing_are_no_limit() {
        for none in ["-1", "0"] {
            let spec = spec(&["--memory", none, "--cpus", none, "--pids", none, "--timeout", "0", "true"]);
            assert_eq!((spec.resources.memory, spec.resources.cpus), (None, None));
            assert_eq!((spec.resources.pids, spec.process.time_limit), (Some(u64::MAX), None));
        }
    }

    #[test]
    fn the_program_is_process_2_unless_something_says_otherwise() {
        let init = |line: &[&str]| spec(line).init;
        let is_default = longshore::runtime::has_init();
        assert_eq!(init(&["true"]), is_default);
        assert!(init(&["--init", "true"]) && init(&["--no-init", "--init", "true"]));
        for without in [
            &["--no-init", "true"][..],
            &["--init", "--no-init", "true"],
            &["--process-mode", "no-sandbox", "true"],
            &["--privileged", "-v", "/dev:/dev/", "true"],
        ] {
            assert!(!init(without), "{without:?}");
        }
    }

    #[test]
    fn a_terminal_has_a_name() {
        let term = |line: &[&str]| {
            let env = spec(line).process.env;
            env.into_iter().find(|(name, _)| name == "TERM").map(|(_, value)| value)
        };
        assert_eq!(term(&["true"]), None);
        assert_eq!(term(&["-t", "-e", "TERM=dumb", "true"]).as_deref(), Some("dumb"));
        assert!(term(&["-t", "true"]).is_some_and(|term| !term.is_empty()));
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

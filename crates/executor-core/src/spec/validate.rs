//! Finds invalid fields of specifications, without access to the system.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use executor_lifecycle::TerminalSize;

use super::{ContainerSpec, ExecSpec, Network, Rootfs, Stdio, StdioSpec, sysctl};
use crate::{CgroupParent, Device, ExtraHost, IdMap, InvalidSpec, Mount, Selinux};

impl ContainerSpec {
    /// Checks every field, without access to the system: whether files exist is found at the start.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        let process = &self.process;
        program("args", &process.args)?;
        environment("env", &process.env)?;
        absolute("cwd", &process.cwd)?;
        process.user.as_deref().map_or(Ok(()), |user| word("user", user))?;
        process.stdio.validate(process.terminal)?;
        if let Some(hostname) = &self.hostname {
            host_name(hostname)?;
        }
        self.labels.keys().try_for_each(|name| word("label", name))?;
        if let Network::Cni { name: Some(name) } = &self.network {
            word("network", name)?;
        }
        self.rootfs.validate()?;
        self.mounts.iter().try_for_each(Mount::validate)?;
        one_mount_at_each(&self.mounts)?;
        if self.config.is_none() {
            self.mounts.iter().try_for_each(reaches_no_host)?;
        }
        self.devices.iter().try_for_each(Device::validate)?;
        self.id_map.as_ref().map_or(Ok(()), IdMap::validate)?;
        self.cgroup_parent.as_ref().map_or(Ok(()), CgroupParent::validate)?;
        self.apparmor.as_deref().map_or(Ok(()), |profile| word("apparmor", profile))?;
        if let Some(Selinux::Labels { process, mount }) = &self.selinux {
            [process, mount].into_iter().try_for_each(|label| word("selinux", label))?;
        }
        if self.shm_size.is_some_and(|bytes| bytes == 0 || i64::try_from(bytes).is_err()) {
            return Err(invalid("shm size", "give a number of bytes, from 1 on"));
        }
        sysctl::validate(&self.sysctls, &self.network)?;
        self.telemetry.validate()?;
        self.extra_hosts.iter().try_for_each(ExtraHost::validate)?;
        self.dns.validate()?;
        if self.process.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
            return Err(invalid("oom score", "give a number from -1000 to 1000"));
        }
        self.resources.validate()
    }
}

/// What the container mounts would not reach the host: that takes a root of which the host is a peer.
fn reaches_no_host(mount: &Mount) -> Result<(), InvalidSpec> {
    match mount.options.iter().find(|option| ["shared", "rshared"].contains(&option.as_str())) {
        None => Ok(()),
        Some(option) => {
            let why = format!(
                "{}: {option}: what the container mounts there reaches the host only with a config.json whose linux.rootfsPropagation is shared; rslave has what the host mounts",
                mount.destination.display()
            );
            Err(invalid("mount options", why))
        }
    }
}

/// One of two mounts at a place would be hidden. Repeated slashes and `.` make no other place.
fn one_mount_at_each(mounts: &[Mount]) -> Result<(), InvalidSpec> {
    let mut points = BTreeSet::new();
    let twice =
        mounts.iter().find(|mount| !points.insert(mount.destination.components().collect::<PathBuf>()));
    twice.map_or(Ok(()), |mount| {
        let place = mount.destination.display();
        Err(invalid("mount destination", format!("{place}: two mounts are to be there; give one of them")))
    })
}

impl ExecSpec {
    /// Checks every field, without access to the system: whether files exist is found at the start.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        program("args", &self.args)?;
        environment("env", &self.env)?;
        self.cwd.as_deref().map_or(Ok(()), |cwd| absolute("cwd", cwd))?;
        self.stdio.validate(self.terminal)?;
        self.user.as_deref().map_or(Ok(()), |user| word("user", user))
    }
}

impl Rootfs {
    fn validate(&self) -> Result<(), InvalidSpec> {
        match self {
            Self::Host => Ok(()),
            Self::Dir(dir) => absolute("rootfs", dir),
            Self::Overlay { lower, upper } => {
                if lower.is_empty() {
                    return Err(invalid("rootfs", "an overlay needs a layer"));
                }
                let upper = upper.iter().flat_map(|upper| [&upper.dir, &upper.work]);
                lower.iter().chain(upper).try_for_each(|dir| absolute("rootfs", dir))
            }
        }
    }
}

impl StdioSpec {
    fn validate(&self, terminal: Option<TerminalSize>) -> Result<(), InvalidSpec> {
        if matches!(self.stdin, Stdio::Shared { .. }) {
            return Err(invalid("stdin", "only outputs can be shared"));
        }
        let ours = |stdio: &Stdio| matches!(stdio, Stdio::Null | Stdio::Pipe | Stdio::Shared { .. });
        if terminal.is_some() && !(ours(&self.stdin) && ours(&self.stdout)) {
            return Err(invalid(
                "terminal",
                "its streams are copied: give a pipe, a shared output or nothing",
            ));
        }
        Ok(())
    }
}

pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> InvalidSpec {
    InvalidSpec::new(field, why)
}

pub(crate) fn no_nul(field: &'static str, text: &str) -> Result<(), InvalidSpec> {
    if text.contains('\0') { Err(invalid(field, format!("{text:?} holds a NUL byte"))) } else { Ok(()) }
}

/// A name. It ends up in a file with a line for each, in a message, or in an attribute of the kernel, where a control
/// character would begin something else.
pub(crate) fn word(field: &'static str, text: &str) -> Result<(), InvalidSpec> {
    if text.is_empty() { Err(invalid(field, "cannot be empty")) } else { no_control(field, text) }
}

pub(crate) fn no_control(field: &'static str, text: &str) -> Result<(), InvalidSpec> {
    match text.contains(char::is_control) {
        true => Err(invalid(field, format!("{text:?} holds a control character"))),
        false => Ok(()),
    }
}

fn program(field: &'static str, args: &[String]) -> Result<(), InvalidSpec> {
    match args.first() {
        None => return Err(invalid(field, "there is no command to run")),
        Some(program) if program.is_empty() => return Err(invalid(field, "the command is an empty word")),
        Some(_) => {}
    }
    args.iter().try_for_each(|arg| no_nul(field, arg))
}

fn environment(field: &'static str, env: &[(String, String)]) -> Result<(), InvalidSpec> {
    env.iter().try_for_each(|(key, value)| {
        if key.is_empty() || key.contains('=') {
            return Err(invalid(field, format!("{key:?} cannot be a variable's name")));
        }
        no_nul(field, key).and_then(|()| no_nul(field, value))
    })
}

pub(crate) fn absolute(field: &'static str, path: &Path) -> Result<(), InvalidSpec> {
    let text = path.to_str().ok_or_else(|| invalid(field, format!("{path:?} is not UTF-8")))?;
    no_nul(field, text)?;
    if path.is_absolute() { Ok(()) } else { Err(invalid(field, format!("{text:?} is not an absolute path"))) }
}

/// The kernel takes 64 bytes; what names hold is hostname(7)'s.
pub(crate) fn host_name(name: &str) -> Result<(), InvalidSpec> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(fine) {
        return Err(invalid("hostname", format!("{name:?}: give 1 to 64 letters, digits, '-', '.' or '_'")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(change: impl FnOnce(&mut ContainerSpec)) -> Option<&'static str> {
        let mut spec = ContainerSpec::host(["true"]);
        change(&mut spec);
        spec.validate().err().map(|error| error.field)
    }

    #[test]
    fn builders_set_the_fields() {
        let spec = ContainerSpec::host(["true"]).init().valid_exit_code(3).valid_exit_code(5);
        let spec = spec.ulimit("nofile=10".parse().unwrap()).cap_add("NET_ADMIN".parse().unwrap());
        let spec = spec.cap_drop("KILL".parse().unwrap());
        assert!(spec.init && spec.process.valid_exit_codes == [3, 5].into());
        assert_eq!(spec.process.ulimits, ["nofile=10".parse().unwrap()]);
        assert_eq!(
            (&spec.process.cap_add[..], &spec.process.cap_drop[..]),
            (&["NET_ADMIN".parse().unwrap()][..], &["KILL".parse().unwrap()][..],)
        );
        assert_eq!(ExecSpec::new(["true"]).valid_exit_code(3).valid_exit_codes, [3].into());
    }

    /// Names are in files with a line for each, in messages, and in what the kernel is given.
    #[test]
    fn control_characters_are_in_no_name() {
        for bad in ["a\nb", "a\u{1b}[2J", "a\u{9b}2J", "a\0", "a\u{7f}"] {
            let bad = || bad.to_owned();
            assert_eq!(field(|s| s.dns.search.push(bad())), Some("dns"));
            assert_eq!(field(|s| s.dns.options.push(bad())), Some("dns"));
            assert_eq!(field(|s| s.hostname = Some(bad())), Some("hostname"));
            let host = || crate::ExtraHost { name: bad(), address: "10.0.0.1".parse().unwrap() };
            assert_eq!(field(|s| s.extra_hosts.push(host())), Some("extra host"));
            assert_eq!(field(|s| drop(s.labels.insert(bad(), String::new()))), Some("label"));
            assert_eq!(field(|s| s.process.user = Some(bad())), Some("user"));
            assert_eq!(field(|s| s.apparmor = Some(bad())), Some("apparmor"));
            let labels = || Selinux::Labels { process: bad(), mount: "m".into() };
            assert_eq!(field(|s| s.selinux = Some(labels())), Some("selinux"));
            assert_eq!(field(|s| s.network = Network::Cni { name: Some(bad()) }), Some("network"));
            assert_eq!(
                field(|s| s.cgroup_parent = Some(CgroupParent::Path(format!("/{}", bad())))),
                Some("cgroup parent")
            );
            assert_eq!(field(|s| s.devices.push(Device::Cdi(format!("v.com/g={}", bad())))), Some("device"));
            assert_eq!(field(|s| s.telemetry.tracestate = Some(bad())), Some("tracestate"));
            assert_eq!(field(|s| s.mounts.push(Mount::tmpfs("/t").option(bad()))), Some("mount option"));
            assert_eq!(field(|s| s.mounts.push(Mount::file_system(bad(), "x", "/t"))), Some("mount type"));
            assert_eq!(field(|s| s.mounts.push(Mount::file_system("x", bad(), "/t"))), Some("mount source"));
        }
    }

    #[test]
    fn spec_nonsense_is_named_by_its_field() {
        assert_eq!(field(|_| {}), None);
        assert_eq!(field(|s| s.process.args.clear()), Some("args"));
        assert_eq!(field(|s| s.process.args = vec![String::new()]), Some("args"));
        assert_eq!(field(|s| s.process.args.push("a\0b".into())), Some("args"));
        assert_eq!(field(|s| s.process.env.push(("A=B".into(), String::new()))), Some("env"));
        assert_eq!(field(|s| s.process.env.push(("A".into(), "\0".into()))), Some("env"));
        assert_eq!(field(|s| s.process.cwd = "tmp".into()), Some("cwd"));
        assert_eq!(field(|s| s.process.user = Some(String::new())), Some("user"));
        assert_eq!(field(|s| s.hostname = Some("a b".into())), Some("hostname"));
        assert_eq!(field(|s| s.rootfs = Rootfs::Dir("x".into())), Some("rootfs"));
        assert_eq!(field(|s| s.resources.memory = Some(1)), Some("memory"));
        assert_eq!(field(|s| s.resources.memory = Some(u64::MAX)), Some("memory"));
        assert_eq!(field(|s| s.resources.cpus = Some(f64::NAN)), Some("cpus"));
        assert_eq!(field(|s| s.resources.cpus = Some(-1.0)), Some("cpus"));
        assert_eq!(field(|s| s.resources.pids = Some(0)), Some("pids"));
        assert_eq!(field(|s| s.dns.search.push("a b".into())), Some("dns"));
        assert_eq!(field(|s| s.process.oom_score_adj = Some(1001)), Some("oom score"));
        assert_eq!(field(|s| drop(s.labels.insert(String::new(), "x".into()))), Some("label"));
        assert_eq!(field(|s| drop(s.labels.insert("a".into(), "b\nc".into()))), None);
        let mount = |source: &str, destination: &str| Mount::bind(source, destination);
        assert_eq!(field(|s| s.mounts.push(mount("a", "/b"))), Some("mount source"));
        assert_eq!(field(|s| s.mounts.push(mount("/a", "b"))), Some("mount destination"));
        assert_eq!(field(|s| s.mounts.push(mount("/a", "/"))), Some("mount destination"));
        for twice in ["/d", "/d/", "//d/./"] {
            let both = [mount("/a", "/d"), Mount::tmpfs(twice)];
            assert_eq!(field(|s| s.mounts.extend(both)), Some("mount destination"), "{twice}");
        }
        assert_eq!(field(|s| s.mounts.extend([mount("/a", "/d"), mount("/a", "/d/e")])), None);
    }
}

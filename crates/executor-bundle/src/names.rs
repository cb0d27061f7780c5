//! A container's `/etc/hosts` and `/etc/resolv.conf`. They are written to the container's bundle and mounted from there.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use executor_core::{Config, ContainerSpec, Dns, ExtraHost, Mount, NetworkAttachment, NetworkNamespace};
use executor_disk::Dir;
use rustix::fs::{Access, access};
use serde_json::Value;

use crate::error::Error;
use crate::ids::Owner;

/// A container's host name if its specification has none.
pub const DEFAULT_HOSTNAME: &str = "longshore";

/// The files' names in the bundle, and their paths in the container.
const HOSTS: (&str, &str) = ("hosts", "/etc/hosts");
const RESOLV_CONF: (&str, &str) = ("resolv.conf", "/etc/resolv.conf");

/// The host's own resolv.conf.
const HOST_CONF: &str = "/etc/resolv.conf";

/// The file in which systemd-resolved lists the servers that it asks itself.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// The paths of the two files, each with its path in the container.
///
/// Empty if the caller's own configuration brings them: the specification asks for nothing that would be in them, no
/// provider has made a network, and the configuration is not a preview of ours, which mounts these very files. Without the
/// files for which a volume at `/etc` has no place, if nothing is asked of them.
pub(crate) fn places(
    dir: &Path,
    spec: &ContainerSpec,
    network: &NetworkNamespace,
) -> Vec<(PathBuf, PathBuf)> {
    let is_made = matches!(network, NetworkNamespace::At(_));
    let asks_for_none = !is_made && spec.extra_hosts.is_empty() && spec.dns == Dns::default();
    if asks_for_none && spec.config.as_ref().is_some_and(|config| !is_preview(config)) {
        return Vec::new();
    }
    let can_be_made =
        |(_, place): &(&str, &str)| !asks_for_none || !is_missing_for_ever(spec, Path::new(place));
    let files = [HOSTS, RESOLV_CONF].into_iter().filter(can_be_made);
    files.map(|(file, place)| (dir.join(file), place.into())).collect()
}

/// Whether a volume is above this path that does not have it, and in which nothing can be made.
fn is_missing_for_ever(spec: &ContainerSpec, place: &Path) -> bool {
    let inside =
        |mount: &Mount| Some((mount.host_path()?.to_owned(), place.strip_prefix(&mount.destination).ok()?));
    spec.mounts.iter().filter_map(inside).any(|(volume, inside)| {
        !inside.as_os_str().is_empty()
            && fs::symlink_metadata(volume.join(inside)).is_err()
            && access(&volume, Access::WRITE_OK).is_err()
    })
}

/// Whether a configuration mounts our file of hosts from the directory that it is in, as a preview does.
fn is_preview(config: &Config) -> bool {
    let (file, place) = HOSTS;
    let mounts = config.json().get("mounts").and_then(Value::as_array);
    let is_ours = |mount: &Value| mount["source"] == file && mount["destination"] == place;
    mounts.is_some_and(|mounts| mounts.iter().any(is_ours))
}

/// Writes the two files to `dir`, owned by the container's root. Returns the same as [`places`].
pub(crate) fn write(
    dir: &Dir,
    spec: &ContainerSpec,
    network: &NetworkAttachment,
    root: Owner,
) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
    let places = places(dir.path(), spec, &network.namespace);
    if places.is_empty() {
        return Ok(places);
    }
    let is_on_host = network.namespace == NetworkNamespace::Host;
    let mut host_conf = read(HOST_CONF)?;
    if !is_on_host && asks_only_resolved(&host_conf) {
        host_conf = read(RESOLVED_CONF)?;
    }
    let hostname = spec.hostname.as_deref().unwrap_or(DEFAULT_HOSTNAME);
    let hosts = hosts(hostname, &network.addresses, &spec.extra_hosts);
    let dns = if spec.dns == Dns::default() { &network.dns } else { &spec.dns };
    let conf = resolv_conf(&host_conf, dns, is_on_host);
    for ((name, _), text) in [(HOSTS, hosts), (RESOLV_CONF, conf)] {
        let written = dir.write_new(name, text.as_bytes(), 0o644).and_then(|file| root.give(file));
        written.map_err(Error::io("write", &dir.path_of(name)))?;
    }
    Ok(places)
}

/// A file of the host. Empty if it does not exist.
fn read(path: &str) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(Error::io("read", Path::new(path))),
    }
}

fn hosts(hostname: &str, addresses: &[IpAddr], extra: &[ExtraHost]) -> String {
    // Without an address of its own, the host name means the loopback.
    let loopback_names =
        if addresses.is_empty() { format!("localhost {hostname}") } else { "localhost".to_owned() };
    let mut text = format!("127.0.0.1\t{loopback_names}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for address in addresses {
        text += &format!("{address}\t{hostname}\n");
    }
    for host in extra {
        text += &format!("{}\t{}\n", host.address, host.name);
    }
    text
}

/// The values of a keyword in all its lines. The resolver itself would use the last line of `search` and `options` only.
fn values<'a>(conf: &'a str, keyword: &str) -> Vec<&'a str> {
    let lines = conf.lines().map(str::split_whitespace);
    lines.filter_map(|mut words| (words.next() == Some(keyword)).then_some(words)).flatten().collect()
}

/// Whether the only server is systemd-resolved, at its address on the host's loopback: a container cannot reach it.
fn asks_only_resolved(conf: &str) -> bool {
    values(conf, "nameserver") == ["127.0.0.53"]
}

/// The text of a resolv.conf: what `dns` asks for, and the host's values for the rest. Servers on the host's loopback are
/// left out unless the container is in the host's network.
fn resolv_conf(host: &str, dns: &Dns, is_on_host: bool) -> String {
    let is_loopback = |address: &str| {
        let plain = address.split('%').next().unwrap_or_default();
        plain.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let mut nameservers: Vec<_> = dns.nameservers.iter().map(IpAddr::to_string).collect();
    if nameservers.is_empty() {
        for address in values(host, "nameserver") {
            if is_on_host || !is_loopback(address) {
                nameservers.push(address.to_owned());
            }
        }
    }
    let mut conf: String = nameservers.iter().map(|address| format!("nameserver {address}\n")).collect();
    for (keyword, asked) in [("search", &dns.search), ("options", &dns.options)] {
        let words = if asked.is_empty() { values(host, keyword).join(" ") } else { asked.join(" ") };
        if !words.is_empty() {
            conf += &format!("{keyword} {words}\n");
        }
    }
    conf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_has_localhost_the_name_and_what_was_added() {
        let extra = ["db:10.0.0.7".parse().unwrap(), "six:fd00::1".parse().unwrap()];
        let expected = "127.0.0.1\tlocalhost ship\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.7\tdb\nfd00::1\tsix\n";
        assert_eq!(hosts("ship", &[], &extra), expected);
        let own = hosts("ship", &["10.88.0.2".parse().unwrap()], &[]);
        assert_eq!(own, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.88.0.2\tship\n");
    }

    #[test]
    fn resolv_conf_is_the_hosts_but_for_its_loopback() {
        let host = "# comment\nnameserver 127.0.0.1\nnameserver 10.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\nsearch a.example b.example\noptions ndots:2\n";
        let conf = |dns: &Dns, is_on_host| resolv_conf(host, dns, is_on_host);
        let rest = "search a.example b.example\noptions ndots:2\n";
        let none = Dns::default();
        assert_eq!(conf(&none, false), format!("nameserver 10.0.0.1\nnameserver fe80::1%eth0\n{rest}"));
        let all = "nameserver 127.0.0.1\nnameserver 10.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\n";
        assert_eq!(conf(&none, true), format!("{all}{rest}"));
        let asked = Dns {
            nameservers: vec!["127.0.0.9".parse().unwrap()],
            search: vec!["c.example".into()],
            options: vec!["timeout:1".into()],
        };
        assert_eq!(conf(&asked, false), "nameserver 127.0.0.9\nsearch c.example\noptions timeout:1\n");
        assert_eq!(resolv_conf("", &none, false), "");
    }

    #[test]
    fn resolveds_stub_is_known_by_being_alone() {
        assert!(asks_only_resolved("# x\nnameserver 127.0.0.53\noptions edns0\n"));
        for other in ["", "nameserver 127.0.0.53\nnameserver 1.1.1.1\n", "nameserver 127.0.0.1\n"] {
            assert!(!asks_only_resolved(other), "{other:?}");
        }
    }
}

//! A container's `/etc/hosts` and `/etc/resolv.conf`: made for each container, in its own directory, and gone
//! with it.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use executor_core::{ContainerSpec, Dns, ExtraHost, NetworkAttachment, NetworkNamespace};

use crate::error::Error;
use crate::file;
use crate::ids::Owner;

/// A container's host name when none is asked for.
pub const DEFAULT_HOSTNAME: &str = "longshore";

/// The files' names below the bundle, and what they are in the container.
const HOSTS: (&str, &str) = ("hosts", "/etc/hosts");
const RESOLV_CONF: (&str, &str) = ("resolv.conf", "/etc/resolv.conf");

/// The host's own resolv.conf.
const OF_THE_HOST: &str = "/etc/resolv.conf";

/// Where systemd-resolved names the servers that it asks itself.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Where the two files are, each with its place in the container. There are none where a configuration of the caller's
/// brings its own: when nothing is asked for that would be in them, and no provider has made a network.
pub(crate) fn places(
    dir: &Path,
    spec: &ContainerSpec,
    network: &NetworkNamespace,
) -> Vec<(PathBuf, PathBuf)> {
    let is_made = matches!(network, NetworkNamespace::At(_));
    if spec.config.is_some() && !is_made && spec.extra_hosts.is_empty() && spec.dns == Dns::default() {
        return Vec::new();
    }
    [HOSTS, RESOLV_CONF].map(|(file, place)| (dir.join(file), place.into())).into()
}

/// Writes the two files below `dir`, and gives them to the container's root; answers as [`places`].
pub(crate) fn write(
    dir: &Path,
    spec: &ContainerSpec,
    network: &NetworkAttachment,
    root: Owner,
) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
    let places = places(dir, spec, &network.namespace);
    if places.is_empty() {
        return Ok(places);
    }
    let on_the_host = network.namespace == NetworkNamespace::Host;
    let mut conf = read(OF_THE_HOST)?;
    if !on_the_host && asks_only_resolved(&conf) {
        conf = read(RESOLVED)?;
    }
    let hostname = spec.hostname.as_deref().unwrap_or(DEFAULT_HOSTNAME);
    let hosts = hosts(hostname, &network.addresses, &spec.extra_hosts);
    let dns = if spec.dns == Dns::default() { &network.dns } else { &spec.dns };
    let conf = resolv_conf(&conf, dns, on_the_host);
    for ((name, _), text) in [(HOSTS, hosts), (RESOLV_CONF, conf)] {
        let path = dir.join(name);
        file::write_new(&path, text.as_bytes(), 0o644)?;
        root.give(&path)?;
    }
    Ok(places)
}

/// A file of the host's; one that is not there is empty.
fn read(path: &str) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(Error::io("read", Path::new(path))),
    }
}

fn hosts(hostname: &str, addresses: &[IpAddr], extra: &[ExtraHost]) -> String {
    let alone = if addresses.is_empty() { format!(" {hostname}") } else { String::new() };
    let mut own = format!("127.0.0.1\tlocalhost{alone}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    own.extend(addresses.iter().map(|address| format!("{address}\t{hostname}\n")));
    let extra = extra.iter().map(|host| format!("{}\t{}\n", host.address, host.name));
    std::iter::once(own).chain(extra).collect()
}

/// The values of a keyword; a later line of `search` or `options` replaces a former in the resolver, and adds
/// to it here, where nothing is to be lost.
fn values<'a>(conf: &'a str, keyword: &str) -> Vec<&'a str> {
    let lines = conf.lines().map(str::split_whitespace);
    lines.filter_map(|mut words| (words.next() == Some(keyword)).then_some(words)).flatten().collect()
}

/// systemd-resolved's own address on the host's loopback, which a container does not reach.
fn asks_only_resolved(conf: &str) -> bool {
    values(conf, "nameserver") == ["127.0.0.53"]
}

/// What is asked for, and the host's where nothing is; addresses of a loopback that is not the container's are
/// left out.
fn resolv_conf(host: &str, dns: &Dns, on_the_host: bool) -> String {
    let loopback = |address: &str| {
        let plain = address.split('%').next().unwrap_or_default();
        plain.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let mut nameservers: Vec<_> = dns.nameservers.iter().map(IpAddr::to_string).collect();
    if nameservers.is_empty() {
        let reached =
            values(host, "nameserver").into_iter().filter(|address| on_the_host || !loopback(address));
        nameservers = reached.map(str::to_owned).collect();
    }
    let or_hosts = |asked: &[String], keyword| match asked.is_empty() {
        true => values(host, keyword).join(" "),
        false => asked.join(" "),
    };
    let mut conf: String = nameservers.iter().map(|address| format!("nameserver {address}\n")).collect();
    for (keyword, words) in
        [("search", or_hosts(&dns.search, "search")), ("options", or_hosts(&dns.options, "options"))]
    {
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
        let conf = |dns: &Dns, on_the_host| resolv_conf(host, dns, on_the_host);
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

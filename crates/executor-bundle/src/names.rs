//! A container's `/etc/hosts` and `/etc/resolv.conf`. They are written to the container's bundle and mounted from there.
//!
//! The host's resolv.conf is read as glibc reads it: a keyword begins its line, what follows an address is ignored, the last
//! `search` or `domain` counts, and options add up. It need not be UTF-8.
//!
//! If the container can reach none of the host's servers, and the specification names none, there is no server: a comment says
//! so. Its names are not sent to servers that nobody has named.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use executor_core::{Config, ContainerSpec, Dns, ExtraHost, Mount, NetworkAttachment, NetworkNamespace};
use executor_disk::Dir;
use rustix::fs::{Access, Mode, OFlags, access, open};
use serde_json::Value;

use crate::error::Error;
use crate::ids::Owner;

/// A container's host name if its specification has none.
pub const DEFAULT_HOSTNAME: &str = "longshore";

/// The files' names in the bundle, and their paths in the container.
const HOSTS: (&str, &str) = ("hosts", "/etc/hosts");
const RESOLV_CONF: (&str, &str) = ("resolv.conf", "/etc/resolv.conf");

/// The most bytes of a file of the host that are read.
const LONGEST: u64 = 1 << 20;

/// The host's own resolv.conf.
const HOST_CONF: &str = "/etc/resolv.conf";

/// What a resolv.conf without a server says.
const NO_SERVER: &str = "No server of the host can be reached from this container. Name one: dns, or --dns.";

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
    if !is_on_host && Resolver::parse(&host_conf).asks_only_resolved() {
        host_conf = read(RESOLVED_CONF)?;
    }
    let hostname = spec.hostname.as_deref().unwrap_or(DEFAULT_HOSTNAME);
    let hosts = hosts(hostname, &network.addresses, &spec.extra_hosts);
    let dns = if spec.dns == Dns::default() { &network.dns } else { &spec.dns };
    let conf = resolv_conf(&host_conf, dns, is_on_host);
    for ((name, _), text) in [(HOSTS, hosts.into_bytes()), (RESOLV_CONF, conf)] {
        let written = dir.write_new(name, &text, 0o644).and_then(|file| root.give(file));
        written.map_err(Error::io("write", &dir.path_of(name)))?;
    }
    Ok(places)
}

/// A file of the host. Empty where glibc takes it for empty as well, and if it is no regular file: a reader may wait for a pipe,
/// and a device may never end.
fn read(path: &str) -> Result<Vec<u8>, Error> {
    use ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
    let text = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let text = text.map_err(io::Error::from).map(File::from).and_then(|file| {
        let mut text = Vec::new();
        if file.metadata()?.is_file() {
            file.take(LONGEST).read_to_end(&mut text)?;
        }
        Ok(text)
    });
    match text {
        Err(error) if [NotFound, NotADirectory, IsADirectory, PermissionDenied].contains(&error.kind()) => {
            Ok(Vec::new())
        }
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

/// What a resolv.conf says.
#[derive(Default)]
struct Resolver<'a> {
    /// Each address, as text and as a number. An IPv6 address may have a zone in its text.
    servers: Vec<(&'a str, IpAddr)>,
    search: Vec<&'a [u8]>,
    options: Vec<&'a [u8]>,
}

impl<'a> Resolver<'a> {
    fn parse(conf: &'a [u8]) -> Self {
        let mut resolver = Self::default();
        for line in conf.split(|byte| *byte == b'\n') {
            // A line that begins with a blank has an empty keyword.
            let mut words = line.split(|byte| b" \t".contains(byte));
            let keyword = words.next().unwrap_or_default();
            let mut values = words.filter(|word| !word.is_empty()).peekable();
            match keyword {
                b"nameserver" => resolver.servers.extend(values.next().and_then(server)),
                b"domain" if values.peek().is_some() => resolver.search = values.take(1).collect(),
                b"search" if values.peek().is_some() => resolver.search = values.collect(),
                b"options" => resolver.options.extend(values),
                _ => {}
            }
        }
        resolver
    }

    /// Whether the only server is systemd-resolved, at its address on the host's loopback: a container cannot reach it.
    fn asks_only_resolved(&self) -> bool {
        matches!(self.servers.as_slice(), [("127.0.0.53", _)])
    }
}

fn server(word: &[u8]) -> Option<(&str, IpAddr)> {
    let text = str::from_utf8(word).ok()?;
    let address = match text.split_once('%') {
        Some((address, _zone)) => address.parse().ok().filter(IpAddr::is_ipv6)?,
        None => text.parse().ok()?,
    };
    Some((text, address))
}

/// The text of a resolv.conf: what `dns` asks for, and the host's values for the rest. Servers on the host's loopback are
/// left out unless the container is in the host's network.
fn resolv_conf(host: &[u8], dns: &Dns, is_on_host: bool) -> Vec<u8> {
    let host = Resolver::parse(host);
    let mut conf = Vec::new();
    let mut line = |keyword: &str, values: &[&[u8]]| {
        if !values.is_empty() {
            conf.extend([keyword.as_bytes(), b" ", &values.join(&b' '), b"\n"].concat());
        }
    };
    let asked: Vec<_> = dns.nameservers.iter().map(IpAddr::to_string).collect();
    let mut servers: Vec<_> = asked.iter().map(String::as_bytes).collect();
    if servers.is_empty() {
        let can_be_reached = |address: &IpAddr| is_on_host || !address.is_loopback();
        let hosts = host.servers.iter().filter(|(_, address)| can_be_reached(address));
        servers = hosts.map(|(text, _)| text.as_bytes()).collect();
    }
    if servers.is_empty() {
        line("#", &[NO_SERVER.as_bytes()]);
    }
    servers.iter().for_each(|server| line("nameserver", &[server]));
    for (keyword, asked, hosts) in
        [("search", &dns.search, &host.search), ("options", &dns.options, &host.options)]
    {
        let asked: Vec<_> = asked.iter().map(String::as_bytes).collect();
        line(keyword, if asked.is_empty() { hosts } else { &asked });
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
        let conf = |dns: &Dns, is_on_host| text(host, dns, is_on_host);
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
        assert_eq!(text("", &none, false), format!("# {NO_SERVER}\n"));
        let stub = "nameserver 127.0.0.1\nsearch a.example\n";
        assert_eq!(text(stub, &none, false), format!("# {NO_SERVER}\nsearch a.example\n"));
    }

    fn text(host: &str, dns: &Dns, is_on_host: bool) -> String {
        String::from_utf8(resolv_conf(host.as_bytes(), dns, is_on_host)).unwrap()
    }

    #[test]
    fn resolv() {
        let read = |host: &str| text(host, &Dns::default(), false);
        let server = "nameserver 10.0.0.1\n";
        for (host, expected) in [
            ("nameserver 10.0.0.1 # primary\n", server.to_owned()),
            ("nameserver\t 10.0.0.1\tand more\n", server.to_owned()),
            ("; x\n;nameserver 10.0.0.2\nnameserver 10.0.0.1", server.to_owned()),
            (
                " nameserver 10.0.0.2\nnameservers 10.0.0.3\nnameserver\nnameserver no\nnameserver 10.0.0.4\r\nnameserver 10.0.0.1",
                server.to_owned(),
            ),
            ("nameserver 10.0.0.1%eth0\nnameserver 10.0.0.1\n", server.to_owned()),
            ("domain d.example e.example\nnameserver 10.0.0.1\n", format!("{server}search d.example\n")),
            ("search a b\nnameserver 10.0.0.1\nsearch c\t d\n", format!("{server}search c d\n")),
            ("search a b\ndomain c\nnameserver 10.0.0.1\n", format!("{server}search c\n")),
            ("domain a\nsearch \nnameserver 10.0.0.1\n", format!("{server}search a\n")),
            (
                "options ndots:2\noptions  edns0\nnameserver 10.0.0.1\n",
                format!("{server}options ndots:2 edns0\n"),
            ),
        ] {
            assert_eq!(read(host), expected, "{host:?}");
        }
        let latin_1 = b"# caf\xe9\nnameserver 10.0.0.1 caf\xe9\nsearch caf\xe9\n";
        assert_eq!(resolv_conf(latin_1, &Dns::default(), false), b"nameserver 10.0.0.1\nsearch caf\xe9\n");
    }

    #[test]
    fn resolveds_stub_is_known_by_being_alone() {
        let is_stub = |conf: &str| Resolver::parse(conf.as_bytes()).asks_only_resolved();
        assert!(
            is_stub("# x\nnameserver 127.0.0.53\noptions edns0\n") && is_stub("nameserver 127.0.0.53 # stub")
        );
        for other in ["", "nameserver 127.0.0.53\nnameserver 1.1.1.1\n", "nameserver 127.0.0.1\n"] {
            assert!(!is_stub(other), "{other:?}");
        }
    }
}

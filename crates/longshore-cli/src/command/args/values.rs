//! How the values of options are read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore::{Capability, InvalidSpec, Mount, MountSource, Network};

/// What one option names: one, or all.
pub(super) type Capabilities = Vec<Capability>;

pub(super) fn capabilities(text: &str) -> Result<Capabilities, String> {
    match text.to_ascii_lowercase().as_str() {
        "all" => Ok(Capability::all().collect()),
        _ => text.parse().map(|one| vec![one]).map_err(|error: InvalidSpec| error.why),
    }
}

/// A variable, unless it is passed on and not set here.
pub(super) type Variable = Option<(String, String)>;

pub(super) fn variable(text: &str) -> Result<Variable, String> {
    if let Some((name, value)) = text.split_once('=') {
        return Ok(Some((name.to_owned(), value.to_owned())));
    }
    if text.is_empty() {
        return Err("give NAME=VALUE, or the NAME of a variable that is set here".into());
    }
    match std::env::var_os(text).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some((text.to_owned(), value))),
        Some(Err(_)) => Err("its value is not UTF-8, and config.json cannot have it".into()),
    }
}

pub(super) fn network(text: &str) -> Result<Network, String> {
    match text.split_once(':').unwrap_or((text, "")) {
        ("none", "") => Ok(Network::None),
        ("host", "") => Ok(Network::Host),
        ("cni", "") if text == "cni" => Ok(Network::Cni { name: None }),
        ("cni", name) if !name.is_empty() => Ok(Network::Cni { name: Some(name.to_owned()) }),
        _ => Err("give none, host, cni or cni:NAME".into()),
    }
}

/// Paths of this machine may be relative to where the command was called.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

pub(super) fn volume(text: &str) -> Result<Mount, String> {
    text.parse().map(from_here).map_err(|error: InvalidSpec| error.why)
}

pub(super) fn mount(text: &str) -> Result<Mount, String> {
    Mount::from_words(text).map(from_here).map_err(|error| error.why)
}

/// `SRC:DST[:MODE]`. The file is read here and now.
pub(super) fn secret(text: &str) -> Result<Mount, String> {
    let form = || "give SRC:DST or SRC:DST:MODE, as in ./token:/run/token:400".to_owned();
    let parts: Vec<_> = text.split(':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        [source, destination] => (source, destination, 0o400),
        [source, destination, mode] => {
            (source, destination, u32::from_str_radix(mode, 8).map_err(|_| form())?)
        }
        _ => return Err(form()),
    };
    let contents = std::fs::read(source).map_err(|error| format!("{source}: {error}"))?;
    Ok(Mount::secret(contents, *destination, mode, (0, 0)))
}

fn from_here(mut mount: Mount) -> Mount {
    if let MountSource::Bind { path, .. } = &mut mount.source {
        *path = absolute(path);
    }
    mount
}

pub(super) fn swap(text: &str) -> Result<u64, String> {
    if text == "-1" { Ok(u64::MAX) } else { size(text) }
}

/// A number of processes. In the library `u64::MAX` is no limit.
pub(super) fn pids(text: &str) -> Result<u64, String> {
    match text {
        "-1" | "0" | "unlimited" => Ok(u64::MAX),
        _ => text.parse().map_err(|_| "give a number of processes; -1 is no limit".into()),
    }
}

/// Bytes, or with k, m, g or t for powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches('b').trim_end_matches('i');
    let (number, shift) = match number.char_indices().last() {
        Some((end, unit @ ('k' | 'm' | 'g' | 't'))) => {
            (number.get(..end).unwrap_or_default(), 10 * (1 + "kmgt".find(unit).unwrap_or_default()))
        }
        _ => (number, 0),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "give a size such as 64m, 1g or a number of bytes".into())
}

/// A number of seconds, or with units.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|_| "give a time such as 500ms, 30s or 2m".into()),
    }
}

/// A time that is not zero.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a timeout must be more than zero".into()),
        after => Ok(after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        for (text, bytes) in
            [("64m", 64 << 20), ("1GiB", 1 << 30), ("512", 512), ("2k", 2048), ("1gb", 1 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "-1", "1.5g", "99999999999t", "1x"] {
            assert!(size(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for zero in ["0", "0s", "0ms"] {
            assert!(timeout(zero).is_err() && duration(zero) == Ok(Duration::ZERO), "{zero}");
        }
        assert!(duration("-1").is_err() && duration("soon").is_err());
    }

    #[test]
    fn no_limit_of_processes_has_three_names() {
        assert_eq!(pids("7"), Ok(7));
        for none in ["-1", "0", "unlimited"] {
            assert_eq!(pids(none), Ok(u64::MAX));
        }
        assert!(pids("-2").is_err() && pids("many").is_err() && pids("").is_err());
    }

    #[test]
    fn volumes_may_be_relative_to_here() {
        assert!(volume("rel:/b").unwrap().host_path().unwrap().is_absolute());
        assert!(mount("src=rel,dst=/b").unwrap().host_path().unwrap().is_absolute());
        assert!(volume("/a").is_err());
    }
}

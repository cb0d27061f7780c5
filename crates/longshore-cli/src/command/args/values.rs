//! How the values of options are read.

use std::path::{Path, PathBuf};

use longshore::runtime::read_whole;
use longshore::{Capability, InvalidSpec, Mount, MountSource, Network};

/// What one option names: one, or all.
pub(super) type Capabilities = Vec<Capability>;

pub(super) fn capabilities(text: &str) -> Result<Capabilities, String> {
    match text.to_ascii_lowercase().as_str() {
        "all" => Ok(Capability::all().collect()),
        _ => text.parse().map(|one| vec![one]).map_err(|error: InvalidSpec| error.why),
    }
}

pub(super) fn network(text: &str) -> Result<Network, String> {
    match text.split_once(':').unwrap_or((text, "")) {
        ("none", "") => Ok(Network::None),
        ("host", "") => Ok(Network::Host),
        ("cni", "") if text == "cni" => Ok(Network::Cni { name: None }),
        ("cni", name) if !name.is_empty() => Ok(Network::Cni { name: Some(name.to_owned()) }),
        ("bridge" | "default", "") => {
            Err("there is no bridge of ours; give cni for a network of CNI's, or host".into())
        }
        _ => Err("give none, host, cni or cni:NAME".into()),
    }
}

/// Paths of this machine may be relative to where the command was called.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

pub(super) fn volume(text: &str) -> Result<Mount, String> {
    volume_on(text, Path::new("/sys/fs/selinux/enforce").exists())
}

/// Without SELinux, nothing has a label that the options z and Z could change.
fn volume_on(text: &str, has_selinux: bool) -> Result<Mount, String> {
    let parts: Vec<_> = text.splitn(3, ':').collect();
    let without_labels = match parts.as_slice() {
        [source, destination, options]
            if !has_selinux && options.split(',').any(|one| one == "z" || one == "Z") =>
        {
            let others: Vec<_> = options.split(',').filter(|one| *one != "z" && *one != "Z").collect();
            let colon = if others.is_empty() { "" } else { ":" };
            format!("{source}:{destination}{colon}{}", others.join(","))
        }
        _ => text.to_owned(),
    };
    without_labels.parse().map(from_here).map_err(|error: InvalidSpec| error.why)
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
    let contents = read_whole(Path::new(source)).map_err(|error| format!("{source}: {error}"))?;
    Ok(Mount::secret(contents, *destination, mode, (0, 0)))
}

fn from_here(mut mount: Mount) -> Mount {
    if let MountSource::Bind { path, .. } = &mut mount.source {
        *path = absolute(path);
    }
    mount
}

/// `DST[:OPTIONS]`, with options as words between commas. The kernel takes the last of two that contradict each other.
pub(super) fn tmpfs(text: &str) -> Result<Mount, String> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    if !destination.starts_with('/') {
        return Err("give DST or DST:OPTIONS, as in /tmp:size=64m".into());
    }
    let mut mount = Mount::tmpfs(destination);
    // The runtime makes devices in the one at /dev.
    let is_dev = mount.destination.components().eq(Path::new("/dev").components());
    let harmless = ["nosuid", "nodev", "noexec"].into_iter().filter(|option| !(is_dev && *option == "nodev"));
    mount.options = harmless.map(String::from).collect();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            _ => {
                let opposite = option.strip_prefix("no").map_or_else(|| format!("no{option}"), str::to_owned);
                mount.options.retain(|other| *other != opposite && other != option);
                mount.options.push(option.to_owned());
            }
        }
    }
    Ok(mount)
}

/// `NAME=VALUE`, or a name without a value.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    match name.is_empty() {
        true => Err("give NAME or NAME=VALUE".into()),
        false => Ok((name.to_owned(), value.to_owned())),
    }
}

pub(super) fn sysctl(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("give NAME=VALUE, as in net.core.somaxconn=1024")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_may_be_relative_to_here() {
        assert!(volume("rel:/b").unwrap().host_path().unwrap().is_absolute());
        assert!(mount("src=rel,dst=/b").unwrap().host_path().unwrap().is_absolute());
        assert!(mount(r#"type=bind,"src=/a,b",dst=/c"#).unwrap() == Mount::bind("/a,b", "/c"));
        assert!(volume("/a").is_err());
        assert_eq!(volume_on("/a:/b:Z", false), Ok(Mount::bind("/a", "/b")));
        assert_eq!(volume_on("/a:/b:ro,z", false), Ok(Mount::bind("/a", "/b").read_only()));
        assert!(volume_on("/a:/b:z", true).is_err_and(|why| why.contains("chcon")));
    }

    #[test]
    fn a_tmpfs_is_harmless_unless_asked_otherwise() {
        let options = |text| tmpfs(text).map(|mount| (mount.options.join(","), mount.read_only));
        assert_eq!(options("/t"), Ok(("nosuid,nodev,noexec".into(), false)));
        assert_eq!(options("/t:size=1m,exec,ro"), Ok(("nosuid,nodev,size=1m,exec".into(), true)));
        assert_eq!(options("/dev/"), Ok(("nosuid,noexec".into(), false)));
        assert!(tmpfs("t").is_err() && tmpfs("").is_err());
    }
}

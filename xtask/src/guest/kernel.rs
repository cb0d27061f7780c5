//! The guest's kernel: one of Debian's, unpacked below target/guest and not installed, and a first root in memory that mounts the
//! real one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::options::Choice;
use super::{output, script, write};
use crate::Done;

/// The sources of packages that are asked when this machine's own have no such kernel.
const SOURCES: &str = "\
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie-backports main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
";

/// What the first root needs before it can mount the real one. Some may be parts of the kernel.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// A kernel that a guest can boot.
pub(super) struct Kernel {
    pub(super) version: String,
    pub(super) image: PathBuf,
    /// The directory that has `VERSION` with its modules.
    pub(super) modules: PathBuf,
    pub(super) initramfs: PathBuf,
}

impl Kernel {
    /// The kernel that was asked for, downloaded if it is not here yet.
    pub(super) fn get(choice: &Choice, dir: &Path) -> Result<Self, String> {
        if std::env::consts::ARCH != "x86_64" {
            return Err("the guest is an amd64 machine, and the tests' programs are not".into());
        }
        let unpacked = match choice {
            Choice::Directory(unpacked) => unpacked.clone(),
            Choice::Version(version) => download(version, dir)?,
        };
        Self::unpacked(&unpacked, dir)
    }

    fn unpacked(unpacked: &Path, dir: &Path) -> Result<Self, String> {
        let unpacked =
            fs::canonicalize(unpacked).map_err(|error| format!("{}: {error}", unpacked.display()))?;
        let image = files(&unpacked.join("boot")).into_iter().find_map(|image| {
            let version = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
            Some((version, image))
        });
        let (version, image) = image.ok_or_else(|| format!("{}: no boot/vmlinuz-*", unpacked.display()))?;
        let modules = [unpacked.join("lib/modules"), unpacked.join("usr/lib/modules")];
        let modules = modules.into_iter().find(|modules| modules.join(&version).is_dir());
        let modules = modules.ok_or_else(|| format!("{}: no lib/modules/{version}", unpacked.display()))?;
        let initramfs = dir.join(format!("{version}.initramfs"));
        let kernel = Self { version, image, modules, initramfs };
        kernel.make_initramfs()?;
        Ok(kernel)
    }

    /// busybox, the modules, and the script that mounts this machine's root.
    fn make_initramfs(&self) -> Done {
        let root = self.initramfs.with_extension("files");
        let _none = fs::remove_dir_all(&root);
        let own = self.modules.join(&self.version);
        let list = own.join("modules.dep");
        let list = fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
        let modules = Path::new("lib/modules").join(&self.version);
        for file in with_dependencies(&list, &MODULES) {
            copy(&own.join(&file), &root.join(&modules).join(&file))?;
        }
        for list in ["modules.dep", "modules.alias", "modules.symbols"] {
            copy(&own.join(list), &root.join(&modules).join(list))?;
        }
        let busybox = output(Command::new("sh").args(["-c", "command -v busybox"]))?;
        copy(Path::new(busybox.trim()), &root.join("bin/busybox"))?;
        write(&root.join("init"), &script::init(&MODULES))?;
        let pack = format!(
            "cd {0} && chmod 755 init && mkdir dev proc sys lower upper root && find . | busybox cpio -o -H newc > {1}",
            quoted(&root),
            quoted(&self.initramfs)
        );
        output(Command::new("sh").args(["-c", &pack])).map(drop)
    }
}

/// Downloads the newest of Debian's kernels that begins with `version`, and unpacks it.
fn download(version: &str, dir: &Path) -> Result<PathBuf, String> {
    let unpacked = dir.join(format!("kernel-{version}"));
    let complete = unpacked.join("complete");
    if complete.exists() {
        return Ok(unpacked);
    }
    let _none = fs::remove_dir_all(&unpacked);
    fs::create_dir_all(&unpacked).map_err(|error| format!("{}: {error}", unpacked.display()))?;
    let (packages, options) = find(version, dir)?;
    eprintln!("guest: downloading {}", packages.join(", "));
    let debs = unpacked.join("debs");
    fs::create_dir_all(&debs).map_err(|error| format!("{}: {error}", debs.display()))?;
    output(Command::new("apt-get").args(&options).arg("download").args(&packages).current_dir(&debs))?;
    for deb in files(&debs) {
        output(Command::new("dpkg").arg("-x").args([&deb, &unpacked]))?;
    }
    // What was downloaded is not needed twice. busybox reads modules that are not compressed, whatever it was built with.
    let tidy = "rm -r debs && find . -name '*.ko.xz' -print0 | xargs -0 -r xz --decompress && if [ ! -e lib ]; then ln -s usr/lib lib; fi && for version in lib/modules/*; do busybox depmod -b . \"${version##*/}\"; done";
    output(Command::new("sh").args(["-c", tidy]).current_dir(&unpacked))?;
    write(&complete, "")?;
    Ok(unpacked)
}

/// The packages of a kernel, and the options of apt that find them: this machine's own sources, or [`SOURCES`].
fn find(version: &str, dir: &Path) -> Result<(Vec<String>, Vec<String>), String> {
    let apt = dir.join("apt");
    for below in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(below)).map_err(|error| format!("{}: {error}", apt.display()))?;
    }
    let sources = apt.join("sources.list");
    write(&sources, SOURCES)?;
    let common = ["-o", "APT::Sandbox::User=root"].map(str::to_owned).to_vec();
    let mut elsewhere = common.clone();
    for (name, path) in [
        ("Dir::Etc::sourcelist", sources.as_path()),
        ("Dir::Etc::sourceparts", Path::new("/dev/null")),
        ("Dir::State::lists", &apt.join("lists")),
        ("Dir::Cache", &apt.join("cache")),
    ] {
        elsewhere.extend(["-o".to_owned(), format!("{name}={}", path.display())]);
    }
    for options in [common, elsewhere] {
        // One source of many may be broken, and the kernel be in another: what is known decides.
        let update = output(Command::new("apt-get").args(&options).arg("update"));
        let names = output(Command::new("apt-cache").args(&options).args(["pkgnames", "linux-"]))?;
        let packages = choose(&names, version);
        if !packages.is_empty() {
            return Ok((packages, options));
        }
        if let Err(error) = update {
            eprintln!("guest: {error}");
        }
    }
    Err(format!("no source of packages has a linux-image-{version}*-amd64"))
}

/// The packages of the newest kernel that begins with `version`: its image, and what newer ones have beside it.
fn choose(names: &str, version: &str) -> Vec<String> {
    let names: BTreeSet<_> = names.lines().collect();
    let begins = |full: &&str| {
        let rest = full.strip_prefix(version);
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    };
    // Others are built for a cloud, or are not signed: `6.1.0-50-cloud`, `6.1.0-50-rt`, `6.12.9+bpo`.
    let is_plain = |full: &&str| !full.split(['-', '+']).any(|part| ["cloud", "rt"].contains(&part));
    let of = |name: &&str| -> Option<String> {
        let full = name.strip_prefix("linux-image-")?.strip_suffix("-amd64")?;
        Some(full).filter(begins).filter(is_plain).map(str::to_owned)
    };
    let Some(full) = names.iter().filter_map(of).max_by_key(|full| numbers(full)) else { return Vec::new() };
    let parts = ["image", "binary", "modules"].map(|part| format!("linux-{part}-{full}-amd64"));
    parts.into_iter().filter(|part| names.contains(part.as_str())).collect()
}

/// The numbers in a version, by which it is older or newer than others.
fn numbers(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// The files of these modules and of what they depend on. `list` is a `modules.dep`; a module that it does not have is a part of the
/// kernel.
fn with_dependencies(list: &str, names: &[&str]) -> BTreeSet<String> {
    let name = |file: &str| {
        let file = file.rsplit('/').next().unwrap_or_default();
        file.split('.').next().unwrap_or_default().replace('-', "_")
    };
    let lines = list.lines().filter_map(|line| line.split_once(':'));
    let wanted = lines.filter(|(file, _)| names.contains(&name(file).as_str()));
    wanted
        .flat_map(|(file, rest)| [file].into_iter().chain(rest.split_whitespace()))
        .map(str::to_owned)
        .collect()
}

fn copy(from: &Path, to: &Path) -> Done {
    let parent = to.parent().unwrap_or(to);
    let copied = fs::create_dir_all(parent).and_then(|()| fs::copy(from, to));
    copied.map(drop).map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// A path as one word of a shell.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_chosen() {
        let names = "linux-image-6.1.0-9-amd64\nlinux-image-6.1.0-50-amd64\nlinux-image-6.1.0-50-rt-amd64\n\
            linux-image-6.1.0-51-cloud-amd64\nlinux-image-6.1.0-53-amd64-dbg\nlinux-image-6.12.9+deb12-amd64\n\
            linux-image-6.19.6+deb13-amd64\nlinux-binary-6.19.6+deb13-amd64\nlinux-modules-7.2.6+deb13-amd64\nlinux-image-amd64";
        assert_eq!(choose(names, "6.1"), ["linux-image-6.1.0-50-amd64"]);
        assert_eq!(choose(names, "6.12"), ["linux-image-6.12.9+deb12-amd64"]);
        assert_eq!(
            choose(names, "6.19"),
            ["linux-image-6.19.6+deb13-amd64", "linux-binary-6.19.6+deb13-amd64"]
        );
        assert_eq!(choose(names, "5"), [""; 0]);
    }

    #[test]
    fn modules_come_with_what_they_depend_on() {
        let list = "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko\n\
            kernel/net/9p/9pnet.ko:\nkernel/drivers/virtio/virtio_pci.ko.xz: kernel/a.ko\nkernel/x.ko: kernel/y.ko";
        let files = with_dependencies(list, &["9p", "virtio_pci", "overlay"]);
        let expected = [
            "kernel/a.ko",
            "kernel/drivers/virtio/virtio_pci.ko.xz",
            "kernel/fs/9p/9p.ko",
            "kernel/fs/netfs/netfs.ko",
            "kernel/net/9p/9pnet.ko",
        ];
        assert_eq!(files, expected.map(str::to_owned).into());
    }

    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}

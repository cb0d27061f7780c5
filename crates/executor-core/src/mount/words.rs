//! A mount as `--mount` has it: words between commas, also those of docker and podman.

use std::path::PathBuf;

use super::{Mount, MountSource};
use crate::InvalidSpec;
use crate::spec::invalid;

/// Words of docker and podman that are not taken, and what to do. A word ends at its `=`; the last part of one that ends in `-` is
/// any.
const NOT_TAKEN: [(&[&str], &str); 6] = [
    (
        &["volume-", "image-"],
        "there are no volumes and images: give a directory of the host, and selector= for a path below it",
    ),
    (&["subpath"], "selector= is for a path below the source"),
    (&["bind-create-src"], "make the source before"),
    (
        &["bind-recursive", "bind-nonrecursive"],
        "what is mounted below the source comes with it, and is read-only with it; give the directories one by one",
    ),
    (&["relabel", "z", "Z"], "set the label on the host, with chcon, or choose one with --selinux"),
    (&["U", "chown"], "change the owner on the host, with chown"),
];

/// Kinds of docker and podman that are not taken, and what to do.
const NO_KINDS: [(&str, &str); 6] = [
    ("volume", "there are no volumes: give type=bind and a directory of the host"),
    ("image", "there are no images: give type=bind and a directory of the host"),
    ("artifact", "there are no images: give type=bind and a file of the host"),
    ("cluster", "there are no volumes: give type=bind and a directory of the host"),
    ("glob", "give type=bind for each file"),
    ("npipe", "it is of Windows: give type=bind and a socket of the host"),
];

const PROPAGATION: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// What has been read.
#[derive(Default)]
struct Words<'a> {
    kind: Option<&'a str>,
    source: Option<&'a str>,
    selector: Option<PathBuf>,
    destination: Option<&'a str>,
    read_only: bool,
    options: Vec<String>,
    /// Words for one kind only, with that kind.
    bound: Vec<(&'static str, &'a str)>,
}

pub(super) fn read(text: &str) -> Result<Mount, InvalidSpec> {
    let record = record(text)?;
    super::once::check(record.iter())?;
    let mut words = Words::default();
    record.iter().try_for_each(|word| words.take(word))?;
    let kind = words.kind.unwrap_or("bind");
    if let Some((_, why)) = NO_KINDS.iter().find(|(known, _)| *known == kind) {
        return Err(invalid("mount", format!("type={kind}: {why}")));
    }
    if let Some((of, word)) = words.bound.iter().find(|(of, _)| *of != kind) {
        return Err(invalid("mount", format!("{word:?} is for type={of}")));
    }
    let path = |path: Option<&str>, what: &str| {
        path.filter(|path| !path.is_empty()).map(str::to_owned).ok_or_else(|| {
            invalid("mount", format!("{text:?}: give {what}=, as in type=bind,source=/a,destination=/b"))
        })
    };
    let destination = path(words.destination, "destination")?;
    let source = match (kind, words.source) {
        ("bind", source) => {
            MountSource::Bind { path: path(source, "source")?.into(), selector: words.selector }
        }
        (_, _) if words.selector.is_some() => {
            return Err(invalid("mount", "only a bind mount has a selector"));
        }
        ("tmpfs", None) => MountSource::Tmpfs,
        ("tmpfs", Some(_)) => return Err(invalid("mount", "a tmpfs has no source")),
        (kind, source) => {
            MountSource::FileSystem { kind: kind.to_owned(), source: source.unwrap_or(kind).to_owned() }
        }
    };
    let (read_only, options) = (words.read_only, words.options);
    Ok(Mount { source, destination: destination.into(), read_only, options })
}

impl<'a> Words<'a> {
    fn take(&mut self, word: &'a str) -> Result<(), InvalidSpec> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match (key, value) {
            ("type", value) => self.kind = Some(value),
            ("source" | "src", value) => self.source = Some(value),
            ("destination" | "dst" | "target", value) => self.destination = Some(value),
            ("selector", value) => self.selector = Some(PathBuf::from(value)),
            ("readonly" | "ro", value) => self.read_only = truth(word, value)?,
            ("rw" | "readwrite", value) => self.read_only = !truth(word, value)?,
            ("bind-propagation", value) if PROPAGATION.contains(&value) => {
                self.bound.push(("bind", word));
                self.options.push(value.to_owned());
            }
            ("bind-propagation", _) => {
                return Err(invalid("mount", format!("{word:?}: give one of {}", PROPAGATION.join(", "))));
            }
            // It is so anyway.
            ("bind-recursive", "enabled" | "readonly")
            | ("bind-nonrecursive", "false" | "0")
            | ("consistency", "consistent" | "cached" | "delegated" | "default")
            | ("notmpcopyup", "") => {}
            ("tmpfs-size", value) => {
                self.bound.push(("tmpfs", word));
                self.options.push(format!("size={}", size(word, value)?));
            }
            ("tmpfs-mode", value) => {
                self.bound.push(("tmpfs", word));
                let is_mode = u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777);
                if !is_mode {
                    return Err(invalid("mount", format!("{word:?}: give a mode such as 1770")));
                }
                self.options.push(format!("mode={value}"));
            }
            _ => self.take_other(key, word)?,
        }
        Ok(())
    }

    fn take_other(&mut self, key: &str, word: &str) -> Result<(), InvalidSpec> {
        let is_of = |known: &&str| key == *known || known.ends_with('-') && key.starts_with(known);
        if let Some((_, why)) = NOT_TAKEN.iter().find(|(known, _)| known.iter().any(is_of)) {
            return Err(invalid("mount", format!("{word:?}: {why}")));
        }
        self.options.push(word.to_owned());
        Ok(())
    }
}

/// A truth as docker reads it; no value is true.
fn truth(word: &str, value: &str) -> Result<bool, InvalidSpec> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(invalid("mount", format!("{word:?}: give true or false"))),
    }
}

/// A size as docker has it, such as `64m`, `64MB` or `64MiB`, in the form of the kernel.
fn size(word: &str, value: &str) -> Result<String, InvalidSpec> {
    let lower = value.to_lowercase();
    let short = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let number = short.trim_end_matches(['k', 'm', 'g', 't']);
    let is_size = short.len() - number.len() <= 1 && number.parse::<u64>().is_ok();
    is_size
        .then(|| short.to_owned())
        .ok_or_else(|| invalid("mount", format!("{word:?}: give a size such as 64m")))
}

/// The words between commas, which may be quoted.
fn record(text: &str) -> Result<csv::StringRecord, InvalidSpec> {
    let unusable = || invalid("mount", format!("{text:?}: give one line of words between commas"));
    let mut lines = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes()).into_records();
    let words = lines.next().and_then(Result::ok).ok_or_else(unusable)?;
    if lines.next().is_some() { Err(unusable()) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_docker_and_podman() {
        let options = |text: &str| read(text).map(|mount| mount.options.join(" ")).map_err(|error| error.why);
        let tmpfs = |words: &str| options(&format!("type=tmpfs,dst=/t,{words}"));
        assert_eq!(tmpfs("tmpfs-size=64m,tmpfs-mode=1770"), Ok("size=64m mode=1770".into()));
        assert_eq!(tmpfs("tmpfs-size=64MiB"), Ok("size=64m".into()));
        assert_eq!(tmpfs("tmpfs-size=1048576"), Ok("size=1048576".into()));
        let bind = |words: &str| options(&format!("src=/a,dst=/b,{words}"));
        assert_eq!(bind("bind-propagation=rslave,consistency=cached"), Ok("rslave".into()));
        assert_eq!(bind("bind-recursive=enabled,bind-nonrecursive=false"), Ok(String::new()));
        let is_read_only = |words: &str| read(&format!("src=/a,dst=/b,{words}")).map(|mount| mount.read_only);
        for (words, expected) in [
            ("ro=true", true),
            ("ro=false", false),
            ("readonly=1", true),
            ("readonly", true),
            ("rw=false", true),
            ("readonly=0", false),
        ] {
            assert_eq!(is_read_only(words).ok(), Some(expected), "{words}");
        }
        for (text, why) in [
            ("type=volume,src=x,dst=/b", "there are no volumes"),
            ("type=image,src=x,dst=/b", "there are no images"),
            ("src=/a,dst=/b,volume-nocopy", "there are no volumes"),
            ("src=/a,dst=/b,volume-opt=x=y", "there are no volumes"),
            ("src=/a,dst=/b,bind-recursive=disabled", "comes with it"),
            ("src=/a,dst=/b,bind-nonrecursive", "comes with it"),
            ("src=/a,dst=/b,bind-propagation=noexec", "give one of private"),
            ("src=/a,dst=/b,tmpfs-size=1m", "is for type=tmpfs"),
            ("type=tmpfs,dst=/b,bind-propagation=shared", "is for type=bind"),
            ("type=tmpfs,dst=/b,tmpfs-size=much", "give a size such as 64m"),
            ("type=tmpfs,dst=/b,tmpfs-mode=rwx", "give a mode such as 1770"),
            ("src=/a,dst=/b,ro=perhaps", "give true or false"),
            ("src=/a,dst=/b,relabel=shared", "chcon"),
            ("src=/a,dst=/b,U", "chown"),
        ] {
            assert!(options(text).is_err_and(|error| error.contains(why)), "{text}: {:?}", options(text));
        }
    }
}

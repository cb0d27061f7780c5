//! Words of a mount that may be there once: of two values, one would be lost.

use crate::InvalidSpec;
use crate::spec::invalid;

/// Keys that mean the same, in each line.
const KEYS: [&[&str]; 9] = [
    &["type"],
    &["source", "src"],
    &["destination", "dst", "target"],
    &["selector"],
    &["readonly", "ro", "rw", "readwrite"],
    &["size", "tmpfs-size"],
    &["mode", "tmpfs-mode"],
    &["uid"],
    &["gid"],
];

/// Refuses words with two values for one key.
pub(super) fn check<'a>(words: impl Iterator<Item = &'a str>) -> Result<(), InvalidSpec> {
    let mut first = [None; KEYS.len()];
    for word in words {
        let key = word.split_once('=').map_or(word, |(key, _)| key);
        let known = KEYS.iter().zip(&mut first).find(|(names, _)| names.contains(&key));
        if let Some(other) = known.and_then(|(_, first)| first.replace(word)) {
            return Err(invalid("mount", format!("{other:?} and {word:?}: give one of them")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_value() {
        let taken = |text: &str| check(text.split(',')).is_ok();
        assert!(taken("type=bind,src=/a,dst=/b,ro,nosuid,noexec") && taken("lowerdir+=/a,lowerdir+=/b"));
        for twice in
            ["dst=/a,dst=/b", "dst=/a,target=/a", "src=/a,source=/b", "ro,rw", "size=1m,tmpfs-size=2m"]
        {
            assert!(!taken(twice), "{twice}");
        }
    }
}

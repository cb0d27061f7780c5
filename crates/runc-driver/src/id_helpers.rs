//! newuidmap(1) and newgidmap(1), which a runtime calls to map the ids of an ordinary user's container.
//!
//! What they say of a failure they would write to the program's stderr, because that is the runtime's, too. crun calls them even
//! where it can do without: then the program runs, and has their words in its output. So a runtime finds these first, which
//! call the others without a stderr. If an id cannot be mapped, the runtime says so in its log.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use executor_disk::Dir;
use rustix::process::geteuid;

use crate::find::find_runtime;

const HELPERS: [&str; 2] = ["newuidmap", "newgidmap"];

/// Where they are in a bundle.
const DIR: &str = "helpers";

/// Writes them to a bundle, if a runtime of this user's may call them.
pub(crate) fn write(bundle: &Dir) -> io::Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    let dir = bundle.make_dir(DIR, 0o700)?;
    for name in HELPERS {
        if let Ok(helper) = find_runtime(&[name]) {
            dir.write_new(name, &script(&helper), 0o700)?;
        }
    }
    Ok(())
}

/// A runtime's PATH for that bundle, if its own is `path`.
pub(crate) fn path(bundle: &Path, path: OsString) -> OsString {
    if geteuid().is_root() {
        return path;
    }
    let dirs = [bundle.join(DIR)].into_iter().chain(env::split_paths(&path));
    // A colon in its name.
    env::join_paths(dirs).unwrap_or(path)
}

fn script(helper: &Path) -> Vec<u8> {
    let quoted: Vec<u8> = helper
        .as_os_str()
        .as_bytes()
        .iter()
        .flat_map(|byte| if *byte == b'\'' { br"'\''".to_vec() } else { vec![*byte] })
        .collect();
    [b"#!/bin/sh\nexec '", quoted.as_slice(), b"' \"$@\" 2>/dev/null\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_have_any_characters() {
        let text = String::from_utf8(script(Path::new("/a b/it's $x/newuidmap"))).unwrap();
        assert!(text.contains(r#"exec '/a b/it'\''s $x/newuidmap' "$@""#), "{text}");
    }
}

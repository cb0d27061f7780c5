//! `cargo xtask seccomp-profile FILE`: takes a newer profile of containers-common over, and says what becomes different.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Done;

pub(crate) const USAGE: &str = "\
cargo xtask seccomp-profile FILE
                      take the seccomp.json of a newer containers-common over, and show what becomes different";

/// The rules on each system call, in a form that can be compared and read.
type Rules = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn seccomp_profile(args: &[String]) -> Done {
    let [file] = args else { return Err(USAGE.into()) };
    let data = data();
    let (new, old) = (read(Path::new(file))?, read(&data)?);
    let (rules, known) = (rules(&new)?, rules(&old)?);
    for line in differences(&known, &rules) {
        println!("{line}");
    }
    // Beside the rules there are the default and the architectures.
    for part in ["defaultAction", "defaultErrnoRet", "archMap"] {
        if old[part] != new[part] {
            println!("{part}: {} was {}", new[part], old[part]);
        }
    }
    fs::copy(file, &data).map_err(|error| format!("{}: {error}", data.display()))?;
    println!(
        "{} is that of {file}. What Longshore changes is in seccomp/ours.rs; say in data/README.md which version it is",
        data.display()
    );
    Ok(())
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/executor-bundle/data/seccomp.json")
}

fn read(file: &Path) -> Result<Value, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// The rules of a profile. Fails if it is none.
fn rules(profile: &Value) -> Result<Rules, String> {
    let all = profile["syscalls"].as_array().filter(|all| !all.is_empty());
    let mut rules = Rules::new();
    for rule in all.ok_or("this is no profile: it has no `syscalls`")? {
        let names = rule["names"].as_array().ok_or_else(|| format!("a rule without `names`: {rule}"))?;
        let action = rule["action"].as_str().ok_or_else(|| format!("a rule without an `action`: {rule}"))?;
        let mut text = action.trim_start_matches("SCMP_ACT_").to_lowercase();
        for part in ["errnoRet", "args", "includes", "excludes"] {
            let is_empty = match &rule[part] {
                Value::Null => true,
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
            };
            if !is_empty {
                text += &format!(" {part} {}", rule[part]);
            }
        }
        for name in names.iter().filter_map(Value::as_str) {
            rules.entry(name.to_owned()).or_default().insert(text.clone());
        }
    }
    Ok(rules)
}

/// A line for each system call whose rules are not the same.
fn differences(old: &Rules, new: &Rules) -> Vec<String> {
    let calls: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let of = |rules: &Rules, call: &String| {
        let text = rules.get(call).map(|rules| rules.iter().cloned().collect::<Vec<_>>().join("; "));
        text.unwrap_or_else(|| "nothing".into())
    };
    let is_changed = |call: &&&String| old.get(**call) != new.get(**call);
    calls
        .iter()
        .filter(is_changed)
        .map(|call| format!("{call}: {} was {}", of(new, call), of(old, call)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Rules {
        rules(&serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn what_becomes_different_is_said_for_each_call() {
        let old = of(r#"{"syscalls": [
            {"names": ["same", "gone", "other"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}},
            {"names": ["order"], "action": "SCMP_ACT_ALLOW"}, {"names": ["order"], "action": "SCMP_ACT_LOG"}]}"#);
        let new = of(r#"{"syscalls": [
            {"names": ["order"], "action": "SCMP_ACT_LOG"}, {"names": ["order", "same", "new"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["other"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_BPF"]}}]}"#);
        assert_eq!(
            differences(&old, &new),
            [
                "gone: nothing was allow",
                "new: allow was nothing",
                r#"other: errno errnoRet 1 excludes {"caps":["CAP_BPF"]} was allow"#
            ]
        );
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for text in [
            "{}",
            r#"{"syscalls": []}"#,
            r#"{"syscalls": [{"action": "SCMP_ACT_ALLOW"}]}"#,
            r#"{"syscalls": [{"names": ["a"]}]}"#,
        ] {
            assert!(rules(&serde_json::from_str(text).unwrap()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_data_is_a_profile() {
        assert!(rules(&read(&data()).unwrap()).unwrap().len() > 400);
    }
}

//! What the project depends on has a licence that `deny.toml` allows: what `cargo deny check licenses` looks at, for
//! machines without it.

use std::process::Command;

use serde_json::Value;
use spdx::{Expression, LicenseItem, ParseMode};

fn is_allowed(licence: &str, allowed: &[Expression]) -> bool {
    let expression = Expression::parse_mode(licence, ParseMode::LAX);
    expression.is_ok_and(|expression| {
        expression.evaluate(|asked| {
            allowed.iter().any(|licence| {
                licence.requirements().any(|one| {
                    let same = match (&one.req.license, &asked.license) {
                        (LicenseItem::Spdx { id: one, .. }, LicenseItem::Spdx { id: other, .. }) => {
                            one == other
                        }
                        (one, other) => one == other,
                    };
                    same && one.req.addition == asked.addition
                })
            })
        })
    })
}

#[test]
fn licences_are_those_that_are_allowed() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let deny: toml::Table = std::fs::read_to_string(format!("{root}/deny.toml")).unwrap().parse().unwrap();
    let texts = |value: &toml::Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let allowed: Vec<_> =
        texts(&deny["licenses"]["allow"]).iter().map(|text| Expression::parse(text).unwrap()).collect();
    assert!(is_allowed("Apache-2.0/MIT", &allowed));
    assert!(!is_allowed("GPL-3.0-only", &allowed) && !is_allowed("MIT AND GPL-3.0-only", &allowed));

    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["metadata", "--format-version", "1", "--locked", "--all-features"]);
    for target in texts(&deny["graph"]["targets"]) {
        cargo.args(["--filter-platform", &target]);
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "{}", packages.len());
    for package in packages.iter().filter(|package| !package["source"].is_null()) {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(is_allowed(licence, &allowed), "{} has {licence}", package["name"]);
    }
}

//! Builds the programs that the library carries, each as a static program. If there is no static C library, the crate is
//! built without them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 2] = ["init", "subreaper"];

const OPTIONS: [&str; 5] =
    ["target-feature=+crt-static", "relocation-model=static", "opt-level=s", "panic=abort", "strip=symbols"];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_static_programs)");
    let mut built = Ok(());
    for name in PROGRAMS {
        println!("cargo::rerun-if-changed={name}/main.rs");
        built = built.and_then(|()| build(name));
    }
    match built {
        Ok(()) => println!("cargo::rustc-cfg=has_static_programs"),
        Err(why) => println!("cargo::warning=no static programs: {why}"),
    }
}

fn variable(name: &str) -> PathBuf {
    env::var_os(name).map(PathBuf::from).unwrap_or_default()
}

fn build(name: &str) -> Result<(), String> {
    let program = variable("OUT_DIR").join(format!("longshore-{name}"));
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition", "2024", "--deny", "warnings", "--deny", "unsafe_code"]);
    rustc.arg("--crate-name").arg(format!("longshore_{name}"));
    for option in OPTIONS {
        rustc.args(["-C", option]);
    }
    rustc
        .arg("--target")
        .arg(variable("TARGET"))
        .arg(Path::new(name).join("main.rs"))
        .arg("-o")
        .arg(&program);
    match rustc.output() {
        Ok(built) if built.status.success() => Ok(()),
        Ok(failed) => {
            Err(String::from_utf8_lossy(&failed.stderr).lines().next().unwrap_or_default().to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

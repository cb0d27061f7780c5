//! Builds `init/main.rs`, the process 1 of containers that ask for one, as a static program. If there is no static C
//! library, the crate is built without it, and such containers are refused.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=init/main.rs");
    println!("cargo::rustc-check-cfg=cfg(has_init)");
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).unwrap_or_default();
    let program = variable("OUT_DIR").join("longshore-init");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args([
        "--edition",
        "2024",
        "--crate-name",
        "longshore_init",
        "--deny",
        "warnings",
        "--deny",
        "unsafe_code",
    ]);
    for option in [
        "target-feature=+crt-static",
        "relocation-model=static",
        "opt-level=s",
        "panic=abort",
        "strip=symbols",
    ] {
        rustc.args(["-C", option]);
    }
    rustc.arg("--target").arg(variable("TARGET")).arg("init/main.rs").arg("-o").arg(&program);
    match rustc.output() {
        Ok(built) if built.status.success() => println!("cargo::rustc-cfg=has_init"),
        Ok(failed) => {
            let words = String::from_utf8_lossy(&failed.stderr).into_owned();
            println!("cargo::warning=no static process 1: {}", words.lines().next().unwrap_or_default());
        }
        Err(error) => println!("cargo::warning=no static process 1: {error}"),
    }
}

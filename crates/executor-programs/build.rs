//! Builds the programs that the library carries, each as a static program. If there is no static C library, the crate is
//! built without those that need one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 2] = ["init", "subreaper"];

const OPTIONS: [&str; 5] =
    ["target-feature=+crt-static", "relocation-model=static", "opt-level=s", "panic=abort", "strip=symbols"];

/// The keeper has no library at all. Its system calls are written for these architectures.
const KEEPER: &str = "keeper";
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];
const KEEPER_OPTIONS: [&str; 5] =
    ["lto", "codegen-units=1", "link-arg=-nostartfiles", "link-arg=-nostdlib", "link-arg=-static"];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_static_programs, has_keeper)");
    let mut built = Ok(());
    for name in PROGRAMS {
        println!("cargo::rerun-if-changed={name}/main.rs");
        built = built.and_then(|()| build(name, &[]));
    }
    match built {
        Ok(()) => println!("cargo::rustc-cfg=has_static_programs"),
        Err(why) => println!("cargo::warning=no static programs: {why}"),
    }
    println!("cargo::rerun-if-changed={KEEPER}");
    println!("cargo::rustc-env=LONGSHORE_KEEPER_HASH={:016x}", hash_below(Path::new(KEEPER)));
    if ARCHITECTURES.iter().any(|architecture| variable("CARGO_CFG_TARGET_ARCH") == Path::new(architecture)) {
        match build(KEEPER, &KEEPER_OPTIONS) {
            Ok(()) => println!("cargo::rustc-cfg=has_keeper"),
            Err(why) => println!("cargo::warning=no keeper: {why}"),
        }
    }
}

fn variable(name: &str) -> PathBuf {
    env::var_os(name).map(PathBuf::from).unwrap_or_default()
}

fn build(name: &str, more_options: &[&str]) -> Result<(), String> {
    let program = variable("OUT_DIR").join(format!("longshore-{name}"));
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition", "2024", "--deny", "warnings", "--deny", "unsafe_code"]);
    rustc.arg("--crate-name").arg(format!("longshore_{name}"));
    for option in OPTIONS.iter().chain(more_options) {
        rustc.args(["-C", option]);
    }
    rustc
        .env("LONGSHORE_KEEPER_HASH", format!("{:016x}", hash_below(Path::new(KEEPER))))
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

/// A hash of the files below a directory (FNV-1a). It tells two keepers apart, and protects from nothing.
fn hash_below(path: &Path) -> u64 {
    fn add(hash: u64, path: &Path) -> u64 {
        let Ok(entries) = path.read_dir() else {
            let bytes = std::fs::read(path).unwrap_or_default();
            return bytes
                .iter()
                .fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths.iter().fold(hash, |hash, path| add(hash, path))
    }
    add(0xcbf2_9ce4_8422_2325, path)
}

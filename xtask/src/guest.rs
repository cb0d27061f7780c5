//! The tests on the real runtime in a virtual machine: on another kernel, and on the hierarchies of cgroups that it mounts.
//!
//! The test programs are built here. The guest has this machine's root, read-only, as the lower layer of an overlay on a tmpfs. It
//! runs the programs one after another and writes what they say to a serial line. Then it powers off.

mod kernel;
mod machine;
mod options;
mod report;
mod script;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::kernel::Kernel;
use self::options::{Options, name_and_filter};
use crate::{Done, cargo_command, run, setup, without_variables_of_ours};

pub(crate) use self::options::USAGE;

/// What the guest needs here: a program, and the package that has it.
const PROGRAMS: [(&str, &str); 3] =
    [("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static"), ("xz", "xz-utils")];

/// Runs the suites that `args` choose.
pub(crate) fn guest(args: &[String]) -> Done {
    let options = Options::parse(args)?;
    setup::setup_for_tests("guest")?;
    setup::install_missing(&PROGRAMS)?;
    // As `cargo xtask test` builds them: the programs are the same.
    run(&mut cargo_command(&["build", "--workspace", "--bins", "--examples"]))?;
    let programs = test_programs(&options.suites)?;
    let dir = directory()?;
    let kernel = Kernel::get(&options.kernel, &dir)?;
    let (target, built, script) = (target()?, dir.join("programs"), dir.join("run"));
    keep_programs(&target.join("debug"), &built)?;
    write(&script, &script::suites(&options, &kernel, &programs, &built, &target))?;
    eprintln!("guest: Linux {}, {}; {}", kernel.version, options.hierarchy.name(), options.suites.join(" "));
    let results = machine::run(&kernel, &script, &dir, options.silence)?;
    let table = report::Table::new(&options, &results);
    println!("\nLinux {}, {}\n{table}", kernel.version, options.hierarchy.name());
    match table.is_good() {
        true => Ok(()),
        false => {
            Err(format!("guest: see above; the kernel's messages are in {}", dir.join("console").display()))
        }
    }
}

/// What `test` runs: nothing where the guest's programs and kernel cannot be had, with a sentence that says so.
pub(crate) fn guest_in_ci() -> Done {
    let needed = setup::install_missing(&PROGRAMS)
        .and_then(|()| Kernel::get(&Options::parse(&["--quick".into()])?.kernel, &directory()?));
    match needed {
        Ok(_) => guest(&["--quick".into()]),
        Err(why) => {
            eprintln!(
                "guest: SKIPPED: the tests were not run on another kernel, as what it takes cannot be had: {why}"
            );
            Ok(())
        }
    }
}

/// A suite's name, and its program.
type Program = (String, PathBuf);

/// Builds the test programs, and asks cargo where they are.
fn test_programs(suites: &[String]) -> Result<Vec<Program>, String> {
    let mut command = cargo_command(&["test", "--workspace", "--no-run"]);
    command.args(suites.iter().flat_map(|suite| ["--test", name_and_filter(suite).0]));
    let output =
        without_variables_of_ours(&mut command).output().map_err(|error| format!("cargo: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("the test programs cannot be built:\n{said}"));
    }
    let found = report::executables(&said);
    let of = |suite: &String| {
        let program = found.iter().find(|(name, _)| name == name_and_filter(suite).0);
        let (_, path) = program.ok_or_else(|| format!("cargo has built no {suite}"))?;
        let path = fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok((suite.clone(), path))
    };
    suites.iter().map(of).collect()
}

/// Keeps the programs as they are, by links, whatever cargo builds while the guest runs.
fn keep_programs(debug: &Path, kept: &Path) -> Done {
    let _none = fs::remove_dir_all(kept);
    for dir in ["", "deps", "examples"] {
        let (from, to) = (debug.join(dir), kept.join(dir));
        fs::create_dir_all(&to).map_err(|error| format!("{}: {error}", to.display()))?;
        for entry in fs::read_dir(&from).into_iter().flatten().flatten() {
            let is_program =
                entry.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
            if is_program && entry.path().extension().is_none() {
                let kept = fs::hard_link(entry.path(), to.join(entry.file_name()));
                kept.map_err(|error| format!("{}: {error}", entry.path().display()))?;
            }
        }
    }
    Ok(())
}

/// Where everything of the guest's is.
fn directory() -> Result<PathBuf, String> {
    let dir = target()?.join("guest");
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(dir)
}

/// This workspace's target directory: this program is target/debug/xtask.
fn target() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    own.ancestors().nth(2).map(Path::to_owned).ok_or_else(|| "there is no target directory".into())
}

fn write(path: &Path, text: &str) -> Done {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Runs a program, and returns its stdout.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{command:?}: {}\n{said}", output.status))
        }
    }
}

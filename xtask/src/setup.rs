//! Sets up what containers need: a runtime, and the right to use it.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use crate::Done;

/// What is installed if there is no runtime, and what else is accepted.
const RUNC: &str = "runc";
const OTHERS: [&str; 2] = ["crun", "youki"];

/// A package manager, what it needs before it can install, and how it installs.
struct Manager {
    program: &'static str,
    refresh: &'static [&'static str],
    install: &'static [&'static str],
}

const MANAGERS: [Manager; 6] = [
    Manager {
        program: "apt-get",
        refresh: &["update"],
        install: &["install", "--yes", "--no-install-recommends"],
    },
    Manager { program: "dnf", refresh: &[], install: &["install", "--assumeyes"] },
    Manager { program: "yum", refresh: &[], install: &["install", "--assumeyes"] },
    Manager { program: "zypper", refresh: &[], install: &["--non-interactive", "install"] },
    Manager { program: "apk", refresh: &["update"], install: &["add"] },
    Manager { program: "pacman", refresh: &[], install: &["--sync", "--refresh", "--noconfirm"] },
];

/// What only tests need: a program, and the package that has it. If a package is not available, the tests that need
/// it say so.
const FOR_TESTS: [(&str, &str); 7] = [
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("newuidmap", "uidmap"),
    ("ip", "iproute2"),
    ("crun", "crun"),
    ("tmux", "tmux"),
    ("vim", "vim"),
    ("less", "less"),
];

/// Does as `setup`, and installs what tests need.
pub(crate) fn setup_for_tests(task: &str) -> Done {
    setup(task)?;
    install_missing(&FOR_TESTS)
}

/// Installs the packages of those programs that are not here.
pub(crate) fn install_missing(programs: &[(&str, &str)]) -> Done {
    let missing: Vec<_> = programs.iter().filter(|(program, _)| find(&[program]).is_none()).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => install(&missing.into_iter().map(|(_, package)| *package).collect::<Vec<_>>()),
    }
}

/// Installs a runtime if there is none. As an ordinary user, returns the command that does; `task` is the command to
/// run then.
pub(crate) fn setup(task: &str) -> Done {
    let root = is_root()?;
    let missing = runtime().is_none();
    if !root {
        let mut command = format!(
            "sudo env HOME=\"$HOME\" PATH=\"$PATH:/usr/sbin:/sbin\" {} xtask {task}",
            env::var("CARGO").unwrap_or_else(|_| "cargo".into())
        );
        if missing {
            command.push_str("   (it installs runc as well)");
        }
        return Err(format!("containers are run as root; type:\n\n    {command}\n"));
    }
    if missing {
        install(&[RUNC])?;
    }
    match runtime() {
        Some(runtime) => {
            eprintln!("runtime: {}", runtime.display());
            Ok(())
        }
        None => Err(format!("{RUNC} was installed and is not on PATH")),
    }
}

/// Finds a runtime that works here. On a host with hybrid cgroups only runc does.
fn runtime() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let has = |kind| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    let hybrid = has("cgroup") && has("cgroup2");
    find(&[RUNC]).or_else(|| if hybrid { None } else { find(&OTHERS) })
}

fn install(packages: &[&str]) -> Done {
    let manager = MANAGERS.iter().find(|manager| find(&[manager.program]).is_some());
    let Some(Manager { program, refresh, install }) = manager else {
        return Err(format!(
            "there is no package manager that is known here; install {} and try again",
            packages.join(" ")
        ));
    };
    let command = |args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    eprintln!("installing {}", packages.join(", "));
    if !refresh.is_empty() {
        quietly(&mut command(refresh))?;
    }
    quietly(command(install).args(packages))
}

/// Runs a package manager, and shows its output only if it fails.
fn quietly(command: &mut Command) -> Done {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = [output.stdout, output.stderr].concat();
            Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&said)))
        }
    }
}

fn find(programs: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = env::split_paths(&path).collect();
    programs.iter().find_map(|program| dirs.iter().map(|dir| dir.join(program)).find(|file| file.is_file()))
}

fn is_root() -> Result<bool, String> {
    let own =
        std::fs::metadata("/proc/self").map_err(|error| format!("/proc: {error}; containers need Linux"))?;
    Ok(own.uid() == 0)
}

//! The `longshore` command, built and called as a user would.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The variable with the directory of the programs that were built before: `cargo xtask guest` sets it.
pub const PROGRAMS_VARIABLE: &str = "LONGSHORE_TEST_PROGRAMS";

/// The command's program, built from this workspace.
pub fn program() -> PathBuf {
    built().join("longshore")
}

/// An example's program, built from this workspace.
pub fn example(name: &str) -> PathBuf {
    built().join("examples").join(name)
}

/// Where the programs of this workspace are, of the same profile as this test. They are built just as `cargo xtask test`
/// has built them: asked for one by one, the crates would have other features, and be built again. Where there is no cargo,
/// [`PROGRAMS_VARIABLE`] names the directory.
///
/// # Panics
/// When they cannot be built.
#[expect(clippy::expect_used, reason = "a test cannot go on without")]
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(programs) = std::env::var_os(PROGRAMS_VARIABLE) {
            return programs.into();
        }
        // This test's own program is target/debug/deps/….
        let own = std::env::current_exe().expect("a path of our own");
        let profile = own.ancestors().nth(2).expect("a target directory");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--workspace", "--bins", "--examples"]);
        // Build scripts would run again if these variables of cargo changed.
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in names.filter(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            build.env_remove(name);
        }
        build.arg("--target-dir").arg(profile.parent().expect("a target directory"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo");
        assert!(built.success(), "the workspace's programs cannot be built");
        profile.to_owned()
    })
}

/// What a call of the command came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// The command on `root`, ready to be given arguments.
pub fn longshore(root: &Path) -> Command {
    let mut command = Command::new(program());
    command.arg("--root").arg(root);
    command.args(crate::named_runtime().map(|name| format!("--runtime={name}")));
    command
}

/// Calls the command with these arguments.
///
/// # Panics
/// When it cannot be executed.
#[expect(clippy::expect_used, reason = "a test cannot go on without")]
pub fn call(root: &Path, args: &[&str]) -> Outcome {
    let mut command = longshore(root);
    if args.first() == Some(&"sweep") {
        // It uses no runtime, and takes none.
        command = Command::new(program());
        command.arg("--root").arg(root);
    }
    command.args(args).output().expect("the command").into()
}

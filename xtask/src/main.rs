//! The commands of the project. `demo` and `test` set up a machine that has nothing but Rust; the others are parts of
//! `test`.

mod guest;
mod seccomp_profile;
mod setup;

use std::env;
use std::process::{Command, ExitCode};

const USAGE: &str = "\
cargo xtask demo      install a runtime if there is none, then run a short orchestration
cargo xtask test      the same set-up, then all tests, doc tests, the format, clippy, and the documentation
cargo xtask setup     the set-up alone
cargo xtask check     what needs no runtime: format, clippy, features, documentation
cargo xtask fmt       format everything
cargo xtask doc       build the documentation
cargo xtask examples  run every example, on the simulator and on the runtime
cargo xtask pages     completions for shells and manual pages of the command, in target/pages
cargo xtask bench     measure against the bare runtimes, in the same run: see --help of it; --quick, --json FILE, --plot FILE
cargo xtask chaos     make embedders suffer, and count what is left: --seconds N (60), --seed S
cargo xtask soak      thousands of execs and runs in one process, and what it has then: --execs N, --runs N (10000)
cargo xtask attack    the hostile tests, each race for longer: --seconds N (60)
cargo xtask crun      the tests on the real runtime with crun in runc's place, where it can run
cargo xtask model     walk all of the lifecycle's state space: minutes, and some gigabytes";

type Done = Result<(), String>;

fn main() -> ExitCode {
    let task = env::args().nth(1).unwrap_or_default();
    let done = match task.as_str() {
        "demo" => demo(),
        "test" => test(),
        "setup" => setup::setup(&task),
        "check" => check(),
        "fmt" => cargo(&["fmt", "--all"]),
        "doc" => document(),
        "examples" => examples(),
        "pages" => pages(),
        "bench" => bench(&env::args().skip(2).collect::<Vec<_>>()),
        "chaos" => chaos(&env::args().skip(2).collect::<Vec<_>>()),
        "soak" => soak(&env::args().skip(2).collect::<Vec<_>>()),
        "attack" => attack(&env::args().skip(2).collect::<Vec<_>>()),
        "crun" => crun(),
        "guest" => guest::guest(&env::args().skip(2).collect::<Vec<_>>()),
        "seccomp-profile" => seccomp_profile::seccomp_profile(&env::args().skip(2).collect::<Vec<_>>()),
        "model" => model(),
        _ => Err(format!("{USAGE}\n{}\n{}", seccomp_profile::USAGE, guest::USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Done {
    setup::setup("demo")?;
    example("demo", &[])
}

fn test() -> Done {
    setup::setup_for_tests("test")?;
    // The tests call the command and the examples as their users do.
    cargo(&["build", "--workspace", "--bins", "--examples"])?;
    cargo(&["test", "--workspace", "--lib", "--bins", "--tests"])?;
    crun()?;
    guest::guest_in_ci()?;
    cargo(&["test", "--workspace", "--doc"])?;
    check()
}

fn check() -> Done {
    format_check()?;
    clippy()?;
    features()?;
    document()
}

/// The library as an embedder builds it: with no feature, and with each alone. The workspace builds all of them at once.
fn features() -> Done {
    for feature in ["", "cdi", "metrics", "schema", "sim"] {
        cargo(&["check", "--package", "longshore", "--features", feature])?;
    }
    Ok(())
}

fn format_check() -> Done {
    cargo(&["fmt", "--all", "--check"])
}

fn clippy() -> Done {
    cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])
}

/// As packages of distributions install them: `longshore.bash`, `_longshore`, `longshore.fish`, `longshore-run.1`, …
fn pages() -> Done {
    const DIRECTORY: &str = "target/pages";
    cargo(&["build", "--quiet", "--package", "longshore-cli"])?;
    run(Command::new("target/debug/longshore").args(["man", DIRECTORY]))?;
    for (shell, file) in [("bash", "longshore.bash"), ("zsh", "_longshore"), ("fish", "longshore.fish")] {
        let file = std::path::Path::new(DIRECTORY).join(file);
        let script = std::fs::File::create(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        run(Command::new("target/debug/longshore").args(["completion", shell]).stdout(script))?;
    }
    Ok(())
}

/// It is not part of `test`, because figures are no assertions.
fn bench(args: &[String]) -> Done {
    setup::setup_for_tests("bench")?;
    cargo(&["build", "--release", "--package", "longshore-bench", "--package", "longshore-cli"])?;
    run(Command::new("target/release/longshore-bench").args(args))
}

/// `test` runs a minute of it.
fn chaos(args: &[String]) -> Done {
    setup::setup("chaos")?;
    let mut command =
        cargo_command(&["run", "--quiet", "--package", "longshore-tests", "--bin", "chaos", "--"]);
    run(command.args(args))
}

/// `test` runs a few hundred of each.
fn soak(args: &[String]) -> Done {
    setup::setup("soak")?;
    let soak = ["run", "--quiet", "--release", "--package", "longshore-tests", "--bin", "soak", "--"];
    run(cargo_command(&soak).args(args))
}

/// `test` runs the same with races of two seconds.
fn attack(args: &[String]) -> Done {
    let seconds = match args {
        [] => "60",
        [option, seconds] if option == "--seconds" && seconds.parse::<u64>().is_ok() => seconds,
        _ => return Err(USAGE.into()),
    };
    setup::setup_for_tests("attack")?;
    // The tests call the command.
    cargo(&["build", "--package", "longshore-cli"])?;
    let mut command = cargo_command(&["test", "--package", "longshore-tests", "--test", "hostile"]);
    run(command.env("LONGSHORE_ATTACK_SECONDS", seconds))
}

/// The tests that other runtimes must pass as well. crun 1.8 refuses hybrid cgroups, so the unified hierarchy is
/// hidden from it in a mount namespace.
const ON_CRUN: [&str; 19] = [
    "behaviour",
    "command",
    "contract",
    "failure_modes",
    "given_program",
    "hostile",
    "ids",
    "lifecycle",
    "mounts",
    "network",
    "oom",
    "output",
    "ready",
    "rootfs",
    "shared",
    "shutdown",
    "strangers",
    "streams",
    "terminal",
];

/// Tests in these programs that take long and are of Longshore alone: whatever the runtime, they would do the same.
const NOT_ON_CRUN: [&str; 3] = ["emfile", "slow_readers", "tape_memory"];

fn crun() -> Done {
    setup::setup_for_tests("crun")?;
    // crun writes to the directory all the same: a tmpfs takes it, and is gone with the mount namespace.
    let script = "mount --make-rprivate / && if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified && mount -t tmpfs none /sys/fs/cgroup/unified; fi && exec \"$@\"";
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "crun"]).arg(cargo).args(["test", "--workspace"]);
    command.args(ON_CRUN.iter().flat_map(|test| ["--test", test])).env("LONGSHORE_TEST_RUNTIME", "crun");
    command.arg("--").args(NOT_ON_CRUN.iter().flat_map(|test| ["--skip", test]));
    run(&mut command)
}

/// `test` walks the part that takes seconds.
fn model() -> Done {
    cargo(&[
        "test",
        "--package",
        "longshore-executor-lifecycle",
        "--test",
        "model",
        "--",
        "--include-ignored",
        "--nocapture",
    ])
}

fn document() -> Done {
    run(cargo_command(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings"))
}

const EXAMPLES: [&str; 8] = [
    "hello",
    "pipeline",
    "scheduler",
    "supervisor",
    "recover",
    "fanout_cancel",
    "custom_runtime",
    "message_probe",
];

/// On the simulator, then on the runtime.
fn examples() -> Done {
    EXAMPLES.into_iter().try_for_each(|name| example(name, &[]))?;
    setup::setup("examples")?;
    EXAMPLES.into_iter().try_for_each(|name| example(name, &["--real"]))?;
    example("demo", &[])
}

fn example(name: &str, args: &[&str]) -> Done {
    let run = ["run", "--quiet", "--package", "longshore-examples", "--example", name, "--"];
    cargo(&[&run, args].concat())
}

fn cargo(args: &[&str]) -> Done {
    run(&mut cargo_command(args))
}

fn cargo_command(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

fn run(command: &mut Command) -> Done {
    let shown = format!("{command:?}").replace('"', "");
    eprintln!("+ {shown}");
    without_variables_of_ours(command);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown}: {status}")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// Build scripts would run again if these variables of cargo changed.
fn without_variables_of_ours(command: &mut Command) -> &mut Command {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
        command.env_remove(name);
    }
    command
}

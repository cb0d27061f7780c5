//! A crate as an embedder writes it: every Rust block of README.md and of the guide, verbatim, in a crate that depends on
//! `longshore` alone.
//!
//! The test writes a workspace of two crates outside of this workspace, builds it in debug and in release, and runs it:
//!
//! - `embedder` depends on `longshore`, with the feature `sim`, and on nothing else. It holds the blocks.
//! - `on-tokio` depends on `embedder` and on tokio. It runs the same blocks on tokio's two kinds of runtime.
//!
//! A block is put into a function, and that is all that is added to it:
//!
//! - A block that mentions `Simulation` goes into `pub fn NAME() { … }`. It runs on a thread without an async runtime.
//! - Every other block goes into `pub async fn NAME() -> Result<(), longshore::Error> { …; Ok(()) }`. It runs on the real
//!   runtime: on tokio with several threads, on tokio with one, on an actix `System`, and with a `block_on` that is written
//!   here, without any runtime.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use longshore_tests::on_bare_stage;

/// Fewer blocks than these say that the test looks at the wrong files.
const AT_LEAST: (usize, usize) = (20, 2);

const WORKSPACE: &str = r#"
[workspace]
resolver = "3"
members = ["embedder", "on-tokio"]

[profile.dev]
debug = false

[profile.release]
opt-level = 1
codegen-units = 16
incremental = true
"#;

const EMBEDDER: &str = r#"
[package]
name = "embedder"
version = "0.0.0"
edition = "2024"

[dependencies]
longshore = { path = "LONGSHORE", features = ["sim"] }
"#;

const ON_TOKIO: &str = r#"
[package]
name = "on-tokio"
version = "0.0.0"
edition = "2024"

[dependencies]
embedder = { path = "../embedder" }
tokio = { version = "1", features = ["rt-multi-thread"] }
"#;

const EMBEDDER_MAIN: &str = r#"
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// All that is needed to wait for a future.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        thread::park();
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("simulator") => embedder::simulated(),
        Some("none") => block_on(embedder::real()).unwrap(),
        Some("actix") => longshore::actix::System::new().block_on(embedder::real()).unwrap(),
        other => panic!("{other:?}"),
    }
}
"#;

const ON_TOKIO_MAIN: &str = r#"
fn main() {
    let mut builder = match std::env::args().nth(1).as_deref() {
        Some("many-threads") => tokio::runtime::Builder::new_multi_thread(),
        Some("one-thread") => tokio::runtime::Builder::new_current_thread(),
        other => panic!("{other:?}"),
    };
    builder.enable_all().build().unwrap().block_on(embedder::real()).unwrap();
}
"#;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A Rust block of a document, and a name that says where it is from.
struct Block {
    name: String,
    text: String,
}

impl Block {
    fn is_simulated(&self) -> bool {
        self.text.contains("Simulation")
    }

    fn function(&self) -> String {
        let Self { name, text } = self;
        if self.is_simulated() {
            format!("pub fn {name}() {{\n{text}}}\n")
        } else {
            format!("pub async fn {name}() -> Result<(), longshore::Error> {{\n{text}Ok(())\n}}\n")
        }
    }
}

fn blocks_of(document: &Path) -> Vec<Block> {
    let text = fs::read_to_string(document).unwrap();
    let stem = document.file_stem().unwrap().to_string_lossy().to_lowercase();
    let mut blocks: Vec<Block> = Vec::new();
    let mut fence = None;
    for line in text.lines() {
        match (&fence, line.strip_prefix("```")) {
            (None, Some(language)) => {
                fence = Some(language == "rust");
                assert!(language == "rust" || !language.starts_with("rust"), "{stem}: {line}");
                if language == "rust" {
                    let name = format!("{stem}_{}", blocks.len() + 1);
                    blocks.push(Block { name, text: String::new() });
                }
            }
            (Some(_), Some("")) => fence = None,
            (Some(true), _) => {
                let block = &mut blocks.last_mut().unwrap().text;
                block.push_str(line);
                block.push('\n');
            }
            (Some(false) | None, _) => {}
        }
    }
    assert!(fence.is_none(), "{stem}: a block has no end");
    blocks
}

fn blocks() -> Vec<Block> {
    let mut documents = vec![repository().join("README.md")];
    let guide = fs::read_dir(repository().join("crates/longshore/src/guide")).unwrap();
    documents.extend(guide.flatten().map(|entry| entry.path()));
    documents.sort();
    documents.iter().flat_map(|document| blocks_of(document)).collect()
}

/// The crate's library: the blocks, and what runs them one after the other.
fn library(blocks: &[Block]) -> String {
    let mut text = String::from("#![deny(warnings)]\n\nmod blocks {\n");
    blocks.iter().for_each(|block| text.push_str(&block.function()));
    text.push_str("}\n\npub fn simulated() {\n");
    for Block { name, .. } in blocks.iter().filter(|block| block.is_simulated()) {
        text.push_str(&format!("println!(\"{name}\");\nblocks::{name}();\n"));
    }
    text.push_str("}\n\npub async fn real() -> Result<(), longshore::Error> {\n");
    for Block { name, .. } in blocks.iter().filter(|block| !block.is_simulated()) {
        text.push_str(&format!("println!(\"{name}\");\nblocks::{name}().await?;\n"));
    }
    text.push_str("Ok(())\n}\n");
    text
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The workspace, at a place that stays the same: what has been built once is not built again.
fn workspace() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("embedder");
    let longshore = repository().join("crates/longshore");
    let blocks = blocks();
    let simulated = blocks.iter().filter(|block| block.is_simulated()).count();
    let (least_simulated, least_real) = AT_LEAST;
    assert!(simulated >= least_simulated && blocks.len() - simulated >= least_real, "{simulated}");
    write(&dir.join("Cargo.toml"), WORKSPACE);
    write(&dir.join("embedder/Cargo.toml"), &EMBEDDER.replace("LONGSHORE", longshore.to_str().unwrap()));
    write(&dir.join("embedder/src/lib.rs"), &library(&blocks));
    write(&dir.join("embedder/src/main.rs"), EMBEDDER_MAIN);
    write(&dir.join("on-tokio/Cargo.toml"), ON_TOKIO);
    write(&dir.join("on-tokio/src/main.rs"), ON_TOKIO_MAIN);
    // The same versions as in this workspace, so that nothing has to be downloaded.
    fs::copy(repository().join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    dir
}

fn built_and_run(profile: &str) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("embedder");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--offline", "--profile", profile]).current_dir(workspace());
    build.env("CARGO_TARGET_DIR", &target);
    run(&mut build);
    let programs = target.join(if profile == "dev" { "debug" } else { profile });
    run(Command::new(programs.join("embedder")).arg("simulator"));
    on_bare_stage(|stage| {
        run(Command::new(programs.join("embedder")).arg("none"));
        run(Command::new(programs.join("embedder")).arg("actix"));
        run(Command::new(programs.join("on-tokio")).arg("many-threads"));
        run(Command::new(programs.join("on-tokio")).arg("one-thread"));
        // The blocks name no root, so it is the default one.
        for dir in ["containers", "executors"] {
            let entries = fs::read_dir(longshore::default_root().join(dir));
            assert_eq!(entries.map_or(0, Iterator::count), 0, "{dir}");
        }
        stage.check();
    });
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
}

/// One test: two would build in the same directories.
#[test]
fn the_documents_blocks_in_a_crate_of_their_own() {
    built_and_run("dev");
    built_and_run("release");
}

//! Hostile containers, hostile neighbours and hostile directories, on the real runtime.
//!
//! - `root`: what another user of the host, or whoever prepared a directory, can do to an executor's files.
//! - `runtime`: what a container can do to the runtime, and to the streams of the command.
//! - `given`: what a specification may ask for without being insecure.
//! - `known`: kinds of known vulnerabilities of runtimes and executors. `docs/security.md` lists all of them, each with
//!   the test that replays it.
//!
//! Each test has the name of its row. `cargo xtask attack` runs these tests with longer races.

mod given;
mod known;
mod root;
mod runtime;

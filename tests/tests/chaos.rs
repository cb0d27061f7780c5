//! A minute of the chaos test; `cargo xtask chaos` holds longer ones, and those of a seed again.

use std::process::Command;

#[test]
fn chaos_for_a_minute() {
    let status = Command::new(env!("CARGO_BIN_EXE_chaos")).args(["--seconds", "60"]).status();
    assert!(status.is_ok_and(|status| status.success()), "its output says why, and how to see it again");
}

//! The program `longshore`; what it does is in the library of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    longshore_cli::main()
}

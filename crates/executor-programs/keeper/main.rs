//! The keeper: the parent of an executor's processes, which outlives the embedder.
//!
//! ```text
//!  embedder ── one connection at a time ──▶ socket ──▶ keeper ──▶ runtimes, and every process that they leave behind
//!                                                        ├── records: how its children have ended, until they are forgotten
//!                                                        └── held: descriptors by name (pipes, terminals)
//! ```
//! It decides nothing. It starts what it is asked to, reaps every child, and keeps what a later embedder needs. It exits by
//! itself when there is no client, no child, no record and nothing held, or if no client comes within ten seconds.
//!
//! | file | has |
//! |---|---|
//! | `wire`, `messages` | the protocol; `executor-host` compiles the same files |
//! | `keeper` | what there is, and the loop |
//! | `requests` | a message: what is refused, and each request |
//! | `records` | reaping |
//! | `process` | starting a process |
//! | `logs`, `lines` | files that pipes are written to |
//! | `upgrade` | another program in the place of this one |
//! | `table`, `text`, `sys`, `arch` | memory, digits, system calls, instructions |
//!
//! There is no C library and no allocator: each page counts, because there is a keeper for each executor.
//!
//! Descriptor 3 is the listening socket, 4 the directory that it is in. Arguments: none; or `--read N`, to go on from the state
//! in descriptor N; or `--check N`, to say by the exit code whether that state can be read.

#![no_std]
#![no_main]

mod arch;
mod keeper;
mod lines;
mod logs;
#[expect(dead_code, reason = "the client uses the rest")]
mod messages;
mod process;
mod records;
mod requests;
mod sys;
mod table;
mod text;
mod upgrade;
#[expect(dead_code, reason = "the client uses the rest")]
mod wire;

use crate::keeper::{DIRECTORY, Keeper};

/// Identifies this program: a hash of its source.
pub const PROGRAM: u64 = number(env!("LONGSHORE_KEEPER_HASH"));

/// The hexadecimal number in a text.
const fn number(text: &str) -> u64 {
    match u64::from_str_radix(text, 16) {
        Ok(number) => number,
        Err(_) => 0,
    }
}

/// Called by the first instruction. `state` has whether a state is only to be checked, and the number of its descriptor.
pub fn run(state: Option<(bool, &[u8])>) -> ! {
    let state = state.map(|(is_check, number)| (is_check, text::parse(number).unwrap_or(0) as i32));
    let keeper = match state {
        Some((true, fd)) => sys::exit(usize::from(upgrade::read(fd).is_err())),
        Some((false, fd)) => upgrade::go_on(fd),
        None => begin(),
    };
    match keeper {
        Ok(keeper) => keeper.work(),
        Err(errno) => sys::exit(errno as usize),
    }
}

/// Becomes a process that the embedder neither waits for nor takes along.
fn begin() -> sys::Result<Keeper> {
    if sys::fork()? != 0 {
        sys::exit(0);
    }
    sys::close_from(DIRECTORY + 1);
    let mut keeper = Keeper::new();
    keeper.limit = sys::descriptor_limit();
    // A score that is lower still is left as it is. Who may not lower it has the embedder's.
    if text::oom_score().is_none_or(|below_zero| below_zero < 999) {
        let _not_permitted = sys::write_file(text::OOM_SCORE, b"-999");
    }
    keeper.settle()?;
    Ok(keeper)
}

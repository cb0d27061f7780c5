//! Starting a process: it shares this one's memory until it has executed its program, as with vfork.

#![expect(unsafe_code, reason = "a child that runs on a stack of its own, in this process's memory")]

use core::ptr;

use crate::arch;
use crate::messages::Spawn;
use crate::sys::{self, Result};
use crate::table::Table;
use crate::text::{OOM_SCORE, Text, digits};
use crate::wire::{MOST_DESCRIPTORS, NONE, Reader};

const CLONE_VM: usize = 0x100;
const CLONE_PIDFD: usize = 0x1000;
const CLONE_VFORK: usize = 0x4000;
const SIGCHLD: usize = 17;

const STACK: usize = 32 << 10;

/// What is needed for each start, kept for the next one.
pub struct Starter {
    stack: Table<u8>,
    /// The pointers to the arguments and variables.
    texts: Table<usize>,
}

/// A process that was started.
pub struct Started {
    pub pid: u32,
    pub pidfd: i32,
}

/// What the child needs. It is the parent's, which waits meanwhile.
struct Child<'a> {
    spawn: &'a Spawn<'a>,
    descriptors: &'a [i32],
    path: *const u8,
    args: *const usize,
    variables: *const usize,
    errno: i32,
}

impl Starter {
    pub const fn new() -> Self {
        Self { stack: Table::new(), texts: Table::new() }
    }

    /// Executes what a client has described, with these descriptors.
    pub fn start(&mut self, spawn: &Spawn<'_>, descriptors: &[i32]) -> Result<Started> {
        self.stack.reserve(STACK)?;
        let path = self.list(spawn)?;
        let number = digits(u64::from(spawn.program_number()));
        let in_memory = Text::new(&[b"/proc/self/fd/", number.as_bytes()]);
        let texts = self.texts.as_slice();
        let variables = texts.get(spawn.args as usize + 1..).unwrap_or_default();
        let path = if spawn.program == NONE { path } else { in_memory.as_c().as_ptr().cast() };
        let (args, variables) = (texts.as_ptr(), variables.as_ptr());
        let mut child = Child { spawn, descriptors, path, args, variables, errno: 0 };
        let stack = self.stack.buffer().as_mut_ptr() as usize + STACK;
        let (mut pidfd, flags) = (-1, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD);
        let argument = (&raw mut child) as usize;
        // SAFETY: the stack is large enough for `run`, and this process does nothing until the child has executed or exited.
        let pid = unsafe { arch::clone_to(flags, stack, &raw mut pidfd, run, argument) };
        let pid = u32::try_from(pid).map_err(|_| (-pid) as i32)?;
        // SAFETY: the child has written it, which the compiler does not see.
        match unsafe { ptr::read_volatile(&raw const child.errno) } {
            0 => Ok(Started { pid, pidfd }),
            errno => {
                // It goes on for a moment after this process does.
                sys::poll(pidfd, 1000);
                sys::close(pidfd);
                let _reaped = sys::reap(pid);
                Err(errno)
            }
        }
    }

    /// Lists the arguments and the variables, each list with a null pointer at its end. Returns the path.
    fn list(&mut self, spawn: &Spawn<'_>) -> Result<*const u8> {
        self.texts.clear();
        let mut reader = Reader(spawn.texts);
        let path = reader.text().ok_or(sys::EINVAL)?.as_ptr();
        for count in [spawn.args, spawn.variables] {
            for _ in 0..count {
                self.texts.push(reader.text().ok_or(sys::EINVAL)?.as_ptr() as usize)?;
            }
            self.texts.push(0)?;
        }
        Ok(path)
    }
}

/// The child.
unsafe extern "C" fn run(child: usize) -> ! {
    let child = child as *mut Child<'_>;
    // SAFETY: the parent's, which waits until this process has executed or exited.
    let errno = unsafe {
        match prepare((*child).spawn, (*child).descriptors) {
            Ok(()) => sys::execute((*child).path, (*child).args, (*child).variables),
            Err(errno) => errno,
        }
    };
    // SAFETY: the same.
    unsafe { ptr::write_volatile(&raw mut (*child).errno, errno) };
    sys::exit(127)
}

/// Gives the child its own group, its descriptors, and what the embedder has and the keeper has not.
fn prepare(spawn: &Spawn<'_>, descriptors: &[i32]) -> Result<()> {
    sys::lead_group()?;
    let of = |index: u32| descriptors.get(index as usize).copied().ok_or(sys::EINVAL);
    // None of them may be overwritten before it is in its place.
    let (mut above, count) = ([-1; MOST_DESCRIPTORS], spawn.inherited().count());
    for (place, index) in above.iter_mut().zip(spawn.inherited()) {
        *place = sys::duplicate(of(index)?, count + 16)?;
    }
    if spawn.program != NONE {
        let program = sys::duplicate(of(spawn.program)?, count + 16)?;
        sys::duplicate_to(program, spawn.program_number() as i32, sys::CLOSE_ON_EXEC)?;
    }
    for (number, fd) in (0..).zip(above.iter().take(count)) {
        sys::duplicate_to(*fd, number, 0)?;
    }
    if spawn.umask != NONE {
        sys::set_umask(spawn.umask);
    }
    if spawn.oom_score != i32::MIN {
        let sign: &[u8] = if spawn.oom_score < 0 { b"-" } else { b"" };
        let score = digits(u64::from(spawn.oom_score.unsigned_abs()));
        let _not_permitted = sys::write_file(OOM_SCORE, Text::new(&[sign, score.as_bytes()]).as_bytes());
    }
    let [soft, hard] = spawn.descriptors;
    if sys::set_descriptor_limit([soft, hard]).is_err() {
        // A later embedder's may be above that of the first one.
        let own = sys::descriptor_limit();
        let _kept = sys::set_descriptor_limit([soft.min(own[1]), own[1]]);
    }
    sys::unblock_signals();
    Ok(())
}

/// Executes a program in place of this one, with these two arguments. Returns the errno if it was not executed.
pub fn become_program(program: i32, args: [&Text; 2]) -> i32 {
    let [first, second] = args.map(|arg| arg.as_c().as_ptr() as usize);
    let (args, none) = ([c"longshore-keeper".as_ptr() as usize, first, second, 0], 0);
    // SAFETY: the texts live until this process is another program, and both lists end with a null pointer.
    unsafe { sys::execute_file(program, args.as_ptr(), &raw const none) }
}

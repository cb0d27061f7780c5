//! Signals that mean a fault of this process (SEGV, BUS, FPE and ILL), if somebody has sent them, as with kill(1).
//!
//! The kernel says which of both it is. What was sent is for the program, as other signals are. At a fault, the action of
//! before is put back, and the instruction is executed again: it faults again, and this process ends as it would have without
//! us, after std has said that a stack has overflowed.
#![expect(unsafe_code, reason = "the handler of a signal, and setting it")]

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use longshore::Signal;
use nix::libc::{c_int, c_void, siginfo_t};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal as Number, sigaction};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;

pub(crate) const FAULTS: [Number; 4] = [Number::SIGSEGV, Number::SIGBUS, Number::SIGFPE, Number::SIGILL];

/// Where the handler writes the numbers of signals that were sent.
static SENT: OnceLock<File> = OnceLock::new();

/// The actions of before, in the order of [`FAULTS`].
static FORMER: [OnceLock<SigAction>; 4] = [const { OnceLock::new() }; 4];

/// Listens from now on for those that are not in the set `ignored`. The bit 0 is signal 1.
pub(crate) fn listen(ignored: u64, sender: mpsc::Sender<Signal>) -> io::Result<()> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let _first = SENT.set(File::from(writer));
    for (number, former) in FAULTS.into_iter().zip(&FORMER) {
        if ignored & (1 << (number as i32 - 1)) == 0 {
            let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_RESTART;
            let action = SigAction::new(SigHandler::SigAction(received), flags, SigSet::empty());
            // SAFETY: the handler does nothing but system calls, and reads what is set once. A fault before the former action
            // is kept has the default one.
            let _first = former.set(unsafe { sigaction(number, &action) }?);
        }
    }
    receive(reader, sender)
}

fn receive(reader: OwnedFd, sender: mpsc::Sender<Signal>) -> io::Result<()> {
    let mut reader = Receiver::from_owned_fd(reader)?;
    tokio::spawn(async move {
        while let Ok(number) = reader.read_u8().await {
            let Some(signal) = Signal::new(number) else { continue };
            if sender.send(signal).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

extern "C" fn received(number: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel gives one to each handler with SA_SIGINFO.
    let code = unsafe { (*info).si_code };
    if code > 0 {
        fault(number);
    } else if let (Some(sent), Ok(number)) = (SENT.get(), u8::try_from(number)) {
        // If the pipe is full, thousands of them have not been passed on yet.
        let _full = rustix::io::write(sent, &[number]);
    }
}

fn fault(number: c_int) {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for (fault, former) in FAULTS.into_iter().zip(&FORMER) {
        if fault as c_int == number {
            // SAFETY: the action was set before this handler, or is the default one.
            let _cannot_fail = unsafe { sigaction(fault, former.get().unwrap_or(&default)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn what_was_sent_is_received_and_what_is_ignored_is_not_listened_for() {
        let ours = |name: &str| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", &format!("command::faults::tests::{name}"), "--nocapture", "--ignored"]);
            command.output().unwrap()
        };
        let sent = ours("sends_all");
        assert!(sent.status.success(), "{sent:?}");
        let overflowed = ours("overflows_its_stack");
        let said = String::from_utf8_lossy(&overflowed.stderr);
        assert!(said.contains("has overflowed its stack"), "{said}");
        assert_eq!(overflowed.status.signal(), Some(Number::SIGABRT as i32), "as std ends it");
    }

    /// In a process of its own, of which it sets actions.
    #[test]
    #[ignore = "part of another test"]
    fn sends_all() {
        runtime().block_on(async {
            let (sender, mut received) = mpsc::channel(8);
            listen(1 << (Number::SIGFPE as i32 - 1), sender).unwrap();
            for number in FAULTS.into_iter().filter(|number| *number != Number::SIGFPE) {
                nix::sys::signal::raise(number).unwrap();
                assert_eq!(
                    received.recv().await.map(|signal| i32::from(signal.number())),
                    Some(number as i32)
                );
            }
        });
        let former = FORMER.iter().map(|former| former.get().is_some()).collect::<Vec<_>>();
        assert_eq!(former, [true, true, false, true]);
    }

    #[test]
    #[ignore = "part of another test"]
    fn overflows_its_stack() {
        fn deeper(depth: u64) -> u64 {
            let here = std::hint::black_box([depth; 1024]);
            if std::hint::black_box(depth) == u64::MAX { 0 } else { deeper(depth + 1) + here[7] }
        }
        let runtime = runtime();
        let _listens = runtime.block_on(async { listen(0, mpsc::channel(1).0) });
        assert_eq!(deeper(0), 0);
    }
}

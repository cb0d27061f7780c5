//! The command as a job of a shell: it stops with its container, and both go on together.
//!
//! A module with `unsafe` in it: setting the action of a signal takes a promise about its handler.
#![expect(unsafe_code, reason = "two calls, with one reason")]

use longshore::{ContainerHandle, Signal};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal as Number, raise, sigaction};

use super::signals::Signals;
use super::terminal::Restore;

/// Freezes the container, gives the terminal back, and stops this process. Returns when it was continued, and the container
/// with it.
pub(crate) async fn stop(container: &ContainerHandle, terminal: Option<&Restore>, signals: &mut Signals) {
    let is_frozen = container.pause().await.is_ok();
    if !is_frozen {
        // Without cgroups, init alone is stopped.
        let _has_ended = send(container, Number::SIGSTOP).await;
    }
    if let Some(terminal) = terminal {
        terminal.give_back();
    }
    stop_alone(signals).await;
    // The terminal is taken again at SIGCONT, which has come.
    if is_frozen {
        let _has_ended = container.resume().await;
    } else {
        let _has_ended = send(container, Number::SIGCONT).await;
    }
}

/// Stops this process until it is continued, unless it was meanwhile. The kernel stops nothing that no shell could continue,
/// as the only program of a terminal.
pub(crate) async fn stop_alone(signals: &mut Signals) {
    if signals.was_continued().await {
        return;
    }
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action has no handler.
    let Ok(ours) = (unsafe { sigaction(Number::SIGTSTP, &default) }) else { return };
    let _cannot_fail = raise(Number::SIGTSTP);
    // SAFETY: this is the handler that was set before.
    let _cannot_fail = unsafe { sigaction(Number::SIGTSTP, &ours) };
}

async fn send(container: &ContainerHandle, signal: Number) -> Option<()> {
    let signal = Signal::new(u8::try_from(signal as i32).ok()?)?;
    container.signal(signal).await.ok()
}

//! The command as a job of a shell: it stops with its container, and both go on together.

use longshore::{ContainerHandle, Signal};
use nix::sys::signal::{Signal as Number, raise};

use super::terminal::Restore;

/// Freezes the container, gives the terminal back, and stops this process. Returns when it was continued, and the container
/// with it.
pub(crate) async fn stop(container: &ContainerHandle, terminal: Option<&Restore>) {
    let is_frozen = container.pause().await.is_ok();
    if !is_frozen {
        // Without cgroups, init alone is stopped.
        let _has_ended = send(container, Number::SIGSTOP).await;
    }
    if let Some(terminal) = terminal {
        terminal.give_back();
    }
    stop_alone();
    // The terminal is taken again at SIGCONT, which has come.
    if is_frozen {
        let _has_ended = container.resume().await;
    } else {
        let _has_ended = send(container, Number::SIGCONT).await;
    }
}

/// Stops this process until it is continued.
pub(crate) fn stop_alone() {
    // The kernel would ignore SIGTSTP here, because it is handled.
    let _cannot_fail = raise(Number::SIGSTOP);
}

async fn send(container: &ContainerHandle, signal: Number) -> Option<()> {
    let signal = Signal::new(u8::try_from(signal as i32).ok()?)?;
    container.signal(signal).await.ok()
}

//! A job in the background. A shell stops it when it reads its terminal, or sets it. We wait instead, because the command has
//! a container to look after: what is typed is read, and the terminal is set, once the job is in the foreground.

use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::process::getpgrp;
use rustix::termios::{LocalModes, tcgetattr, tcgetpgrp};

/// How often it is looked whether the job is in the foreground. There is no signal for it.
pub(crate) const PERIOD: Duration = Duration::from_millis(100);

/// Whether this is our terminal, and another job is in its foreground.
pub(crate) fn is_background(terminal: impl AsFd) -> bool {
    tcgetpgrp(terminal).is_ok_and(|foreground| foreground != getpgrp())
}

/// Waits while reading would stop a job.
pub(crate) fn wait_to_read(terminal: impl AsFd) {
    while is_background(&terminal) {
        thread::sleep(PERIOD);
    }
}

/// Waits while writing would stop a job: in the background, after `stty tostop`.
pub(crate) fn wait_to_write(terminal: impl AsFd) {
    let stops = || tcgetattr(&terminal).is_ok_and(|modes| modes.local_modes.contains(LocalModes::TOSTOP));
    while is_background(&terminal) && stops() {
        thread::sleep(PERIOD);
    }
}

//! The virtual machine: qemu, by emulation. The results come from its second serial line, the kernel's messages from its first.
//!
//! KVM is not used: this must run where there is none, and where `/dev/kvm` is there and boots no kernel but its own (`kvm_pvm`).

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::kernel::Kernel;
use super::report::{Line, Results};
use super::script::TAG;

/// Ends the machine, whatever happens here.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Boots the kernel, runs the script, and collects what it says. A machine that says nothing for as long as `silence` is ended.
pub(super) fn run(kernel: &Kernel, script: &Path, dir: &Path, silence: Duration) -> Result<Results, String> {
    let mut command = qemu(kernel, script, dir);
    let mut machine = Machine(command.spawn().map_err(|error| format!("qemu: {error}"))?);
    let mut log = File::create(dir.join("results")).map_err(|error| format!("{}: {error}", dir.display()))?;
    let lines = lines(&mut machine.0);
    let mut results = Results::default();
    let begun = Instant::now();
    loop {
        match lines.recv_timeout(silence) {
            Ok(line) => {
                // It is for whoever looks for more; the table does not need it.
                let _logged = writeln!(log, "{line}");
                if let Some(shown) = results.take(Line::parse(&line), &line, begun.elapsed()) {
                    eprintln!("{shown}");
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                results.hang(begun.elapsed());
                return Ok(results);
            }
            Err(RecvTimeoutError::Disconnected) => {
                results.end(begun.elapsed());
                return Ok(results);
            }
        }
    }
}

fn qemu(kernel: &Kernel, script: &Path, dir: &Path) -> Command {
    // It ends with this process, however that ends.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "8192", "-smp", "2"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&kernel.initramfs);
    let script = script.display();
    command.arg("-append").arg(format!("console=ttyS0 loglevel=4 panic=-1 longshore.script={script}"));
    let share = format!("local,path=/,mount_tag={TAG},security_model=none,readonly=on,multidevs=remap");
    command.arg("-virtfs").arg(share);
    command.arg("-serial").arg(format!("file:{}", dir.join("console").display())).args(["-serial", "stdio"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn lines(machine: &mut Child) -> Receiver<String> {
    let (sender, lines) = channel();
    if let Some(mut stdout) = machine.stdout.take() {
        std::thread::spawn(move || {
            let (mut bytes, mut rest) = ([0; 4096], Vec::new());
            while let Ok(read @ 1..) = stdout.read(&mut bytes) {
                rest.extend(bytes.iter().take(read));
                for line in take_lines(&mut rest) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            }
        });
    }
    lines
}

/// Takes the whole lines out of what was read, and looks at the rest: a test that begins says so without a line's end.
fn take_lines(rest: &mut Vec<u8>) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches(['\r', '\n']).to_owned();
    let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let whole: Vec<u8> = rest.drain(..end).collect();
    let mut lines: Vec<_> = whole.split_inclusive(|byte| *byte == b'\n').map(text).collect();
    lines.extend(Some(text(rest)).filter(|rest| rest.starts_with("test ") && rest.ends_with(" ... ")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_and_the_beginning_of_a_test_is_seen() {
        let mut rest = b"one\r\ntwo\ntest x".to_vec();
        assert_eq!(take_lines(&mut rest), ["one", "two"]);
        rest.extend(b" ... ");
        assert_eq!(take_lines(&mut rest), ["test x ... "]);
        rest.extend(b"ok\n");
        assert_eq!(take_lines(&mut rest), ["test x ... ok"]);
        assert!(rest.is_empty());
    }
}

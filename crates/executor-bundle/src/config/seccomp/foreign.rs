//! Whether this machine's kernel runs programs of a foreign architecture.
//!
//! Each architecture in a filter costs the runtime time. With i386 and x32 in the filter, it is half of a container's start.
//! So an architecture that the kernel does not run is left out; kernels that run x32 programs are rare. Where it is left out, the
//! filter kills a program that makes a call of x32 from 64-bit code. The kernel alone would say ENOSYS, as it does in docker.
//!
//! We find out by executing a program of about a hundred bytes. The kernel's configuration would not do: it can be read
//! on some systems only, and does not show what the kernel's command line has switched off.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use executor_core::spawn_without_descriptors;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

/// The numbers of machines in `elf.h`.
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;

/// `exit(0)` for i386: `mov eax, 1; xor ebx, ebx; int 0x80`.
const EXIT_386: [u8; 9] = [0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80];

/// `exit(0)` for x32: `mov eax, 0x4000003c; xor edi, edi; syscall`.
const EXIT_X32: [u8; 9] = [0xb8, 0x3c, 0, 0, 0x40, 0x31, 0xff, 0x0f, 0x05];

/// Whether the kernel may run programs of this architecture, given by libseccomp's name. If we cannot find out: yes.
pub(super) fn may_run(architecture: &str) -> bool {
    static I386: LazyLock<bool> = LazyLock::new(|| runs(&program(EM_386, &EXIT_386)));
    static X32: LazyLock<bool> = LazyLock::new(|| runs(&program(EM_X86_64, &EXIT_X32)));
    match architecture {
        "SCMP_ARCH_X86" => *I386,
        "SCMP_ARCH_X32" => *X32,
        _ => true,
    }
}

/// A 32-bit ELF file: a header, one segment, the code.
fn program(machine: u16, code: &[u8]) -> Vec<u8> {
    const HEADER: u16 = 52;
    const SEGMENT: u16 = 32;
    const BASE: u32 = 0x0804_8000;
    let entry = BASE + u32::from(HEADER + SEGMENT);
    let length = u32::from(HEADER + SEGMENT) + u32::try_from(code.len()).unwrap_or_default();
    let halves = |all: &[u16]| all.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<_>>();
    let words = |all: &[u32]| all.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    [
        b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        // Executable, for this machine.
        halves(&[2, machine]),
        // Version, entry, where the segments are listed, no sections, no flags.
        words(&[1, entry, u32::from(HEADER), 0, 0]),
        // One segment, no sections.
        halves(&[HEADER, SEGMENT, 1, 0, 0, 0]),
        // The segment: load the whole file, readable and executable.
        words(&[1, 0, BASE, BASE, length, length, 5, 0x1000]),
        code.to_vec(),
    ]
    .concat()
}

/// Whether the kernel executes this program. If it could not be tried: yes.
fn runs(program: &[u8]) -> bool {
    let refused = |error: &io::Error| Errno::from_io_error(error) == Some(Errno::NOEXEC);
    !execute(program).is_err_and(|error| refused(&error))
}

fn execute(program: &[u8]) -> io::Result<()> {
    let mut file = File::from(memfd_create("longshore-probe", MemfdFlags::CLOEXEC)?);
    file.write_all(program)?;
    let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    spawn_without_descriptors(|| command.spawn())?.wait().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_shows_what_it_runs() {
        assert!(runs(&std::fs::read("/bin/true").unwrap()));
        for nothing in [program(0, &EXIT_386), b"no program".to_vec(), Vec::new()] {
            assert!(!runs(&nothing));
        }
        assert!(may_run("SCMP_ARCH_ARM"), "it is not known here");
        // Where the kernel can run i386 programs at all, it shows it here, and can be set not to.
        let can = std::path::Path::new("/proc/sys/abi/vsyscall32").exists();
        assert!(can || !may_run("SCMP_ARCH_X86"));
    }
}

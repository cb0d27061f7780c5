//! What has to be in the language of the processor: the first instruction, system calls, a child on a stack of its own, and the
//! functions on memory that the compiler calls.

#![expect(unsafe_code, reason = "there is no C library that would have these")]

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {enter}",
    "ud2",
    enter = sym enter
);

#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x30, #0", "mov x0, sp", "bl {enter}", "brk #1", enter = sym enter);

/// The kernel leaves the number of arguments, and pointers to them, at the top of the stack.
unsafe extern "C" fn enter(stack: *const usize) -> ! {
    let mut number = None;
    // SAFETY: there are as many arguments as the number says, each with a NUL at its end.
    unsafe {
        if *stack >= 3 {
            let last = *stack.add(3) as *const u8;
            let mut len = 0;
            // The compiler makes a call of strlen of other loops.
            while last.add(len).read_volatile() != 0 {
                len += 1;
            }
            let check = *(*stack.add(2) as *const u8).add(2);
            number = Some((check == b'c', core::slice::from_raw_parts(last, len)));
        }
    }
    crate::run(number)
}

/// A system call.
///
/// # Safety
/// That of the call.
pub unsafe fn syscall(number: usize, args: [usize; 6]) -> isize {
    let result: isize;
    let [a, b, c, d, e, f] = args;
    // SAFETY: the registers are those of the kernel's interface.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // SAFETY: the same.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            in("x5") f, options(nostack));
    }
    result
}

/// clone(2), with a child that calls `run` with `argument` on the stack that ends at `stack`. The parent gets its pid.
///
/// # Safety
/// The stack is large enough, and `run` never returns. With `CLONE_VM`, nothing that `run` uses may change meanwhile.
pub unsafe fn clone_to(
    flags: usize,
    stack: usize,
    pidfd: *mut i32,
    run: unsafe extern "C" fn(usize) -> !,
    argument: usize,
) -> isize {
    let result: isize;
    // SAFETY: the child has a stack of its own, and never comes back here.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall", "test rax, rax", "jnz 2f", "xor ebp, ebp", "mov rdi, r13", "call r12", "ud2", "2:",
            inlateout("rax") 56_usize => result, in("rdi") flags, in("rsi") stack, in("rdx") pidfd, in("r10") 0, in("r8") 0,
            in("r12") run, in("r13") argument, lateout("rcx") _, lateout("r11") _
        );
    }
    // SAFETY: the same.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc 0", "cbnz x0, 2f", "mov x29, #0", "mov x0, x10", "blr x9", "brk #1", "2:",
            in("x8") 220_usize, inlateout("x0") flags => result, in("x1") stack, in("x2") pidfd, in("x3") 0, in("x4") 0,
            in("x9") run, in("x10") argument
        );
    }
    result
}

/// # Safety
/// As memmove, for places that do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe { copy_up(to, from, count) };
    to
}

/// # Safety
/// Both places have that many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // What is copied from its end on is not overwritten before.
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: the caller's.
        unsafe { copy_up(to, from, count) };
        return to;
    }
    for index in (0..count).rev() {
        // SAFETY: the caller's. A volatile write is no loop that the compiler replaces by a call of this function.
        unsafe { to.add(index).write_volatile(*from.add(index)) };
    }
    to
}

/// # Safety
/// The place has that many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(place: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller's.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") place => _, in("al") byte as u8, options(nostack));
    }
    #[cfg(not(target_arch = "x86_64"))]
    for index in 0..count {
        // SAFETY: the caller's.
        unsafe { place.add(index).write_volatile(byte as u8) };
    }
    place
}

/// # Safety
/// Both places have that many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    for index in 0..count {
        // SAFETY: the caller's.
        let (left, right) = unsafe { (left.add(index).read_volatile(), right.add(index).read_volatile()) };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

/// # Safety
/// Both places have that many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the caller's.
    unsafe { memcmp(left, right, count) }
}

/// Copies the first byte first.
unsafe fn copy_up(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: the caller's.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack));
    }
    #[cfg(not(target_arch = "x86_64"))]
    for index in 0..count {
        // SAFETY: the caller's.
        unsafe { to.add(index).write_volatile(*from.add(index)) };
    }
}

/// There is nobody to report to. The kernel gives the children to the next subreaper.
#[panic_handler]
fn panicked(_info: &core::panic::PanicInfo<'_>) -> ! {
    crate::sys::exit(101)
}

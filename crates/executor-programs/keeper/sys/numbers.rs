//! The numbers of system calls.

macro_rules! numbers {
    ($($name:ident $x86_64:literal $aarch64:literal)*) => {
        $(pub const $name: usize = if cfg!(target_arch = "x86_64") { $x86_64 } else { $aarch64 };)*
    };
}

numbers! {
    READ 0 63
    WRITE 1 64
    CLOSE 3 57
    MMAP 9 222
    MUNMAP 11 215
    SIGACTION 13 134
    SIGPROCMASK 14 135
    PREAD 17 67
    MREMAP 25 216
    GETPID 39 172
    SENDMSG 46 211
    RECVMSG 47 212
    GETSOCKOPT 55 209
    CLONE 56 220
    EXECVE 59 221
    WAIT4 61 260
    FCNTL 72 25
    CHDIR 80 49
    UMASK 95 166
    GETEUID 107 175
    SETPGID 109 154
    SETSID 112 157
    PRCTL 157 167
    CLOCK_GETTIME 228 113
    EXIT_GROUP 231 94
    EPOLL_CTL 233 21
    WAITID 247 95
    OPENAT 257 56
    FSTATAT 262 79
    UNLINKAT 263 35
    PPOLL 271 73
    EPOLL_WAIT 281 22
    ACCEPT4 288 242
    SIGNALFD 289 74
    EPOLL_CREATE 291 20
    DUP3 292 24
    PRLIMIT 302 261
    MEMFD_CREATE 319 279
    EXECVEAT 322 281
    PIDFD_SEND_SIGNAL 424 424
    CLOSE_RANGE 436 436
}

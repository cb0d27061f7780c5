//! The scripts that the guest runs: the first, in memory, mounts this machine's root; the second runs the suites.

use std::fmt::Write;
use std::path::Path;

use super::Program;
use super::kernel::{Kernel, quoted};
use super::options::{Hierarchy, Options, SUITE_LIMIT, name_and_filter};

/// What begins a line that is the script's, not a test's.
pub(super) const MARK: &str = "=== guest";
/// The tag of this machine's root.
pub(super) const TAG: &str = "host";
/// The serial line that has the results, as the guest names it.
const RESULTS: &str = "/dev/ttyS1";
/// How much slower the guest is: tests do as much less of what takes minutes here.
const SLOWNESS: u32 = 16;
/// What a suite's file descriptors are limited to.
const DESCRIPTORS: u32 = 20_000;

/// The controllers of v1, as distributions mount them.
const V1: [&str; 8] = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"];

/// `/init` of the first root.
pub(super) fn init(modules: &[&str]) -> String {
    let modules = modules.join(" ");
    format!(
        "#!/bin/busybox sh
busybox() {{ /bin/busybox \"$@\"; }}
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
for module in {modules}; do busybox modprobe $module; done
busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=524288,cache=loose {TAG} /lower || exec busybox poweroff -f
busybox mount -t tmpfs -o mode=755,size=75% upper /upper
busybox mkdir /upper/files /upper/work
busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /root
script=\"$(busybox sed -n 's/.*longshore.script=\\([^ ]*\\).*/\\1/p' /proc/cmdline)\"
for dir in dev proc sys; do busybox mount --move /$dir /root/$dir; done
exec /bin/busybox switch_root /root /bin/busybox sh \"$script\"
"
    )
}

/// What runs the suites.
///
/// The directory `built` has the programs. It is mounted where they were built, as they name each other by such paths.
pub(super) fn suites(
    options: &Options,
    kernel: &Kernel,
    programs: &[Program],
    built: &Path,
    target: &Path,
) -> String {
    let mut script = machine(options, kernel, built, target);
    for (suite, program) in programs {
        // Writing to a String does not fail.
        let _done = write!(script, "{}", self::suite(suite, program));
    }
    script.push_str(&format!("echo '{MARK} done'\nbusybox sync\nexec busybox poweroff -f\n"));
    script
}

/// What makes the guest a machine on which containers can run. /tmp stays a part of the root, as on this machine, and the tests'
/// own files are on a tmpfs: an overlay on an overlay has no writable layer.
fn machine(options: &Options, kernel: &Kernel, built: &Path, target: &Path) -> String {
    let runtime = options.runtime.iter().map(|name| format!(" LONGSHORE_TEST_RUNTIME={name}"));
    format!(
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/stages
exec < /dev/null > {RESULTS} 2>&1
busybox stty -F {RESULTS} raw
mkdir -p /dev/pts /dev/shm
ln -s /proc/self/fd /dev/fd
for stream in 0:stdin 1:stdout 2:stderr; do ln -s /proc/self/fd/${{stream%:*}} /dev/${{stream#*:}}; done
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /stages
mount -t tmpfs -o mode=1777,size=50% tmpfs /stages
rm -rf /lib/modules
ln -s {modules} /lib/modules
mount --bind {built} {target}/debug
ln -s \"$(command -v busybox)\" /run/modprobe
echo /run/modprobe > /proc/sys/kernel/modprobe
for module in loop bridge veth ext4 fuse; do busybox modprobe $module; done
busybox ip link set lo up
hostname guest
{cgroups}ulimit -n {DESCRIPTORS}
cd {tests}
export LONGSHORE_TEST_PROGRAMS={target}/debug LONGSHORE_TEST_SLOWNESS={SLOWNESS} CARGO=/bin/false{runtime}
echo '{MARK} up'
",
        modules = quoted(&kernel.modules),
        built = quoted(built),
        cgroups = cgroups(options.hierarchy),
        tests = quoted(&target.parent().unwrap_or(target).join("tests")),
        target = quoted(target),
        runtime = runtime.collect::<String>(),
    )
}

fn suite(suite: &str, program: &Path) -> String {
    let mut args = ["--test-threads=1", "--color=never"].map(str::to_owned).to_vec();
    args.extend(name_and_filter(suite).1.map(|filter| quoted(Path::new(filter))));
    format!(
        "echo '{MARK} suite' {suite}
busybox timeout -s KILL {SUITE_LIMIT} {program} {args}
echo '{MARK} end' {suite} $?
",
        suite = quoted(Path::new(suite)),
        program = quoted(program),
        args = args.join(" ")
    )
}

/// The commands that mount the hierarchies.
fn cgroups(hierarchy: Hierarchy) -> String {
    let all = V1.join(" ");
    let v1 = format!(
        "mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
for one in {all}; do mkdir /sys/fs/cgroup/$one; mount -t cgroup -o $one cgroup /sys/fs/cgroup/$one; done
mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
"
    );
    match hierarchy {
        Hierarchy::V2 => "mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo '+cpu +memory +pids +io +cpuset' > /sys/fs/cgroup/cgroup.subtree_control
"
        .into(),
        Hierarchy::V1 => v1,
        Hierarchy::Hybrid => {
            v1 + "mkdir /sys/fs/cgroup/unified
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hierarchy_mounts_what_it_says() {
        let of =
            |kind: &str, hierarchy| cgroups(hierarchy).lines().filter(|line| line.contains(kind)).count();
        assert_eq!((of("-t cgroup2 ", Hierarchy::V2), of("-t cgroup ", Hierarchy::V2)), (1, 0));
        assert_eq!((of("-t cgroup2 ", Hierarchy::V1), of("-t cgroup ", Hierarchy::V1)), (0, 2));
        assert_eq!((of("-t cgroup2 ", Hierarchy::Hybrid), of("-t cgroup ", Hierarchy::Hybrid)), (1, 2));
    }
}

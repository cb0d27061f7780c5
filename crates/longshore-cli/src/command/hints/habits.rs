//! What people know from other commands that run containers, and what to do here instead.

/// Options of theirs that this command does not have.
pub(crate) const HABITS: [(&[&str], &str); 42] = [
    (
        &["-d", "--detach", "--detach-keys", "-a", "--attach"],
        "leave it out: the command waits for the program; a shell puts it in the background with &",
    ),
    (
        &["-p", "--publish", "-P", "--publish-all", "--expose"],
        "--net host has the ports of this machine, and --net cni those that CNI maps",
    ),
    (&["--entrypoint"], "name the program as the command"),
    (
        &["--restart", "--replace", "--keep", "--requires"],
        "leave it out: the command waits for one container, and remembers none; a loop of the shell starts another",
    ),
    (&["--security-opt", "--seccomp-policy"], "see --seccomp, --apparmor, --selinux and --no-new-privileges"),
    (
        &["--group-add"],
        "name the user's group with --user USER:GROUP, or start from a config.json, with --config",
    ),
    (&["--userns", "--subuidname", "--subgidname"], "--uidmap and --gidmap make a user namespace"),
    (&["--pid"], "--process-mode no-sandbox shows the processes of this machine"),
    (
        &["--ipc", "--uts", "--cgroupns"],
        "start from a config.json without that namespace, with --config and --allow-host-namespaces",
    ),
    (&["--gpus"], "--device names one by its CDI name, as in nvidia.com/gpu=all"),
    (
        &[
            "--image",
            "--image-volume",
            "--pull",
            "--platform",
            "--arch",
            "--os",
            "--variant",
            "--authfile",
            "--creds",
            "--cert-dir",
            "--tls-verify",
            "--decryption-key",
            "--disable-content-trust",
            "--retry",
            "--retry-delay",
            "--rmi",
        ],
        "there are no images: --rootfs names a root file system",
    ),
    (
        &["--volumes-from", "--volume-driver", "--chrootdirs", "--use-api-socket"],
        "-v and --mount name what is mounted",
    ),
    (&["--link", "--network-alias", "--net-alias"], "--add-host gives it the name of another"),
    (
        &["--ip", "--ip6", "--mac-address", "--link-local-ip"],
        "--net cni:NAME takes what the configuration of that network says",
    ),
    (
        &["--no-hosts", "--hosts-file", "--no-hostname"],
        "bind a file of your own over it, as in -v FILE:/etc/hosts:ro",
    ),
    (
        &["--passwd", "--passwd-entry", "--group-entry", "--hostuser"],
        "bind a file of your own over it, as in -v FILE:/etc/passwd:ro",
    ),
    (&["--log-driver", "--log-opt"], "redirect stdout and stderr"),
    (
        &["--log", "--log-level", "--log-format", "--debug", "-D"],
        "LONGSHORE_LOG=debug has the command log to stderr",
    ),
    (
        &[
            "--health-cmd",
            "--health-interval",
            "--health-retries",
            "--health-timeout",
            "--health-start-interval",
            "--health-start-period",
            "--no-healthcheck",
            "--health-log-destination",
            "--health-max-log-count",
            "--health-max-log-size",
            "--health-on-failure",
            "--health-startup-cmd",
            "--health-startup-interval",
            "--health-startup-retries",
            "--health-startup-success",
            "--health-startup-timeout",
        ],
        "there are no health checks: the library's `exec` makes one",
    ),
    (&["--storage-opt"], "give --rootfs a file system with a limit, or --tmpfs with size="),
    (&["--shm-size-systemd"], "--tmpfs sets the size of one, as in /run:size=64m"),
    (&["--sig-proxy"], "leave it out: signals are passed on"),
    (
        &["--pod", "--pod-id-file", "--init-ctr", "--infra"],
        "there are no pods: --net and --cgroup-parent name what containers share",
    ),
    (&["--label-file"], "give each label with --label"),
    (&["--domainname"], "--hostname takes the whole name"),
    (
        &["--env-host", "--http-proxy", "--env-merge"],
        "-e NAME passes a variable of this machine on, and --env-file a list of them",
    ),
    (
        &["--unsetenv", "--unsetenv-all"],
        "leave it out: the program has no variable of this machine unless -e names it; env -u takes others away, as in env -u PATH PROGRAM",
    ),
    (
        &["--systemd"],
        "leave it out: a systemd in it needs --no-init, --stop-signal RTMIN+3, --tmpfs /run, and cgroups that it may write",
    ),
    (&["--sdnotify"], "bind the socket with -v, and name it with -e NOTIFY_SOCKET=PATH"),
    (&["--init-path"], "leave it out: --init has a program of its own"),
    (
        &["--preserve-fd", "--preserve-fds"],
        "pass the bytes by stdin, or bind a file or socket with -v: nothing else that is open is passed on",
    ),
    (&["--pidfile", "--pid-file", "--conmon-pidfile"], "--events says the pid when the program has started"),
    (&["-b", "--bundle"], "--config names a bundle"),
    (
        &["--console-socket", "--no-subreaper", "--no-new-keyring", "--runtime-flag", "--conmon"],
        "leave it out: it is between the command and its runtime",
    ),
    (
        &["--systemd-cgroup", "--cgroup-manager", "--cgroups"],
        "--cgroup-parent names where its cgroup is, also below a slice of systemd's",
    ),
    (
        &[
            "--memory-reservation",
            "--memory-swappiness",
            "--kernel-memory",
            "--oom-kill-disable",
            "--cpu-rt-period",
            "--cpu-rt-runtime",
            "--cpu-count",
            "--cpu-percent",
            "--io-maxbandwidth",
            "--io-maxiops",
            "--cgroup-conf",
            "--rdt-class",
            "--personality",
            "--device-cgroup-rule",
        ],
        "start from a config.json that has it, with --config",
    ),
    (
        &[
            "--blkio-weight",
            "--blkio-weight-device",
            "--device-read-bps",
            "--device-write-bps",
            "--device-read-iops",
            "--device-write-iops",
        ],
        "start from a config.json that has it, with --config",
    ),
    (&["--annotation"], "--label makes an annotation; start from a config.json for others, with --config"),
    (&["--umask", "--tz"], "set it in the program: sh -c 'umask 027; exec …', or with -e TZ=…"),
    (&["--hooks-dir", "--module"], "start from a config.json with hooks, with --config"),
    (&["--isolation"], "leave it out: there is one kind"),
    (
        &["--context", "--host", "-H", "--url", "--connection", "--remote"],
        "leave it out: there is no daemon, and the container is on this machine",
    ),
];

/// Subcommands of theirs.
pub(crate) const COMMANDS: [(&[&str], &str); 8] = [
    (
        &["ps", "ls", "list", "inspect", "state", "stats", "top", "events"],
        "a call of `longshore run` is one container: `--events` says what happens to it, and the library does the rest",
    ),
    (
        &["logs", "attach"],
        "a call of `longshore run` is one container, and its output is the program's: redirect it",
    ),
    (
        &["stop", "kill", "pause", "resume", "unpause", "rm", "delete"],
        "a call of `longshore run` is one container: send that process a signal, as in kill PID; `longshore sweep` removes what dead ones left",
    ),
    (
        &["exec", "cp", "wait", "start", "restart", "create", "update", "rename", "port"],
        "a call of `longshore run` is one container, with one program: start others from it, as in sh -c, or use the library",
    ),
    (
        &["pull", "push", "images", "build", "image", "load", "save", "import", "login", "tag", "commit"],
        "there are no images: `longshore run --rootfs DIR` takes a root file system",
    ),
    (&["checkpoint", "restore"], "containers are not saved; use the runtime itself"),
    (&["info", "system"], "`longshore doctor` says what is here, and `longshore sweep` tidies up"),
    (
        &["network", "volume", "pod", "compose"],
        "name what is there with --net, -v and --cgroup-parent of `longshore run`",
    ),
];

#[cfg(test)]
mod tests {
    use clap::{Arg, CommandFactory};

    use super::*;
    use crate::command::args::Arguments;

    /// The options of `docker run`.
    const DOCKER: &str = "--add-host --annotation --attach --blkio-weight --blkio-weight-device --cap-add --cap-drop \
        --cgroup-parent --cgroupns --cidfile --cpu-count --cpu-percent --cpu-period --cpu-quota \
        --cpu-rt-period --cpu-rt-runtime --cpu-shares --cpus --cpuset-cpus --cpuset-mems --detach \
        --detach-keys --device --device-cgroup-rule --device-read-bps --device-read-iops --device-write-bps \
        --device-write-iops --disable-content-trust --dns --dns-opt --dns-option --dns-search --domainname \
        --entrypoint --env --env-file --expose --gpus --group-add --health-cmd --health-interval \
        --health-retries --health-start-interval --health-start-period --health-timeout --help --hostname \
        --init --interactive --io-maxbandwidth --io-maxiops --ip --ip6 --ipc --isolation --kernel-memory \
        --label --label-file --link --link-local-ip --log-driver --log-opt --mac-address --memory \
        --memory-reservation --memory-swap --memory-swappiness --mount --name --net --net-alias --network \
        --network-alias --no-healthcheck --oom-kill-disable --oom-score-adj --pid --pids-limit --platform \
        --privileged --publish --publish-all --pull --quiet --read-only --restart --rm --runtime \
        --security-opt --shm-size --sig-proxy --stop-signal --stop-timeout --storage-opt --sysctl --tmpfs \
        --tty --ulimit --use-api-socket --user --userns --uts --volume --volume-driver --volumes-from \
        --workdir -a -c -d -e -h -i -l -m -P -p -q -t -u -v -w";
    /// Those of `podman run` that docker does not have.
    const PODMAN: &str = "--arch --authfile --cert-dir --cgroup-conf --cgroups --chrootdirs --conmon-pidfile --creds \
        --decryption-key --env-host --env-merge --gidmap --group-entry --health-log-destination \
        --health-max-log-count --health-max-log-size --health-on-failure --health-startup-cmd \
        --health-startup-interval --health-startup-retries --health-startup-success --health-startup-timeout \
        --hosts-file --hostuser --http-proxy --image-volume --init-ctr --init-path --no-hostname --no-hosts \
        --os --passwd --passwd-entry --personality --pidfile --pod --pod-id-file --preserve-fd \
        --preserve-fds --rdt-class --replace --requires --retry --retry-delay --rmi --rootfs --sdnotify \
        --seccomp-policy --secret --shm-size-systemd --subgidname --subuidname --systemd --timeout \
        --tls-verify --tz --uidmap --umask --unsetenv --unsetenv-all --variant";
    /// The options of `runc` and of `runc run`.
    const RUNC: &str = "--bundle --console-socket --detach --keep --log --log-format --no-new-keyring --no-pivot \
        --no-subreaper --pid-file --preserve-fds --root --systemd-cgroup -b -d";

    fn run() -> clap::Command {
        let mut all = Arguments::command();
        all.build();
        all.find_subcommand("run").unwrap().clone()
    }

    fn is_called(option: &str, known: &Arg) -> bool {
        let long = option.strip_prefix("--");
        let short = option.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
        let aliases = known.get_all_aliases().unwrap_or_default();
        let is_long = long.is_some_and(|long| known.get_long() == Some(long) || aliases.contains(&long));
        is_long || short.is_some_and(|short| known.get_short().map(String::from).as_deref() == Some(short))
    }

    #[test]
    fn every_option_of_others_is_taken_or_answered() {
        let run = run();
        for option in [DOCKER, PODMAN, RUNC].iter().flat_map(|all| all.split_whitespace()) {
            let is_taken = run.get_arguments().any(|known| is_called(option, known));
            let is_answered = HABITS.iter().any(|(options, _)| options.contains(&option));
            assert!(is_taken || is_answered, "{option}");
        }
    }

    /// A word of another command that this one has as well would never be looked for.
    #[test]
    fn what_is_answered_is_not_taken() {
        let run = run();
        for option in HABITS.iter().flat_map(|(options, _)| *options) {
            assert!(!run.get_arguments().any(|known| is_called(option, known)), "{option}");
        }
        let all = Arguments::command();
        for command in COMMANDS.iter().flat_map(|(commands, _)| *commands) {
            assert!(all.find_subcommand(command).is_none(), "{command}");
        }
    }
}

//! The arguments of the runtime's commands.

use std::ffi::OsString;
use std::path::Path;

use executor_core::Resources;
use executor_core::lifecycle::ContainerId;

use crate::oci::Launch;

/// A command that starts a process.
pub(super) enum Step<'a> {
    Create { bundle: &'a Path },
    Run { bundle: &'a Path },
    Exec { process: &'a Path },
}

impl Step<'_> {
    /// The name of the command.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Run { .. } => "run",
            Self::Create { .. } => "create",
            Self::Exec { .. } => "exec",
        }
    }

    /// The bundle of the container that is made.
    pub(super) const fn bundle(&self) -> Option<&Path> {
        match self {
            Self::Run { bundle } | Self::Create { bundle } => Some(bundle),
            Self::Exec { .. } => None,
        }
    }

    pub(super) fn args(&self, id: &ContainerId, launch: &Launch, no_pivot: bool) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        args.extend(launch.systemd_cgroup.then(|| "--systemd-cgroup".into()));
        args.push(self.name().into());
        // `create` has no such option: it always detaches.
        if launch.detach && !matches!(self, Self::Create { .. }) {
            args.push("--detach".into());
        }
        args.extend(["--pid-file".into(), launch.pid_file.clone().into()]);
        if let Some(console) = &launch.console_socket {
            args.extend(["--console-socket".into(), console.into()]);
        }
        match self {
            Self::Run { bundle } | Self::Create { bundle } => {
                args.extend(["--bundle".into(), bundle.into()]);
                args.extend(no_pivot.then(|| "--no-pivot".into()));
            }
            Self::Exec { process } => args.extend(["--process".into(), process.into()]),
        }
        args.extend(["--".into(), id.as_str().into()]);
        args
    }
}

/// Limits as options of `update`. No limit is -1 there. For pids crun does not know that: the most that there can be is the
/// same.
pub(super) fn limits(resources: &Resources) -> Vec<OsString> {
    let Resources { memory, memory_swap, cpu_shares, cpuset_cpus, cpuset_mems, pids, .. } = resources;
    let (quota, period) = resources.cpu_time();
    let or_none = |limit: u64| if limit == u64::MAX { "-1".to_owned() } else { limit.to_string() };
    let options = [
        ("--memory", memory.map(|bytes| bytes.to_string())),
        ("--memory-swap", memory_swap.map(or_none)),
        ("--cpu-quota", quota.map(|quota| quota.to_string())),
        ("--cpu-period", period.map(|period| period.to_string())),
        ("--cpu-share", cpu_shares.map(|shares| shares.to_string())),
        ("--cpuset-cpus", cpuset_cpus.clone()),
        ("--cpuset-mems", cpuset_mems.clone()),
        ("--pids-limit", pids.map(|pids| pids.min(Resources::MOST_PIDS).to_string())),
    ];
    let given = options.into_iter().filter_map(|(option, value)| Some([option.into(), value?.into()]));
    given.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_after_the_end_of_options() {
        let id = ContainerId::new("c1").unwrap();
        let pid_file = Path::new("/b/init.pid");
        let launch = |detach| Launch {
            pid_file: pid_file.to_owned(),
            console_socket: None,
            detach,
            systemd_cgroup: detach,
        };
        let run = Step::Run { bundle: Path::new("/b") }.args(&id, &launch(true), true);
        assert_eq!(
            run.join(" ".as_ref()),
            "--systemd-cgroup run --detach --pid-file /b/init.pid --bundle /b --no-pivot -- c1"
        );
        let exec = Step::Exec { process: Path::new("/b/p.json") }.args(&id, &launch(false), true);
        assert_eq!(exec.join(" ".as_ref()), "exec --pid-file /b/init.pid --process /b/p.json -- c1");
    }

    #[test]
    fn limits_are_options_and_what_is_absent_is_not_mentioned() {
        let resources = Resources::default().memory(64 << 20).memory_swap(u64::MAX).cpus(0.5).pids(7);
        assert_eq!(
            limits(&resources).join(" ".as_ref()),
            "--memory 67108864 --memory-swap -1 --cpu-quota 50000 --cpu-period 100000 --pids-limit 7"
        );
        assert_eq!(limits(&Resources::default().pids(u64::MAX)).join(" ".as_ref()), "--pids-limit 4194304");
        assert!(limits(&Resources::default()).is_empty());
    }
}

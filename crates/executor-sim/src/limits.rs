//! The limits of a container after an update.

use executor_core::Resources;

/// Changes the limits that an update names. A number of CPUs stands for a quota and a period, as in [`Resources`].
pub(crate) fn merge(limits: &mut Resources, update: &Resources) {
    let Resources {
        memory,
        memory_swap,
        cpus,
        cpu_quota,
        cpu_period,
        cpu_shares,
        cpuset_cpus,
        cpuset_mems,
        pids,
        ..
    } = update.clone();
    if cpus.is_some() {
        (limits.cpus, limits.cpu_quota, limits.cpu_period) = (cpus, None, None);
    } else if cpu_quota.is_some() || cpu_period.is_some() {
        let (quota, period) = limits.cpu_time();
        limits.cpus = None;
        limits.cpu_quota = cpu_quota.or(quota);
        limits.cpu_period = cpu_period.or(period);
    }
    limits.memory = memory.or(limits.memory);
    limits.memory_swap = memory_swap.or(limits.memory_swap);
    limits.cpu_shares = cpu_shares.or(limits.cpu_shares);
    limits.cpuset_cpus = cpuset_cpus.or(limits.cpuset_cpus.take());
    limits.cpuset_mems = cpuset_mems.or(limits.cpuset_mems.take());
    limits.pids = pids.or(limits.pids);
}

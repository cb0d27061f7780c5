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
        if let Some(cpus) = limits.cpus.take() {
            limits.cpu_quota = Some((cpus * Resources::CPU_PERIOD as f64).round() as u64);
            limits.cpu_period = Some(Resources::CPU_PERIOD);
        }
        limits.cpu_quota = cpu_quota.or(limits.cpu_quota);
        limits.cpu_period = cpu_period.or(limits.cpu_period);
    }
    limits.memory = memory.or(limits.memory);
    limits.memory_swap = memory_swap.or(limits.memory_swap);
    limits.cpu_shares = cpu_shares.or(limits.cpu_shares);
    limits.cpuset_cpus = cpuset_cpus.or(limits.cpuset_cpus.take());
    limits.cpuset_mems = cpuset_mems.or(limits.cpuset_mems.take());
    limits.pids = pids.or(limits.pids);
}

//! The decisions of the scheduler, without actors, clocks and containers.

use std::collections::{BTreeMap, BTreeSet};

use crate::job::{Job, Size};

/// What the scheduler has to do next.
pub(crate) enum Order {
    Start(Job),
    Preempt(Job),
}

pub(crate) struct Policy {
    capacity: Size,
    queue: BTreeSet<Job>,
    /// Jobs that run, and whether each has been preempted.
    running: BTreeMap<Job, bool>,
    /// The most CPUs and the most memory that were in use.
    pub(crate) peak: Size,
}

impl Policy {
    pub(crate) const fn new(capacity: Size) -> Self {
        Self { capacity, queue: BTreeSet::new(), running: BTreeMap::new(), peak: (0, 0) }
    }

    pub(crate) fn submit(&mut self, job: Job) {
        self.queue.insert(job);
    }

    /// A job has ended. If it was preempted, it is queued again.
    pub(crate) fn ended(&mut self, job: Job, preempted: bool) {
        self.running.remove(&job);
        if preempted {
            self.submit(job);
        }
    }

    /// The most important job starts if it fits. If it does not fit even after those that leave have left, the least important
    /// job is preempted, provided that it is less important.
    pub(crate) fn next(&mut self) -> Option<Order> {
        let next = *self.queue.first()?;
        let fits = |size: Size| size.0 <= self.capacity.0 && size.1 <= self.capacity.1;
        if fits(sum(self.running.keys().chain([&next]))) {
            self.queue.remove(&next);
            self.running.insert(next, false);
            let used = sum(self.running.keys());
            self.peak = (self.peak.0.max(used.0), self.peak.1.max(used.1));
            return Some(Order::Start(next));
        }
        let staying = self.running.iter().filter(|(_, leaving)| !**leaving).map(|(job, _)| job);
        if fits(sum(staying.chain([&next]))) {
            return None;
        }
        let lesser = self.running.iter_mut().filter(|(job, leaving)| !**leaving && job.rank > next.rank);
        let (job, leaving) = lesser.last()?;
        *leaving = true;
        Some(Order::Preempt(*job))
    }
}

fn sum<'a>(jobs: impl Iterator<Item = &'a Job>) -> Size {
    jobs.fold((0, 0), |sum, job| (sum.0 + job.size.0, sum.1 + job.size.1))
}

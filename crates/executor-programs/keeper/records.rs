//! Reaping every child, and the records of how they have ended.

use crate::keeper::{Keeper, Known};
use crate::messages::{HAS_EXECUTED, IS_MARKED, Process, Record, WAS_SPAWNED};
use crate::sys;
use crate::text;

/// The most records. There are more only if a container without a pid namespace leaves that many orphans behind, and no client
/// forgets them.
const MOST: usize = 64 << 10;

/// How many are dropped at once then: orphans first, the oldest first.
const DROPPED: usize = MOST / 16;

/// From linux/sched.h: it was forked and has executed nothing since.
const FORKED_ONLY: u64 = 0x40;

impl Keeper {
    /// Reaps every child that has ended.
    pub fn reap(&mut self) {
        while let Ok(Some(pid)) = sys::next_ended() {
            // It is looked at before it is reaped, because nothing is known of it afterwards.
            let seen = text::start_and_flags(pid).or_else(|| self.with_spare(|| text::start_and_flags(pid)));
            let Ok(ended) = sys::reap(pid) else { return };
            let (start, task_flags) = seen.unwrap_or((0, FORKED_ONLY));
            let process = Process { pid, start };
            let executed = if task_flags & FORKED_ONLY == 0 { HAS_EXECUTED } else { 0 };
            let flags = executed | self.forget_known(process);
            self.last += 1;
            self.keep(Record {
                number: self.last,
                process,
                status: ended.status,
                flags,
                at: sys::now(),
                times: ended.times,
                memory: ended.memory,
            });
        }
    }

    /// What is known of a child that has ended.
    fn forget_known(&mut self, process: Process) -> u32 {
        let mut flags = 0;
        // Its start is not known if there were no descriptors to read it.
        let is_it = |known: &Known| known.process.is(&process) || process.is(&known.process);
        if let Some(index) = self.known.as_slice().iter().position(is_it) {
            flags = self.known.as_slice().get(index).map_or(0, |known| known.flags);
            self.known.remove(index);
        }
        flags
    }

    fn keep(&mut self, record: Record) {
        if self.records.as_slice().len() >= MOST || self.records.push(record).is_err() {
            self.drop_oldest();
            let _no_memory = self.records.push(record);
        }
    }

    fn drop_oldest(&mut self) {
        let is_orphans = |record: &Record| record.flags & (WAS_SPAWNED | IS_MARKED) == 0;
        let orphans = self.records.as_slice().iter().filter(|record| is_orphans(record)).count();
        let mut left = DROPPED;
        self.records.retain(|record| {
            let is_dropped = left > 0 && (orphans == 0 || is_orphans(record));
            left -= usize::from(is_dropped);
            !is_dropped
        });
    }

    /// Remembers something about a child that has not ended.
    pub fn know(&mut self, process: Process, flags: u32) -> sys::Result<()> {
        if let Some(known) = self.known.as_mut_slice().iter_mut().find(|known| known.process == process) {
            known.flags |= flags;
            return Ok(());
        }
        self.known.push(Known { process, flags })
    }

    /// The last record of a process.
    pub fn record(&self, process: Process) -> Option<Record> {
        self.records.as_slice().iter().rev().find(|record| process.is(&record.process)).copied()
    }
}

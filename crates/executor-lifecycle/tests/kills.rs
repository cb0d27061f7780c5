//! What is decided about kills for lack of memory, against a kernel that kills at random and writes down what it likes.

use std::collections::BTreeMap;

use executor_lifecycle::*;
use proptest::prelude::*;

/// A kill on the host.
#[derive(Clone, Debug)]
struct Kill {
    /// The process in question, or another.
    is_own: bool,
    /// In the same container. What is its own is.
    is_here: bool,
    /// Its record has the cgroup.
    is_placed: bool,
}

fn kill() -> impl Strategy<Value = Kill> {
    (prop::bool::weighted(0.2), any::<bool>(), any::<bool>()).prop_map(|(is_own, is_here, is_placed)| Kill {
        is_own,
        is_here: is_own || is_here,
        is_placed,
    })
}

proptest! {
    #[test]
    fn a_whole_log_names_what_was_killed(
        kills in prop::collection::vec(kill(), 0..20),
        log_is_whole in any::<bool>(),
        can_count in any::<bool>(),
        of_program in any::<bool>(),
    ) {
        let own = HostPid::new(1000).unwrap();
        let (mut killed, mut killed_anywhere, mut counted, mut was_killed) = (Vec::new(), Vec::new(), 0, false);
        for (other, kill) in (1..).zip(&kills) {
            counted += u64::from(kill.is_here);
            was_killed |= kill.is_own;
            // A log with gaps has none of these.
            let pid = if kill.is_own { own } else { HostPid::new(other).unwrap() };
            match (log_is_whole, kill.is_placed, kill.is_here) {
                (true, true, true) => killed.push(pid),
                (true, false, _) => killed_anywhere.push(pid),
                (true, true, false) | (false, _, _) => {}
            }
        }
        let (status, reports) = match of_program {
            true => (ExitStatus::Code(137), ReportedEnd::OfProgram(Some(own))),
            false => (ExitStatus::Signal(Signal::KILL), ReportedEnd::Own),
        };
        let found = OomFindings {
            status,
            pid: if of_program { HostPid::new(2000) } else { Some(own) },
            reports,
            killed: &killed,
            killed_anywhere: &killed_anywhere,
            log_is_whole,
            counted: can_count.then_some(counted),
        };
        let expected = match (log_is_whole, was_killed) {
            (true, true) => Some(OomEvidence::Killed),
            (true, false) => Some(OomEvidence::NotKilled),
            (false, _) => can_count.then_some(OomEvidence::Counted(counted)),
        };
        prop_assert_eq!(found.evidence(), expected, "{:?}", found);
    }

    /// Cgroups are made, count, and are removed. Nothing is missed that was there when it was looked at.
    #[test]
    fn what_was_seen_is_kept(steps in prop::collection::vec((0..6_u64, 0..4_u64, any::<bool>()), 0..40)) {
        let (mut seen, mut present, mut gone, mut next) = (SeenKills::default(), BTreeMap::new(), 0, 0);
        for (cgroup, kills, is_removed) in steps {
            if is_removed {
                let index = usize::try_from(cgroup).unwrap_or_default();
                let removed = present.keys().nth(index).copied().and_then(|inode| present.remove(&inode));
                gone += removed.unwrap_or_default();
            } else {
                let index = usize::try_from(cgroup).unwrap_or_default();
                match present.values_mut().nth(index) {
                    Some(counter) => *counter += kills,
                    None => drop(present.insert(next, kills)),
                }
                next += 1;
            }
            let sum = gone + present.values().sum::<u64>();
            prop_assert_eq!(seen.see(present.clone()), sum);
        }
    }
}

//! The reaper under random events, against a model that shares nothing with it: the letters that are
//! left when pairs are struck out.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;

use executor_lifecycle::exit_router::{ExitRouter, ExitRouterEffect, ExitRouterEvent};
use executor_lifecycle::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Watch(ProcessRef),
    Ended(ProcessRef, u8),
    Forget(ContainerId),
}

fn container() -> impl Strategy<Value = ContainerId> {
    // One id is the beginning of another, and one sorts between its processes if they were text.
    prop::sample::select(vec!["a", "a-", "a.b", "b"]).prop_map(|id| ContainerId::new(id).unwrap())
}

fn process() -> impl Strategy<Value = ProcessRef> {
    (container(), prop::option::of(prop::sample::select(vec!["0", "a-b", "zzz"]))).prop_map(|(id, exec)| {
        match exec {
            None => ProcessRef::init(id),
            Some(exec) => ProcessRef::exec(id, ExecId::new(exec).unwrap()),
        }
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => process().prop_map(Op::Watch),
        4 => (process(), any::<u8>()).prop_map(|(process, code)| Op::Ended(process, code)),
        1 => container().prop_map(Op::Forget),
    ]
}

/// For each process what is unpaired: `w` for a watch, the code of an end.
type Unpaired = BTreeMap<ProcessRef, Vec<Option<u8>>>;

/// What the reaper has to answer: the code that is delivered, nothing, or that the event is stale.
fn expected(unpaired: &mut Unpaired, op: &Op) -> Result<Option<u8>, ()> {
    let (process, letter) = match op {
        Op::Forget(container) => {
            unpaired.retain(|process, _| process.container != *container);
            return Ok(None);
        }
        Op::Watch(process) => (process, None),
        Op::Ended(process, code) => (process, Some(*code)),
    };
    let letters = unpaired.entry(process.clone()).or_default();
    match letters.last() {
        Some(last) if last.is_some() == letter.is_some() => Err(()),
        Some(last) => {
            let code = letter.or(*last);
            letters.pop();
            Ok(code)
        }
        None => {
            letters.push(letter);
            Ok(None)
        }
    }
}

proptest! {
    #[test]
    fn every_end_is_delivered_once_to_the_one_who_watches(ops in prop::collection::vec(op(), 0..200)) {
        let mut reaper = ExitRouter::default();
        let mut unpaired = Unpaired::new();
        for op in ops {
            let event = match op.clone() {
                Op::Watch(process) => ExitRouterEvent::Watch(process),
                Op::Ended(process, code) => ExitRouterEvent::Ended(process, RawExit::with(ExitStatus::Code(code))),
                Op::Forget(container) => ExitRouterEvent::Forget(container),
            };
            let answer = reaper.step(event).map_err(|_| ()).map(|effects| {
                let delivered = effects.into_iter().next();
                delivered.map(|ExitRouterEffect::Deliver(_, ending)| ending.status)
            });
            let expected = expected(&mut unpaired, &op).map(|code| code.map(ExitStatus::Code));
            prop_assert_eq!(answer, expected, "{:?}", op);
            let left = |watch: bool| unpaired.values().flatten().filter(|letter| letter.is_none() == watch).count();
            prop_assert_eq!(reaper.sizes(), (left(true), left(false)));
        }
    }
}

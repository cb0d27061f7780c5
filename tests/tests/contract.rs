//! The contract on everything that keeps it: the simulator, as it is and permuted by seeds; runc; and
//! runc kept in the foreground. See `src/contract.rs` for the clauses.

use executor_sim::{SimRuntime, Simulation};
use longshore::Executor;
use longshore_tests::contract::{clauses, signals_are_codes};
use longshore_tests::{Stage, for_each_clause, kernel_keeps_exits, on_stage};

macro_rules! simulated {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let simulation = || Simulation::new(SimRuntime::new());
                simulation().run(async |sim| clauses::$name(&sim.executor).await);
                Simulation::explore(0..20, simulation, async |sim| clauses::$name(&sim.executor).await);
            }
        )*
    };
}

/// A clause on runc, kept as `executor` says.
fn on_runc(executor: fn(&Stage) -> Executor, clause: impl AsyncFnOnce(&Executor)) {
    on_stage(async |stage| {
        let executor = executor(&stage);
        clause(&executor).await;
        stage.finish(executor).await;
    });
}

macro_rules! real {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                signals_are_codes(false);
                on_runc(Stage::executor, clauses::$name);
            }
        )*
    };
}

macro_rules! real_in_the_foreground {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                signals_are_codes(!kernel_keeps_exits());
                on_runc(Stage::foreground_executor, clauses::$name);
            }
        )*
    };
}

mod simulator {
    use super::*;
    for_each_clause!(simulated);
}

mod runc {
    use super::*;
    for_each_clause!(real);
}

mod runc_in_the_foreground {
    use super::*;
    for_each_clause!(real_in_the_foreground);
}

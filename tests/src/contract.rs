//! The contract of an executor: its promises to embedders, on every runtime.
//!
//! Each clause is a function of an executor. It asserts the same on the simulator, on runc and on runc in the
//! foreground; `tests/contract.rs` runs it on them. Programs are scripts that the simulator's shell understands. The
//! test that runs a clause checks what is left afterwards.

mod cancels;
mod events;
mod execs;
mod held;
mod ids;
mod pauses;
mod runs;
mod shutdowns;

use std::cell::Cell;
use std::time::Duration;

use longshore::{
    CancelCause, ContainerHandle, ContainerId, ContainerSpec, Error, ExecSpec, Executor, Exit, ExitReason,
    ExitStatus, Output, ProcessHandle, Refusal, Signal, StartFailureKind,
};

use self::cancels::{
    cancel_after_the_end_is_satisfied, cancel_before_the_start, cancel_kills_what_does_not_end,
    cancel_need_not_be_awaited, cancel_of_an_exec_leaves_the_container,
    cancel_twice_keeps_the_first_cause_and_the_sooner_end, cancel_while_paused_thaws,
    cancel_with_grace_lets_the_program_end, handles_may_be_dropped, signals_come_in_order,
    signals_reach_groups_and_whole_containers, signals_wait_for_the_start, the_last_handle_may_cancel,
    what_nobody_waits_for_any_more_is_cancelled,
};
use self::events::{actors_are_sent_each_exit_once, actors_can_subscribe, late_subscribers_get_a_snapshot};
use self::execs::{
    execs_asked_for_early_wait_for_the_container, execs_end_on_their_own, execs_end_with_their_container,
    execs_have_ids_and_are_found_again, execs_have_the_containers_environment_and_their_own,
    three_exec_errors,
};
use self::held::{
    a_container_is_held_at_created, equal_runs_start_what_is_kept_ready, execs_wait_for_what_is_held,
    what_cannot_be_kept_ready_says_why, what_is_held_ends_at_once,
};
use self::ids::{
    exits_are_remembered, ids_are_taken_until_released, released_means_that_the_id_is_free,
    what_has_exited_is_kept,
};
use self::pauses::{
    kills_reach_what_is_being_paused, pause_stands_still, without_a_terminal_there_is_no_resize,
};
use self::runs::{
    a_run_is_told_from_created_to_released, exit_codes_and_signals_are_what_the_kernel_said,
    output_is_complete_and_streams_are_apart, outputs_are_attached_to_at_any_time,
    stdin_and_its_end_reach_the_program, success_is_the_programs_own, time_limits_end_programs,
    what_cannot_start_says_why,
};
use self::shutdowns::{
    a_drain_waits_for_what_is_there, shutdown_ends_everything, shutdown_gives_programs_their_grace,
    shutdown_kills_before_its_deadline,
};

/// Gives the names of all clauses to a macro.
#[macro_export]
macro_rules! for_each_clause {
    ($macro:ident) => {
        $macro! {
            a_run_is_told_from_created_to_released
            exit_codes_and_signals_are_what_the_kernel_said
            what_cannot_start_says_why
            time_limits_end_programs
            output_is_complete_and_streams_are_apart
            stdin_and_its_end_reach_the_program
            execs_have_the_containers_environment_and_their_own
            execs_asked_for_early_wait_for_the_container
            execs_end_on_their_own
            execs_end_with_their_container
            three_exec_errors
            signals_come_in_order
            signals_wait_for_the_start
            cancel_with_grace_lets_the_program_end
            cancel_kills_what_does_not_end
            cancel_before_the_start
            cancel_while_paused_thaws
            cancel_after_the_end_is_satisfied
            cancel_twice_keeps_the_first_cause_and_the_sooner_end
            cancel_of_an_exec_leaves_the_container
            cancel_need_not_be_awaited
            signals_reach_groups_and_whole_containers
            outputs_are_attached_to_at_any_time
            what_nobody_waits_for_any_more_is_cancelled
            the_last_handle_may_cancel
            without_a_terminal_there_is_no_resize
            pause_stands_still
            kills_reach_what_is_being_paused
            handles_may_be_dropped
            a_container_is_held_at_created
            what_is_held_ends_at_once
            execs_wait_for_what_is_held
            what_has_exited_is_kept
            exits_are_remembered
            execs_have_ids_and_are_found_again
            released_means_that_the_id_is_free
            a_drain_waits_for_what_is_there
            equal_runs_start_what_is_kept_ready
            what_cannot_be_kept_ready_says_why
            ids_are_taken_until_released
            late_subscribers_get_a_snapshot
            actors_can_subscribe
            actors_are_sent_each_exit_once
            success_is_the_programs_own
            shutdown_gives_programs_their_grace
            shutdown_kills_before_its_deadline
            shutdown_ends_everything
        }
    };
}

macro_rules! publish {
    ($($name:ident)*) => {
        /// One function for each clause.
        pub mod clauses {
            $(
                /// Checks the clause of this name.
                pub async fn $name(executor: &longshore::Executor) {
                    super::$name(executor).await;
                }
            )*
        }
    };
}

for_each_clause!(publish);

const GRACE: Duration = Duration::from_secs(30);

/// Long enough to see that nothing happens.
const QUIET: Duration = Duration::from_millis(200);

async fn run(executor: &Executor, spec: ContainerSpec) -> ContainerHandle {
    match executor.run(spec).await {
        Ok(container) => container,
        Err(error) => panic!("run: {error}"),
    }
}

async fn started(container: &ContainerHandle) {
    if let Err(error) = container.started().await {
        panic!("{error}");
    }
}

async fn exec(container: &ContainerHandle, script: &str) -> ProcessHandle {
    match container.exec(ExecSpec::new(["sh", "-c", script]).piped()).await {
        Ok(process) => process,
        Err(error) => panic!("exec: {error}"),
    }
}

async fn all(output: Option<Output>) -> String {
    let output = output.map(Output::read_to_end);
    let Some(output) = output else { panic!("there is no pipe") };
    String::from_utf8_lossy(&output.await).into_owned()
}

/// Waits until the program has written `ready`.
async fn ready(container: &ContainerHandle) -> Output {
    let Some(mut stdout) = container.io().take_stdout() else { panic!("there is no pipe") };
    assert_eq!(chunk(&mut stdout).await, "ready\n");
    stdout
}

async fn chunk(output: &mut Output) -> String {
    String::from_utf8_lossy(&output.next_chunk().await.unwrap_or_default()).into_owned()
}

fn id(name: &str) -> ContainerId {
    match ContainerId::new(name) {
        Ok(id) => id,
        Err(error) => panic!("{error}"),
    }
}

fn requested(killed: bool) -> ExitReason {
    ExitReason::Cancelled { cause: CancelCause::Requested, killed }
}

const KILLED: ExitStatus = ExitStatus::Signal(Signal::KILL);

thread_local! {
    static SIGNALS_ARE_CODES: Cell<bool> = const { Cell::new(false) };
}

/// Says that on this thread an end by a signal may be reported as the runtime reports it: in the foreground, 128 and
/// the signal's number, on kernels that do not know the status of a process that was reaped.
pub fn signals_are_codes(are: bool) {
    SIGNALS_ARE_CODES.set(are);
}

/// The status of a process that a signal has ended, however it is reported here.
fn told(status: ExitStatus) -> ExitStatus {
    let ExitStatus::Code(code @ 129..) = status else { return status };
    let signal = Signal::new(code - 128).filter(|_| SIGNALS_ARE_CODES.get());
    signal.map_or(status, ExitStatus::Signal)
}

fn start_failure(exit: Exit) -> StartFailureKind {
    let ExitReason::StartFailed(failure) = exit.reason else { panic!("{exit:?}") };
    failure.kind
}

fn refusal<T>(answer: Result<T, Error>) -> Refusal {
    let Err(Error::Refused { refused, .. }) = answer else { panic!("it was not refused") };
    refused.reason
}

/// In the foreground nothing can be kept ready, and is said to be so; runs go on as ever.
async fn kept_ready(executor: &Executor, spec: &ContainerSpec, count: usize) -> bool {
    match executor.prepare(spec.clone(), count).await {
        Ok(()) => true,
        Err(Error::NotReady(failure)) if failure.message.contains("foreground") => false,
        Err(error) => panic!("prepare: {error}"),
    }
}

//! The actors: thin shells around the machines of `executor_lifecycle`.
//!
//! Each handler does three things: it translates the message into an event, lets the machine take its step, and
//! performs the effects. No handler awaits or blocks. What takes time is spawned, and its result comes back as an
//! event.
//!
//! | actor | one for each | its machine | owned by |
//! |---|---|---|---|
//! | [`ExecutorActor`] | executor | [`registry`](executor_lifecycle::registry) | its thread |
//! | [`Reaper`] | executor | [`exit_router`](executor_lifecycle::exit_router): it routes exits | the executor |
//! | [`Container`] | container | [`container`](executor_lifecycle::container) | the executor |
//! | [`Process`] | process, init included | [`process`](executor_lifecycle::process) | its container |
//!
//! References are strong downward and weak upward. If an actor panics, its `Drop` sends a message, and its owner ends what
//! the actor was responsible for.

mod container;
mod executor;
mod process;
mod ready;
mod reaper;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Message, Recipient, SpawnHandle, WeakRecipient,
};
use executor_lifecycle::Timestamp;

pub use self::container::Container;
pub use self::executor::ExecutorActor;
pub(crate) use self::executor::Left;
pub use self::process::Process;
pub use self::reaper::Reaper;
use crate::Runtime;
use crate::clock::Clock;
use crate::history::History;
use crate::metrics::Meters;
use crate::observe::ObserverSlot;

/// What actors of one executor share.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Clock,
    pub(crate) reaper: Addr<Reaper>,
    pub(crate) observer_slot: ObserverSlot,
    pub(crate) meters: Meters,
    pub(crate) history: Arc<History>,
    /// Held by every actor: they are all gone when it is.
    pub(crate) present: tokio::sync::mpsc::Sender<Infallible>,
}

/// The timer of an actor whose machine has deadlines.
#[derive(Default)]
struct Ticker(Option<(Timestamp, SpawnHandle)>);

impl Ticker {
    /// Calls `tick` at `deadline`, in place of the former deadline.
    fn set<A>(
        &mut self,
        deadline: Option<Timestamp>,
        clock: Clock,
        context: &mut Context<A>,
        tick: fn(&mut A, &mut Context<A>),
    ) where
        A: Actor<Context = Context<A>>,
    {
        if self.0.map(|(at, _)| at) == deadline {
            return;
        }
        if let Some((_, handle)) = self.0.take() {
            context.cancel_future(handle);
        }
        self.0 = deadline.map(|at| {
            // Timers have a resolution of 1 ms and may fire early by less. Then the machine waits again.
            let wait = clock.until(at).saturating_add(Duration::from_millis(1));
            let sleep = actix::fut::wrap_future::<_, A>(tokio::time::sleep(wait));
            (at, context.spawn(sleep.map(move |(), actor, context| tick(actor, context))))
        });
    }

    /// Call it when the timer has fired.
    fn clear(&mut self) {
        self.0 = None;
    }
}

/// Sends a fact to the actor above, and logs it if that has ended.
fn send_fact<M>(to: &WeakRecipient<M>, fact: M)
where
    M: Message<Result = ()> + Send + 'static,
{
    match to.upgrade() {
        Some(to) if to.connected() => to.do_send(fact),
        Some(_) => tracing::debug!(fact = std::any::type_name::<M>(), "its receiver has ended"),
        None => tracing::debug!(fact = std::any::type_name::<M>(), "its receiver has been dropped"),
    }
}

/// Sends a fact whose loss matters to another actor: `undelivered` is called if the receiver ends before it takes it.
/// As with `do_send`, the fact enters the mailbox before this returns. `do_send` is cheaper by a task, and is used
/// where the loss matters to no other actor.
fn deliver<M>(to: &Recipient<M>, fact: M, undelivered: impl FnOnce(&'static str) + 'static)
where
    M: Message<Result = ()> + Send + 'static,
{
    let request = to.send(fact);
    actix_rt::spawn(async move {
        if request.await.is_err() {
            tracing::debug!(fact = std::any::type_name::<M>(), "its receiver ended first");
            undelivered(std::any::type_name::<M>());
        }
    });
}

/// Runs the future of a runtime in a task of its own. If it panics, the result is `None`, and the actor runs on.
async fn apart<T: 'static>(work: impl Future<Output = T> + 'static) -> Option<T> {
    actix_rt::spawn(work).await.ok()
}

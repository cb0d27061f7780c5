//! The actors: thin shells around the machines of `executor_lifecycle`.
//!
//! Each handler does three things: it translates the message into an event, lets the machine take
//! its step, and performs the effects. Nothing is awaited and nothing blocks in a handler; what takes
//! time is spawned, and its completion comes back as an event.
//!
//! | actor | one for each | owned by |
//! |---|---|---|
//! | [`ExecutorActor`] | executor | its thread |
//! | [`Reaper`] | executor | the executor |
//! | [`Container`] | container | the executor |
//! | [`Process`] | process, init included | its container |
//!
//! References are strong downward and weak upward. An actor that panics tells its owner with its
//! last breath (`Drop`), and the owner ends what it was in charge of.

mod container;
mod executor;
mod process;
mod ready;
mod reaper;

use std::convert::Infallible;
use std::sync::Arc;

use actix::{Addr, Message, Recipient, WeakRecipient};

pub use self::container::Container;
pub use self::executor::ExecutorActor;
pub use self::process::Process;
pub use self::reaper::Reaper;
use crate::Runtime;
use crate::clock::Clock;
use crate::observe::ObserverSlot;

/// What actors of one executor share.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Clock,
    pub(crate) reaper: Addr<Reaper>,
    pub(crate) observer_slot: ObserverSlot,
    /// Held by every actor: they are all gone when it is.
    pub(crate) _present: tokio::sync::mpsc::Sender<Infallible>,
}

/// Sends a fact to the actor above, and says so when it could not arrive.
fn tell<M>(to: &WeakRecipient<M>, fact: M)
where
    M: Message<Result = ()> + Send + 'static,
{
    match to.upgrade() {
        Some(to) if to.connected() => to.do_send(fact),
        Some(_) => tracing::debug!(fact = std::any::type_name::<M>(), "its receiver has ended"),
        None => tracing::debug!(fact = std::any::type_name::<M>(), "its receiver is gone"),
    }
}

/// Sends a fact that somebody else has to have when its receiver ends before it takes it: `undelivered` is called
/// then. It enters the mailbox before this returns, as with `do_send`; where the loss is nobody's, that is cheaper by
/// a task.
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

//! An observer of the actors: it sees every message that they take, and may change their order.
//!
//! It is for simulations and tests. An executor without an observer pays nothing for it. Messages from one sender to
//! one receiver keep their order. The observer decides only which of the actors that have work goes first, which is
//! not defined anyway.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix::dev::ContextFut;
use actix::{Actor, Addr};
use executor_lifecycle::container::ContainerEvent;
use executor_lifecycle::exit_router::ExitRouterEvent;
use executor_lifecycle::process::ProcessEvent;
use executor_lifecycle::registry::RegistryEvent;
use executor_lifecycle::{ContainerId, ProcessRef, Refused, Timestamp};

use crate::clock::Clock;

/// Watches the actors of one executor, on their thread.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use executor_core::{ContainerSpec, Executor, Observed, Observer, ObservedMessage};
/// use executor_sim::SimRuntime;
///
/// /// Counts what container actors take.
/// struct Count(&'static AtomicU32);
///
/// impl Observer for Count {
///     fn took(&self, observed: Observed) {
///         if matches!(observed.message, ObservedMessage::Container(..)) {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// static COUNT: AtomicU32 = AtomicU32::new(0);
/// let executor = Executor::builder(SimRuntime::new()).observer(Count(&COUNT)).build()?;
/// futures::executor::block_on(async {
///     executor.run(ContainerSpec::host(["true"])).await?.released().await
/// })?;
/// // Create, Start, Prepared, ProcessStarted, ProcessExited, ReleaseEnded.
/// assert_eq!(COUNT.load(Ordering::Relaxed), 6);
/// # Ok::<(), executor_core::Error>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Whether the actor whose turn it is lets all others that have work go first. It is called again at the next
    /// turn of the actor, so it must not return true for ever.
    fn postpone(&self) -> bool {
        false
    }

    /// Called when an actor has taken a message.
    fn took(&self, observed: Observed) {
        drop(observed);
    }
}

/// A message that an actor took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// When it was taken, on the executor's clock.
    pub at: Timestamp,
    /// The actor and the message.
    pub message: ObservedMessage,
    /// If the machine refused it, why.
    pub refused: Option<Refused>,
}

/// A message that a machine decides on, and the actor that took it, in the form of the machine's event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedMessage {
    /// Taken by the executor's actor.
    Registry(RegistryEvent),
    /// Taken by a container.
    Container(ContainerId, ContainerEvent),
    /// Taken by a process.
    Process(ProcessRef, ProcessEvent),
    /// Taken by the reaper.
    Router(ExitRouterEvent),
}

/// The observer of an executor, if there is one, and the clock for what it sees.
#[derive(Clone)]
pub(crate) struct ObserverSlot {
    pub(crate) clock: Clock,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl ObserverSlot {
    /// Lets a machine take its step, and shows the event to the observer.
    pub(crate) fn watch_step<E: Clone, R>(
        &self,
        event: E,
        taken: impl FnOnce(E) -> ObservedMessage,
        step: impl FnOnce(E) -> Result<R, Refused>,
    ) -> Result<R, Refused> {
        let Some(observer) = &self.observer else { return step(event) };
        let shown = event.clone();
        let answer = step(event);
        let refused = answer.as_ref().err().cloned();
        observer.took(Observed { at: self.clock.now(), message: taken(shown), refused });
        answer
    }

    /// Starts an actor with an unbounded mailbox.
    pub(crate) fn begin<A>(&self, actor: impl FnOnce(&mut actix::Context<A>) -> A) -> Addr<A>
    where
        A: Actor<Context = actix::Context<A>>,
    {
        let mut context = actix::Context::new();
        context.set_mailbox_capacity(0);
        let actor = actor(&mut context);
        let Some(observer) = &self.observer else { return context.run(actor) };
        let turns = Turns { actor: context.into_future(actor), observer: Arc::clone(observer) };
        let address = turns.actor.address();
        actix_rt::spawn(turns);
        address
    }
}

/// An actor at work, when its turn has come.
struct Turns<A: Actor<Context = actix::Context<A>>> {
    actor: ContextFut<A, actix::Context<A>>,
    observer: Arc<dyn Observer>,
}

impl<A: Actor<Context = actix::Context<A>>> Unpin for Turns<A> {}

impl<A: Actor<Context = actix::Context<A>>> Future for Turns<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.observer.postpone() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.actor).poll(context)
    }
}

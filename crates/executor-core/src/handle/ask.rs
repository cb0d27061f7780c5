//! How handles send messages to actors: questions, questions whose answer must be claimed, and cancels.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::dev::{MessageResponse, OneshotSender, ToEnvelope};
use actix::{Actor, Context, Handler, Message, WeakAddr};
use executor_lifecycle::Cancel;
use executor_lifecycle::registry::RequestToken;
use tokio::sync::oneshot;

use crate::messages;

/// Numbers the requests of one executor. Clones share the counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(Arc<AtomicU64>);

impl Tokens {
    pub(crate) fn next(&self) -> RequestToken {
        RequestToken(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// A message that is handled even if nothing waits for the answer any more: actix skips a message that was sent with
/// `Addr::send` if its future is dropped before the actor's turn.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Ask<M: Message> {
    message: M,
    reply: OneshotSender<M::Result>,
}

macro_rules! answers {
    ($actor:ty) => {
        impl<M> Handler<Ask<M>> for $actor
        where
            Self: Handler<M>,
            M: Message<Result: Send> + Send + 'static,
        {
            type Result = ();

            fn handle(&mut self, Ask { message, reply }: Ask<M>, context: &mut Context<Self>) {
                let response = Handler::<M>::handle(self, message, context);
                response.handle(context, Some(reply));
            }
        }
    };
}
answers!(crate::actors::ExecutorActor);
answers!(crate::actors::Container);
answers!(crate::actors::Process);

/// Asks an actor. `None` if it has ended. The message is sent by the call, before the future is polled, and is handled
/// even if the future is dropped.
pub(crate) fn ask<A, M>(
    address: &WeakAddr<A>,
    message: M,
) -> impl Future<Output = Option<M::Result>> + Send + use<A, M>
where
    A: Actor<Context = Context<A>> + Handler<Ask<M>>,
    M: Message<Result: Send> + Send + 'static,
{
    let answer = address.upgrade().map(|address| {
        let (reply, answer) = oneshot::channel();
        address.do_send(Ask { message, reply });
        answer
    });
    async move { answer?.await.ok() }
}

/// Asks for something that is cancelled if the future is dropped before the answer.
pub(crate) async fn ask_or_cancel<A, M>(
    address: &WeakAddr<A>,
    message: M,
    token: RequestToken,
) -> Option<M::Result>
where
    A: Actor<Context = Context<A>> + Handler<Ask<M>> + Handler<messages::Unclaimed>,
    M: Message<Result: Send> + Send + 'static,
{
    let answer = ask(address, message);
    let unclaimed = OnDrop::new(address.clone(), messages::Unclaimed(token));
    let answer = answer.await;
    unclaimed.defuse();
    answer
}

/// Sends a cancel, which needs no answer. If the actor has ended, there is nothing to cancel.
pub(super) fn order_cancel<A>(address: &WeakAddr<A>, cancel: Cancel)
where
    A: Actor + Handler<messages::Cancel>,
    A::Context: ToEnvelope<A, messages::Cancel>,
{
    if let Some(address) = address.upgrade() {
        address.do_send(messages::Cancel(cancel));
    }
}

/// Sends a message to an actor when it is dropped, unless it was defused.
pub(super) struct OnDrop<A: Actor, M>
where
    A: Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result: Send> + Send + Copy + 'static,
{
    address: Option<WeakAddr<A>>,
    message: M,
}

impl<A: Actor, M> OnDrop<A, M>
where
    A: Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result: Send> + Send + Copy + 'static,
{
    pub(super) const fn new(address: WeakAddr<A>, message: M) -> Self {
        Self { address: Some(address), message }
    }

    pub(super) fn defuse(mut self) {
        self.address = None;
    }
}

impl<A: Actor> OnDrop<A, messages::Cancel>
where
    A: Handler<messages::Cancel>,
    A::Context: ToEnvelope<A, messages::Cancel>,
{
    pub(super) fn cancel(address: &WeakAddr<A>) -> Arc<Self> {
        Arc::new(Self::new(address.clone(), messages::Cancel(Cancel::now())))
    }
}

impl<A: Actor, M> Drop for OnDrop<A, M>
where
    A: Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result: Send> + Send + Copy + 'static,
{
    fn drop(&mut self) {
        if let Some(address) = self.address.take().and_then(|address| address.upgrade()) {
            address.do_send(self.message);
        }
    }
}

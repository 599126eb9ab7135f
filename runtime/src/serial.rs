//! Actors whose handlers are `async` and may hold `&mut self` over an await.
//!
//! ```
//! use actix::Message;
//! use serde::{Deserialize, Serialize};
//! use synod_runtime::{message::RemoteMessage, serial::{Serial, async_handlers}};
//!
//! #[derive(Message, Serialize, Deserialize, RemoteMessage)]
//! #[rtype(result = "i64")]
//! #[remote(name = "ledger.append", crate = "synod_runtime")]
//! struct Append { amount: i64 }
//!
//! #[derive(Default)]
//! struct Ledger { total: i64 } // an ordinary struct: no lock, no `Option`, no `Clone`
//!
//! #[async_handlers(name = "ledger", crate = "synod_runtime")]
//! impl Ledger {
//!     async fn append(&mut self, append: Append) -> i64 {
//!         let before = self.total;
//!         tokio::task::yield_now().await; // nobody else changes the total meanwhile
//!         self.total = before + append.amount;
//!         self.total
//!     }
//! }
//!
//! # use actix::Actor;
//! # actix::System::new().block_on(async {
//! let ledger = Serial::new(Ledger::default()).start(); // on a node: `node.spawn(name, || …)`
//! let all = (1..=3).map(|amount| ledger.send(Append { amount }));
//! let totals = futures_util::future::try_join_all(all).await.unwrap();
//! assert_eq!(totals, [1, 3, 6]);
//! # });
//! ```
//!
//! # What holds
//! - **One at a time.** While a handler waits, nothing else of this actor runs: the next message stays in
//!   the mailbox. So a handler that waits for an answer of its own actor waits until the deadline,
//!   and one that waits long holds up its queue: leave long work to tasks, and tell the actor when it is done.
//! - **Cancel-safe.** A caller that goes away, or whose deadline passes, takes back only a message no
//!   handler has begun with. A handler that has begun runs to its end, and the state is never left half
//!   changed by a caller.
//! - **Panic-safe.** The state belongs to the handler that runs. When that panics, the state goes with it: a
//!   supervised actor is rebuilt by its factory, its mailbox and address stay, and only this message is
//!   answered `Closed`. Nobody ever sees what the panic left.
//! - **Stopping** a supervised actor drops the handler that runs at its await, and the state with it.
//! - Methods stay ordinary methods: a unit test calls `ledger.append(…).await` without any actor.

use std::{fmt, future::Future};

use actix::{Actor, ActorFutureExt as _, Handler, Message, WrapFuture as _, dev::MessageResponse};
pub use actix::{AtomicResponse, Context};
pub use synod_derive::async_handlers;

use crate::{
    message::{Batch, RemoteActor, Routes},
    trace::carry,
};

/// The result of a message.
pub type ResultOf<M> = <M as Message>::Result;

/// A state that takes `M` with an `async` method. Written by [`macro@async_handlers`].
pub trait AsyncHandler<M: Message>: 'static {
    /// Takes the message; the only one that runs on this state.
    fn handle(&mut self, message: M) -> impl Future<Output = ResultOf<M>>;
}

/// How the actor around this state takes `M`. Written by [`macro@async_handlers`].
pub trait Takes<M: Message>: Sized + 'static {
    /// What actix is given.
    type Result: MessageResponse<Serial<Self>, M>;

    /// Takes the message.
    fn take(
        actor: &mut Serial<Self>,
        message: M,
        context: &mut Context<Serial<Self>>,
    ) -> Self::Result;
}

/// A state whose messages come from other nodes too: `#[async_handlers(name = "ledger")]`.
pub trait RemoteState: Takes<Batch<Serial<Self>>> {
    /// As [`RemoteActor::NAME`].
    const NAME: &'static str;

    /// As [`RemoteActor::routes`].
    fn routes(routes: &mut Routes<Serial<Self>>);
}

/// The actor around a state whose handlers are `async`: runs one at a time. See the module.
pub struct Serial<S> {
    /// Taken by the handler that runs. On the heap, so that taking it moves a pointer.
    state: Option<Box<S>>,
}

impl<S: 'static> Serial<S> {
    /// An actor that begins with `state`.
    pub fn new(state: S) -> Self {
        Self { state: Some(Box::new(state)) }
    }
}

impl<S: 'static> Actor for Serial<S> {
    type Context = Context<Self>;
}

impl<S: 'static> Serial<S> {
    /// Lets the state take `message`, and nothing else until it is done.
    pub fn run<M>(&mut self, message: M) -> AtomicResponse<Self, ResultOf<M>>
    where
        S: AsyncHandler<M>,
        M: Message<Result: 'static> + 'static,
    {
        let mut state = self.state.take().expect("no message comes while a handler waits");
        let work = carry(async move {
            let result = state.handle(message).await;
            (state, result)
        });
        AtomicResponse::new(Box::pin(work.into_actor(self).map(|(state, result), this, _| {
            this.state = Some(state);
            result
        })))
    }
}

impl<S: Takes<M>, M: Message> Handler<M> for Serial<S> {
    type Result = S::Result;

    fn handle(&mut self, message: M, context: &mut Context<Self>) -> Self::Result {
        S::take(self, message, context)
    }
}

impl<S: RemoteState> RemoteActor for Serial<S> {
    const NAME: &'static str = S::NAME;

    fn routes(routes: &mut Routes<Self>) {
        S::routes(routes);
    }
}

impl<S> fmt::Debug for Serial<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial").field("waits", &self.state.is_none()).finish_non_exhaustive()
    }
}

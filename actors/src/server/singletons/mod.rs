//! Actors of which exactly one lives, on whichever node.
//!
//! Every node that can host one stands for the role `NAME/primary`. The one that leads builds the
//! actor, tells it its epoch, and drops it before its lease ends; then another has it. Whoever wants
//! something of it holds a [`SingletonRef`], on any node, and sends as to any other actor.
//!
//! ```no_run
//! # use actix::{Actor, Context, Handler, Message};
//! # use serde::{Deserialize, Serialize};
//! use synod::{
//!     message::{RemoteActor, RemoteMessage},
//!     server::{elections::Elections, singletons::{HaActor, HaError, HaStart}},
//! };
//!
//! # #[derive(Message, Serialize, Deserialize, RemoteMessage)]
//! # #[rtype(result = "(u64, u64)")]
//! # #[remote(name = "tickets.next")]
//! # struct Next;
//! #[derive(RemoteActor)]
//! #[remote(name = "tickets", handles(Next))]
//! struct Tickets { epoch: u64, last: u64 }
//!
//! impl HaActor for Tickets {
//!     type Args = ();
//!
//!     fn create(_: &(), start: &HaStart) -> Result<Self, HaError> {
//!         Ok(Self { epoch: start.epoch().0, last: 0 })
//!     }
//! }
//! # impl Actor for Tickets { type Context = Context<Self>; }
//! # impl Handler<Next> for Tickets {
//! #     type Result = actix::MessageResult<Next>;
//! #     fn handle(&mut self, _: Next, _: &mut Context<Self>) -> Self::Result {
//! #         self.last += 1;
//! #         actix::MessageResult((self.epoch, self.last))
//! #     }
//! # }
//!
//! async fn run(elections: Elections) -> Result<(), Box<dyn std::error::Error>> {
//!     elections.singleton::<Tickets>("tickets", ()).start()?; // on every node that may host it
//!     let tickets = elections.singleton_ref::<Tickets>("tickets"); // on any node
//!     let (epoch, number) = tickets.send(Next).await?;
//!     # drop((epoch, number));
//!     Ok(())
//! }
//! ```
//!
//! # What is promised
//! - S1: at most one such actor acts at any moment: whatever runs in its context, handlers, timers
//!   and futures, runs only while its lease is valid by the node's clock, which is asked before each
//!   message and each turn.
//! - S2: what reaches an actor that may not act any more is refused, *not run*, and goes to the next
//!   one while its deadline lasts.
//! - S3: a new actor is there within the lease and 300 ms after the node of the old one died, at
//!   once when that was stopped in order.
//! - S4: it begins with the newest state that any before it kept, and what a stale one still wants to
//!   keep is refused; see [`Keeping`].
//!
//! What no clock can promise is one instruction in the middle of a handler when a process is stopped
//! there, and what the actor started outside of its context. So say [`HaStart::epoch`] with whatever
//! is written elsewhere, and let that refuse lower ones: see [`HaStart::fence`].
//!
//! # Layout
//! - [`HaActor`], [`HaStart`]: what an actor is told
//! - [`Keeping`]: how its state outlives its node; `keeper` hands it to the log
//! - `host`: stands, builds, steps down; `place`: where people want it
//! - `proxy`: [`SingletonRef`]; its rules are those of [`line`](crate::election::line)
//! - `program`: singletons of a program, by JSON too

mod host;
mod keeper;
mod place;
mod program;
mod proxy;
mod pump;

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use actix::{Actor, ActorContext as _, Context};
use bytes::Bytes;
use synod_runtime::{identity::NodeName, message::RemoteActor, supervision::Policy};

use self::keeper::Keeper;
pub(super) use self::{host::Hosts, program::Door};
pub use self::{
    host::Singleton,
    keeper::{Keeping, NotKept},
    program::{AnySingleton, Hosted, Messages},
    proxy::{SingletonRef, SingletonRequest},
};
use super::elections::{Elections, Lease};
use crate::{
    election::{
        lease::LEASE_DEFAULT,
        message::{Epoch, Refusal},
    },
    replicated::Fence,
};

/// Why an actor cannot be created.
pub type HaError = Box<dyn std::error::Error + Send + Sync>;

/// An actor of which exactly one lives at a time; see the [module](self).
pub trait HaActor: RemoteActor + Actor<Context = Context<Self>> {
    /// What it is built from, on each node.
    type Args: Send + Sync + 'static;

    /// Builds it, on the node that has become its primary: in an epoch higher than all before, or
    /// once more in the same one after a panic.
    ///
    /// # Errors
    /// Why it cannot be built here. That counts like a panic: it is tried again as its
    /// [policy](Hosting::supervise) says, and then another node has its turn.
    fn create(args: &Self::Args, start: &HaStart) -> Result<Self, HaError>;

    /// How its state outlives its node: by default not at all. Whoever is primary next finds it in
    /// [`HaStart::state`].
    fn keeping() -> Keeping {
        Keeping::Nothing
    }

    /// Its state by now, at most 1 MiB, where it is [kept](Self::keeping) every so often. Asked in its
    /// context, between messages.
    ///
    /// # Errors
    /// Why there is none; that is logged, and it is asked again.
    fn checkpoint(&self) -> Result<Vec<u8>, HaError> {
        Err("it is to be kept, and has no checkpoint of its own".into())
    }

    /// Its time is over: end whatever has effects outside, then stop. No more messages come. It has
    /// a quarter of its lease for that and is dropped where it stands then. Not called when there is
    /// no time left, as after a pause of its process.
    fn step_down(&mut self, context: &mut Context<Self>) {
        context.stop();
    }

    /// The messages that people may send in JSON: `POST /actors/NAME/MESSAGE`, and `call`. By
    /// default none.
    fn messages(_messages: &mut Messages<Self>) {}
}

/// What a primary is told as it begins. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct HaStart {
    name: String,
    role: String,
    node: NodeName,
    lease: Lease,
    /// None: it keeps nothing.
    keeper: Option<Arc<Keeper>>,
}

impl HaStart {
    /// The name of the singleton.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node it lives on.
    pub const fn node(&self) -> &NodeName {
        &self.node
    }

    /// The number to say with every write elsewhere: it rises with every primary.
    pub fn epoch(&self) -> Epoch {
        self.lease.epoch()
    }

    /// The right to act: ask it before an effect that its context does not guard, such as one of a
    /// `ResponseFuture`.
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The newest state that there is: what the primary before kept last; after a panic, what this one
    /// wanted to keep last. `None`: none was kept so far, or one of no bytes.
    pub fn state(&self) -> Option<Bytes> {
        self.keeper.as_ref()?.state()
    }

    /// Wants `state` kept, at most 1 MiB: once the answer is there every later primary begins with it,
    /// or with one that was kept after it, whatever dies. Needs no polling to be sent. One command of
    /// the log carries all that is said while another is on its way, so say the whole state.
    ///
    /// ```
    /// # use actix::ResponseFuture;
    /// # use synod::server::singletons::{HaStart, NotKept};
    /// # struct Counter { count: u64, start: HaStart }
    /// # impl Counter {
    /// fn next(&mut self) -> ResponseFuture<Result<u64, NotKept>> {
    ///     self.count += 1;
    ///     let (count, kept) = (self.count, self.start.keep(self.count.to_be_bytes().into()));
    ///     Box::pin(async move { kept.await.map(|()| count) }) // nobody hears of it before
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotKept`], also where the actor [keeps](HaActor::keeping) nothing, and after four seconds. Its
    /// own state has changed all the same, and a later one may be kept.
    pub fn keep(
        &self,
        state: Vec<u8>,
    ) -> impl Future<Output = Result<(), NotKept>> + Send + use<> + 'static {
        let keeps = self.keeper.as_ref().map(|keeper| keeper.keep(state));
        async move {
            match keeps {
                Some(kept) => kept.await,
                None => Err(NotKept::Refused("it keeps nothing, says its `keeping`".to_owned())),
            }
        }
    }

    /// The fence for commands of replicated actors: they are refused once another is primary.
    pub fn fence(&self) -> Fence {
        Fence::new(&self.role, self.epoch().0).expect("a role that was granted has a good name")
    }
}

/// A singleton that this node is to host, before it stands.
#[must_use = "nothing stands before `start` is called"]
pub struct Hosting<A: HaActor> {
    elections: Elections,
    name: String,
    args: Arc<A::Args>,
    lease: Duration,
    priority: u8,
    policy: Policy,
}

impl Elections {
    /// The singleton `name`, to be hosted by this node when its turn comes. Start it on every node
    /// that may host it.
    pub fn singleton<A: HaActor>(&self, name: &str, args: A::Args) -> Hosting<A> {
        Hosting {
            elections: self.clone(),
            name: name.to_owned(),
            args: Arc::new(args),
            lease: LEASE_DEFAULT,
            priority: 0,
            policy: Policy { give_up: Some(GIVE_UP), ..Policy::default() },
        }
    }

    /// The way to the singleton `name`, wherever it lives. Call it where tokio runs.
    pub fn singleton_ref<A: HaActor>(&self, name: &str) -> SingletonRef<A> {
        SingletonRef::new(self, name)
    }
}

impl<A: HaActor> Hosting<A> {
    /// How long nobody else may have it once this node falls silent: 300 ms to ten minutes, by
    /// default two seconds.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Of the nodes that stand the one with the highest priority is next; by default 0.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// When it is rebuilt here after a panic, and when this node gives up and another has its turn.
    /// By default after more than three restarts in ten seconds.
    pub fn supervise(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Stands from now on. Call it where local tasks can be spawned: there the actor will live.
    ///
    /// # Errors
    /// For a name or lease that cannot be. Nothing was said to anybody.
    pub fn start(self) -> Result<Singleton<A>, Refusal> {
        host::start(self)
    }
}

/// The role of the singleton `name`.
fn role_of(name: &str) -> String {
    format!("{name}/primary")
}

/// What the primary of that epoch is reached by. What is sent to it can reach no other.
fn target_of(role: &str, epoch: Epoch) -> String {
    format!("{role}#{epoch}")
}

/// More restarts than this within the time, and another node shall try.
const GIVE_UP: (u32, Duration) = (3, Duration::from_secs(10));

impl<A: HaActor> fmt::Debug for Hosting<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = PhantomData::<fn() -> A>;
        f.debug_struct("Hosting").field("name", &self.name).field("kind", &kind).finish()
    }
}

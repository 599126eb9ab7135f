//! What may be sent to an actor on another node: messages with a name of their own on the wire,
//! and actors that say which of them they take.
//!
//! ```
//! use actix::{Actor, Context, Handler, Message};
//! use serde::{Deserialize, Serialize};
//! use synod_runtime::message::{RemoteActor, RemoteMessage};
//!
//! #[derive(Message, Serialize, Deserialize, RemoteMessage)]
//! #[rtype(result = "Result<u64, String>")]
//! #[remote(name = "ledger.append", crate = "synod_runtime")] // no `crate` when you use `synod`
//! struct Append { amount: u64 }
//!
//! #[derive(RemoteActor)]
//! #[remote(name = "ledger", handles(Append), crate = "synod_runtime")]
//! struct Ledger { total: u64 }
//!
//! // The rest is plain actix.
//! impl Actor for Ledger {
//!     type Context = Context<Self>;
//! }
//!
//! impl Handler<Append> for Ledger {
//!     type Result = Result<u64, String>;
//!
//!     fn handle(&mut self, append: Append, _: &mut Context<Self>) -> Self::Result {
//!         self.total = self.total.checked_add(append.amount).ok_or("full")?;
//!         Ok(self.total)
//!     }
//! }
//! # assert_eq!((Append::NAME, Ledger::NAME), ("ledger.append", "ledger"));
//! ```
//!
//! Bodies are MessagePack maps with named fields, so either side may know fields the other does
//! not (under `#[serde(default)]`). Nodes compare the forms of their messages at the handshake; a
//! message that one build would misread is refused by name, and the link stays.

mod inbox;

use std::{
    any::{Any, TypeId, type_name},
    cell::{Cell, RefCell},
    fmt,
};

/// What code written by `derive(RemoteActor)` implements.
#[doc(hidden)]
pub use actix::Handler;
use actix::{
    Actor, Addr, Message,
    dev::{MessageResponse as _, ToEnvelope},
};
use rustc_hash::FxHashMap;
use serde::{
    Deserialize as _, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use tokio::sync::oneshot;

pub(crate) use self::inbox::Inbox;
pub use self::inbox::{Batch, Turns};
pub use crate::wire::{Fingerprint, Member, MemberPrint, Schema};
pub use synod_derive::{RemoteActor, RemoteMessage};

use crate::{
    address::SendError,
    identity::NodeId,
    node::{Debt, Node},
    trace,
    wire::{Frame, FrameHeader, FrameKind, name_hash},
};

/// A message that can cross nodes, and its result back. Derive it.
///
/// ```
/// use actix::Message;
/// use serde::{Deserialize, Serialize};
/// use synod_runtime::message::RemoteMessage;
///
/// #[derive(Message, Serialize, Deserialize, RemoteMessage)]
/// #[rtype(result = "u64")]
/// #[remote(name = "ledger.append", crate = "synod_runtime")]
/// struct Append {
///     amount: u64,
///     #[serde(default)] // added later: older builds need not send it
///     note: Option<String>,
/// }
/// assert_eq!(Append::NAME, "ledger.append");
/// ```
pub trait RemoteMessage:
    Message<Result: Serialize + DeserializeOwned + Send> + Serialize + DeserializeOwned + Send + 'static
{
    /// Its identity on the wire: chosen by hand, stable, never a module path.
    const NAME: &'static str;

    /// Its form, to be compared with that of other builds.
    const SCHEMA: Schema = Schema::UNCHECKED;
}

/// An actor that can be sent to from other nodes. Derive it; the [module](self) has an example.
pub trait RemoteActor:
    Actor<Context: Turns + ToEnvelope<Self, Batch<Self>>> + Handler<Batch<Self>>
{
    /// What kind of actor this is, to people and to [`Node::lookup`].
    const NAME: &'static str;

    /// Lists the messages it takes.
    fn routes(routes: &mut Routes<Self>);
}

/// The messages one kind of actor takes from other nodes.
pub struct Routes<A: Actor> {
    by_message: FxHashMap<u64, Route<A>>,
    doubled: Option<(KnownMessage, KnownMessage)>,
}

struct Route<A: Actor> {
    known: KnownMessage,
    take: Take<A>,
    recipient: fn(&Addr<A>) -> Box<dyn Any + Send>,
}

/// Decodes and handles one message.
type Take<A> = fn(&mut A, &mut <A as Actor>::Context, &NodeId, &Frame, Debt, &Node);

/// A name on the wire and the type it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownMessage {
    pub(crate) name: &'static str,
    pub(crate) schema: Schema,
    pub(crate) type_id: TypeId,
    type_name: &'static str,
}

impl KnownMessage {
    pub(crate) fn of<M: RemoteMessage>() -> Self {
        let (type_id, type_name) = (TypeId::of::<M>(), type_name::<M>());
        Self { name: M::NAME, schema: M::SCHEMA, type_id, type_name }
    }

    /// Fails when both cannot be told apart on the wire and are not the same.
    pub(crate) fn check(self, other: Self) -> Result<(), DuplicateMessage> {
        if self == other { Ok(()) } else { Err(DuplicateMessage::new(self, other)) }
    }
}

/// Two message types that look the same on the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{first} ({first_name:?}) and {second} ({second_name:?}) are one message on the wire")]
pub struct DuplicateMessage {
    first: &'static str,
    first_name: &'static str,
    second: &'static str,
    second_name: &'static str,
}

impl DuplicateMessage {
    fn new(first: KnownMessage, second: KnownMessage) -> Self {
        Self {
            first: first.type_name,
            first_name: first.name,
            second: second.type_name,
            second_name: second.name,
        }
    }
}

impl<A: Actor> Routes<A> {
    /// Takes `M` from other nodes. Called by what `derive(RemoteActor)` writes.
    pub fn on<M>(&mut self)
    where
        M: RemoteMessage,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let known = KnownMessage::of::<M>();
        let route = Route { known, take: take::<A, M>, recipient: recipient::<A, M> };
        if let Some(before) = self.by_message.insert(name_hash(M::NAME), route) {
            self.doubled = Some((before.known, known));
        }
    }

    /// All messages of `A`.
    ///
    /// # Errors
    /// When two of them have one name.
    pub(crate) fn of() -> Result<Self, DuplicateMessage>
    where
        A: RemoteActor,
    {
        let mut routes = Self { by_message: FxHashMap::default(), doubled: None };
        A::routes(&mut routes);
        match routes.doubled {
            Some((first, second)) => Err(DuplicateMessage::new(first, second)),
            None => Ok(routes),
        }
    }

    pub(crate) fn known(&self) -> impl Iterator<Item = KnownMessage> {
        self.by_message.values().map(|route| route.known)
    }

    /// The actor's `Recipient` for the message of that number, if it takes it.
    pub(crate) fn recipient(&self, addr: &Addr<A>, message: u64) -> Option<Box<dyn Any + Send>> {
        self.by_message.get(&message).map(|route| (route.recipient)(addr))
    }

    /// Lets the actor handle one frame, or answers why not.
    fn handle(
        &self,
        actor: &mut A,
        context: &mut A::Context,
        from: &NodeId,
        frame: &Frame,
        debt: Debt,
        node: &Node,
    ) {
        match self.by_message.get(&frame.header.message) {
            Some(route) => match node.check_taken(from, frame.header.message) {
                Ok(()) => (route.take)(actor, context, from, frame, debt, node),
                Err(refusal) => node.refuse(from, &frame.header, &refusal),
            },
            None => {
                // Only the sender knows the name behind the number; it fills it in.
                let refusal = SendError::Incompatible { name: String::new() };
                node.refuse(from, &frame.header, &refusal);
            }
        }
    }
}

/// Messages that a node knows from its start: two that cannot be told apart are refused there,
/// and peers hear of their forms at the handshake.
#[derive(Debug, Clone, Default)]
pub struct Messages {
    pub(crate) known: Vec<KnownMessage>,
    pub(crate) doubled: Option<DuplicateMessage>,
}

impl Messages {
    /// All that actors of the kind `A` take.
    pub fn hosts<A: RemoteActor>(&mut self) {
        match Routes::<A>::of() {
            Ok(routes) => self.known.extend(routes.known()),
            Err(doubled) => self.doubled = Some(doubled),
        }
    }

    /// One that is sent from here.
    pub fn sends<M: RemoteMessage>(&mut self) {
        self.known.push(KnownMessage::of::<M>());
    }
}

impl<A: Actor> fmt::Debug for Routes<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.known()).finish()
    }
}

fn take<A, M>(
    actor: &mut A,
    context: &mut A::Context,
    from: &NodeId,
    frame: &Frame,
    debt: Debt,
    node: &Node,
) where
    M: RemoteMessage,
    A: Actor + Handler<M>,
{
    let header: &FrameHeader = &frame.header;
    let message: M = match decode(&frame.body) {
        Ok(message) => message,
        Err(error) => {
            tracing::debug!(%from, message = M::NAME, %error, "a message cannot be read");
            return node.refuse(from, header, &SendError::Codec);
        }
    };
    let name = || node.name_behind(header.target);
    let _handling = trace::incoming(header, name, M::NAME, from);
    if header.kind != FrameKind::Ask {
        // The debt is paid when the handler has run.
        return actor.handle(message, context).handle(context, None);
    }
    let (answer, mut answered) = oneshot::channel();
    let mut unanswered = Unanswered { from, header, node, handled: false };
    actor.handle(message, context).handle(context, Some(answer));
    unanswered.handled = true;
    match answered.try_recv() {
        Ok(result) => {
            let sent = with_encoded(&result, |body| node.answer(from, header, Ok(body)));
            sent.unwrap_or_else(|_| node.refuse(from, header, &SendError::Codec));
        }
        Err(oneshot::error::TryRecvError::Closed) => {
            node.answer(from, header, Err(SendError::Closed));
        }
        // A future of the handler's: dropped at the deadline or by a cancel.
        Err(oneshot::error::TryRecvError::Empty) => node.serve(from, header, async move {
            let result = answered.await.map_err(|_| SendError::Closed)?;
            drop(debt);
            encode(&result).map_err(|_| SendError::Codec)
        }),
    }
}

/// An ask whose handler runs: it is answered even if that panics.
struct Unanswered<'a> {
    from: &'a NodeId,
    header: &'a FrameHeader,
    node: &'a Node,
    handled: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.handled {
            self.node.refuse(self.from, self.header, &SendError::Closed);
        }
    }
}

fn recipient<A, M>(addr: &Addr<A>) -> Box<dyn Any + Send>
where
    M: RemoteMessage,
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
{
    Box::new(addr.clone().recipient::<M>())
}

thread_local! {
    /// The node for which a body is being read on this thread: addresses within bind to it.
    static DECODING: RefCell<Option<Node>> = const { RefCell::new(None) };
}

/// The node for which this thread reads a body now, if it does.
pub(crate) fn decoding_node() -> Option<Node> {
    DECODING.with_borrow(Clone::clone)
}

/// Lends `node` to the addresses in all bodies read on this thread, as long as the guard lives.
pub(crate) fn lend(node: &Node) -> Lent {
    Lent(DECODING.replace(Some(node.clone())))
}

/// Puts back what was there, also when reading panics.
pub(crate) struct Lent(Option<Node>);

impl Drop for Lent {
    fn drop(&mut self) {
        DECODING.set(self.0.take());
    }
}

/// As [`decode`], and addresses within the body are bound to `node`.
///
/// # Errors
/// As there.
pub fn decode_on<T: DeserializeOwned>(node: &Node, body: &[u8]) -> Result<T, CodecError> {
    let _lent = lend(node);
    decode(body)
}

/// The body of a message or of a result.
///
/// # Errors
/// When its type cannot be written as MessagePack (say, a sequence of unknown length).
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    rmp_serde::to_vec_named(value).map_err(|error| CodecError(error.to_string()))
}

/// Lends `use_body` the body of a message, in a buffer that this thread keeps for the next one: a
/// body of its own would cost as much as all else about a small tell.
///
/// # Errors
/// As [`encode`]; then it was not called.
pub(crate) fn with_encoded<T: Serialize, R>(
    value: &T,
    use_body: impl FnOnce(&[u8]) -> R,
) -> Result<R, CodecError> {
    // Taken out meanwhile, in case that writing the value sends another message.
    let mut body = SCRATCH.take();
    body.clear();
    rmp_serde::encode::write_named(&mut body, value).map_err(|e| CodecError(e.to_string()))?;
    let used = use_body(&body);
    if body.capacity() <= SCRATCH_BYTES_MAX {
        SCRATCH.set(body);
    }
    Ok(used)
}

/// Larger buffers are given back: hardly any message needs them.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Reads the whole of a body.
///
/// # Errors
/// When it is no `T`, or goes on after it.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(body);
    let value = T::deserialize(&mut reader).map_err(|error| CodecError(error.to_string()))?;
    // The reader does not tell where it stands, but at the end it finds nothing more.
    match IgnoredAny::deserialize(&mut reader) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
        Ok(_) | Err(_) => Err(CodecError("the body goes on after its value".to_owned())),
    }
}

/// A body that cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

#[cfg(test)]
mod tests {
    use actix::Context;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Message, Serialize, Deserialize, RemoteMessage)]
    #[rtype(result = "u64")]
    #[remote(name = "test.append", crate = "crate")]
    struct Append {
        amount: i64,
        #[serde(default)]
        note: Option<String>,
    }

    #[derive(Message, Serialize, Deserialize, RemoteMessage)]
    #[rtype(result = "()")]
    #[remote(name = "test.append", crate = "crate")]
    struct Impostor;

    #[derive(Debug, Default, RemoteActor)]
    #[remote(name = "test.ledger", handles(Append, Impostor), crate = "crate")]
    struct Ledger;

    impl Actor for Ledger {
        type Context = Context<Self>;
    }

    impl Handler<Append> for Ledger {
        type Result = u64;

        fn handle(&mut self, append: Append, _: &mut Self::Context) -> u64 {
            append.amount.unsigned_abs()
        }
    }

    impl Handler<Impostor> for Ledger {
        type Result = ();

        fn handle(&mut self, _: Impostor, _: &mut Self::Context) {}
    }

    #[test]
    fn names_are_the_ones_chosen() {
        assert_eq!(Append::NAME, "test.append");
        assert_eq!(Ledger::NAME, "test.ledger");
    }

    #[test]
    fn one_name_for_two_types_is_an_error_naming_both() {
        let text = Routes::<Ledger>::of().unwrap_err().to_string();
        assert!(text.contains("::Append") && text.contains("::Impostor"), "{text}");
    }

    #[test]
    fn bodies_tolerate_new_fields_and_nothing_after_them() {
        #[derive(Serialize)]
        struct Newer {
            amount: i64,
            colour: &'static str,
        }
        let newer = encode(&Newer { amount: 5, colour: "red" }).unwrap();
        assert_eq!(decode::<Append>(&newer).unwrap(), Append { amount: 5, note: None });
        let mut longer = newer;
        longer.push(0);
        assert!(decode::<Append>(&longer).unwrap_err().to_string().contains("goes on after"));
        assert!(decode::<Append>(&[]).is_err());
    }
}

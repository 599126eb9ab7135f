//! An answer to come: one attempt, or as many as fit before the deadline.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix::{MailboxError, Message};
use bytes::Bytes;

use super::{Delivery, SendError, place::Place};
use crate::{
    message::{RemoteMessage, with_encoded},
    node::{ASK_TIMEOUT, Asking, Node},
    trace::Trace,
    wire::BODY_BYTES_MAX,
};

/// No ask waits longer, so that a forgotten one does not hold its memory for days.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// The first pause before an idempotent message is sent again: about a round trip.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest: a link that is back is used within it.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(250);

/// An answer to come. Nothing is sent before the first poll; dropping it takes back a message that
/// no handler has begun with.
#[must_use = "nothing is sent before the request is polled"]
pub struct RemoteRequest<M: RemoteMessage> {
    to: Arc<dyn Way<M>>,
    timeout: Duration,
    again: Option<fn(&M) -> M>,
    /// In which the request was made; it may be polled anywhere.
    trace: Option<Trace>,
    state: State<M>,
}

type Answer<M> = Pin<Box<dyn Future<Output = Result<<M as Message>::Result, SendError>> + Send>>;

/// What actix's own request comes to.
pub(super) type HereAnswer<M> =
    Pin<Box<dyn Future<Output = Result<<M as Message>::Result, MailboxError>> + Send>>;

/// How an address of any kind asks.
pub(super) trait Way<M: RemoteMessage>: Send + Sync {
    /// Where it leads; none for an actor of this process that has no name.
    fn place(&self) -> Option<&Place>;

    /// Asks the actor if it is on this node, or gives the message back.
    fn ask_here(&self, message: M) -> Here<M>;
}

/// What came of asking on this node.
pub(super) enum Here<M: RemoteMessage> {
    Asked(HereAnswer<M>),
    /// It was here and has ended.
    Gone,
    /// It is on another node.
    Elsewhere(M),
}

enum State<M: RemoteMessage> {
    Unsent(M),
    Sent(Attempt<M>),
    Answered,
}

/// What a message came to that was sent once. What goes to another node at once, as nearly all
/// does, costs no future of its own.
enum Attempt<M: RemoteMessage> {
    Waits(Arc<dyn Way<M>>, Asking),
    Works(Answer<M>),
    Failed(SendError),
}

impl<M: RemoteMessage> RemoteRequest<M> {
    pub(super) fn new(to: Arc<dyn Way<M>>, message: M) -> Self {
        let timeout = to.place().map_or(ASK_TIMEOUT, Place::ask_timeout);
        let trace = Trace::current();
        Self { to, timeout, again: None, trace, state: State::Unsent(message) }
    }

    /// Waits at most this long, counted from the first poll; never longer than [`TIMEOUT_MAX`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(TIMEOUT_MAX);
        self
    }

    /// Says that it does no harm if the handler runs more than once: what may pass by itself (no
    /// link, no such actor, no room, closed before the answer) is tried again until the deadline.
    /// Then the error is the last one, or `Timeout` as soon as any attempt may have run.
    ///
    /// ```
    #[doc = include_str!("../../docs/examples/till.txt")]
    /// b.stop("till");
    /// // Somebody puts another there meanwhile.
    /// let again = async {
    ///     tokio::time::sleep(Duration::from_secs(1)).await;
    ///     b.register("till", b.spawn("till", Till::default)).unwrap();
    /// };
    /// let (answer, ()) = tokio::join!(till.send(Pay(5)).idempotent(), again);
    /// assert_eq!(answer, Ok(5));
    /// # });
    /// ```
    pub fn idempotent(mut self) -> Self
    where
        M: Clone,
    {
        self.again = Some(M::clone);
        self
    }
}

// The message is moved out before anything is pinned, and the answer is pinned on the heap.
impl<M: RemoteMessage> Unpin for RemoteRequest<M> {}

impl<M: RemoteMessage> Future for RemoteRequest<M> {
    type Output = Result<M::Result, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let trace = self.trace.clone();
        let _in_trace = trace.as_ref().map(Trace::enter);
        if matches!(self.state, State::Unsent(_))
            && let State::Unsent(message) = std::mem::replace(&mut self.state, State::Answered)
        {
            let (to, timeout) = (&self.to, self.timeout);
            // An actor without a name that is gone does not come back.
            let again = self.again.and_then(|again| Some((again, to.place()?.via.clone()?)));
            let attempt = match again {
                Some((again, via)) => {
                    Attempt::Works(Box::pin(retry(via, Arc::clone(to), message, timeout, again)))
                }
                None => attempt(to, message, timeout),
            };
            self.state = State::Sent(attempt);
        }
        let State::Sent(attempt) = &mut self.state else {
            panic!("a request is not polled again after its answer");
        };
        let answered = Pin::new(attempt).poll(cx);
        if answered.is_ready() {
            self.state = State::Answered;
        }
        answered
    }
}

impl<M: RemoteMessage> Future for Attempt<M> {
    type Output = Result<M::Result, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Waits(to, asking) => Pin::new(asking).poll(cx).map(|answer| read(&**to, answer)),
            Self::Works(answer) => answer.as_mut().poll(cx),
            Self::Failed(error) => Poll::Ready(Err(error.clone())),
        }
    }
}

impl<M: RemoteMessage> fmt::Debug for RemoteRequest<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteRequest")
            .field("message", &M::NAME)
            .field("to", &self.to.place())
            .finish_non_exhaustive()
    }
}

fn attempt<M: RemoteMessage>(to: &Arc<dyn Way<M>>, message: M, timeout: Duration) -> Attempt<M> {
    let message = match to.ask_here(message) {
        Here::Asked(request) => {
            return Attempt::Works(Box::pin(async move {
                match tokio::time::timeout(timeout, request).await {
                    Ok(answer) => answer.map_err(|_: MailboxError| SendError::Closed),
                    Err(_) => Err(SendError::Timeout),
                }
            }));
        }
        Here::Gone => return Attempt::Failed(SendError::NoSuchActor),
        Here::Elsewhere(message) => message,
    };
    let Some(place) = to.place() else { return Attempt::Failed(SendError::Unreachable) };
    let sent = with_encoded(&message, |body| match place.start_ask::<M>(body, timeout) {
        Ok(asking) => Attempt::Waits(Arc::clone(to), asking),
        Err(SendError::Overloaded) if body.len() <= BODY_BYTES_MAX => {
            let (to, body) = (Arc::clone(to), body.to_vec());
            Attempt::Works(Box::pin(async move {
                let place = to.place().ok_or(SendError::Unreachable)?;
                read(&*to, place.ask_when_room::<M>(&body, timeout).await)
            }))
        }
        Err(error) => Attempt::Failed(error),
    });
    sent.unwrap_or(Attempt::Failed(SendError::Codec))
}

/// What an answer's body says.
fn read<M: RemoteMessage>(
    to: &dyn Way<M>,
    answer: Result<Bytes, SendError>,
) -> Result<M::Result, SendError> {
    to.place().ok_or(SendError::Unreachable)?.read::<M>(answer)
}

async fn retry<M: RemoteMessage>(
    via: Node,
    to: Arc<dyn Way<M>>,
    message: M,
    timeout: Duration,
    again: fn(&M) -> M,
) -> Result<M::Result, SendError> {
    let until = via.now() + timeout;
    let mut pause = RETRY_PAUSE_MIN;
    let mut may_have_run = false;
    loop {
        let left = until.since(via.now());
        let error = match attempt(&to, again(&message), left).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        may_have_run |= error.outcome() == Delivery::Unknown;
        let left = until.since(via.now());
        if !error.may_pass() || left <= pause {
            // The error tells of all attempts, not of the last one alone.
            let denies_it = may_have_run && error.outcome() == Delivery::NotRun;
            return Err(if denies_it { SendError::Timeout } else { error });
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(RETRY_PAUSE_MAX);
    }
}

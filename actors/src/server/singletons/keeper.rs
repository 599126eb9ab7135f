//! What a primary keeps for the next one: handed to the log, and waited for; the rules are those of
//! [`kept`](crate::management::kept).

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};

use super::HaError;
use crate::{
    election::{
        message::Epoch,
        store::{decode, encode},
    },
    management::kept::{CHANGE, KEPT_BYTES_MAX, Op, Outbox, Said, store_id},
    replicated::{CallError, Outcome, Submission, Submit},
    server::{elections::Lease, site::lock},
};

/// How the state of a singleton outlives its node.
///
/// | | what is lost when its node dies |
/// |---|---|
/// | [`Nothing`](Self::Nothing) | all that it did not write elsewhere itself, say behind its [fence](super::HaStart::fence) |
/// | [`Every`](Self::Every) | what was done since the last checkpoint |
/// | [`Said`](Self::Said) | nothing that was answered after [`HaStart::keep`](super::HaStart::keep) |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// Not at all.
    Nothing,
    /// By a [`checkpoint`](super::HaActor::checkpoint) every so often, and a last one when it steps
    /// down; more often than every 100 ms is not. One that equals the one before is not written.
    Every(Duration),
    /// When the actor says so.
    Said,
}

/// Why a state is not known to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NotKept {
    /// It is not, and will not be, unless with a later one.
    #[error("not kept: {0}")]
    Refused(String),
    /// Nobody knows: it may be, or may yet be.
    #[error("not known to be kept: {0}")]
    Unknown(String),
}

/// The states of one primary, in its epoch.
pub(super) struct Keeper {
    name: String,
    epoch: Epoch,
    submit: Arc<dyn Submit>,
    inner: Mutex<Inner>,
    news: Notify,
}

struct Inner {
    outbox: Outbox,
    /// Who waits, and for which number.
    waiting: Vec<(u64, oneshot::Sender<Result<(), NotKept>>)>,
    /// Why nothing more is kept, once that is so.
    over: Option<&'static str>,
}

impl Keeper {
    /// Begins in the epoch of `lease`: from now on nobody keeps anything in an earlier one. Tries
    /// until that is answered, for as long as the lease is.
    ///
    /// # Errors
    /// Why it cannot begin.
    pub(super) async fn begin(
        submit: Arc<dyn Submit>,
        name: &str,
        lease: &Lease,
    ) -> Result<Self, String> {
        let epoch = lease.epoch();
        let begun = async {
            loop {
                let op = Op::Begin { name: name.to_owned(), epoch };
                match ask(submit.as_ref(), &op).await {
                    Ok(Said::Begun(state)) => return Ok(state),
                    Ok(Said::Over(other)) => return Err(format!("epoch {other} has begun")),
                    Ok(Said::Refused(why)) => return Err(why),
                    Ok(Said::Kept) | Err(_) => tokio::time::sleep(AGAIN).await,
                }
            }
        };
        let late = |_| Err("the log did not answer".to_owned());
        let state = tokio::time::timeout(lease.length(), begun).await.unwrap_or_else(late)?;
        let inner = Inner { outbox: Outbox::begun(state.into()), waiting: Vec::new(), over: None };
        let (name, inner) = (name.to_owned(), Mutex::new(inner));
        Ok(Self { name, epoch, submit, inner, news: Notify::new() })
    }

    /// The newest state, if there is any.
    pub(super) fn state(&self) -> Option<Bytes> {
        let state = lock(&self.inner).outbox.state().clone();
        Some(state).filter(|state| !state.is_empty())
    }

    /// The state is this by now: answers once it is kept.
    pub(super) fn keep(
        &self,
        state: Vec<u8>,
    ) -> impl Future<Output = Result<(), NotKept>> + Send + use<> + 'static {
        let waits = self.put(state);
        async move {
            let Some(answer) = waits? else { return Ok(()) };
            let unknown = |why: &str| Err(NotKept::Unknown(why.to_owned()));
            match tokio::time::timeout(PATIENCE, answer).await {
                Ok(Ok(kept)) => kept,
                Ok(Err(_)) => unknown(OVER),
                Err(_) => unknown("the log did not answer"),
            }
        }
    }

    /// A checkpoint was taken; nobody waits for it.
    pub(super) fn note(&self, checkpoint: Result<Vec<u8>, HaError>) {
        let put = checkpoint
            .map_err(|error| error.to_string())
            .and_then(|state| self.put(state).map_err(|error| error.to_string()).map(drop));
        if let Err(why) = put {
            tracing::warn!(singleton = self.name, epoch = %self.epoch, why, "no checkpoint");
        }
    }

    /// Whom to wait for; `None`: it is kept already.
    fn put(&self, state: Vec<u8>) -> Result<Option<Waits>, NotKept> {
        if state.len() > KEPT_BYTES_MAX {
            let has = state.len();
            let why = format!("it has {has} bytes, and {KEPT_BYTES_MAX} may be kept");
            return Err(NotKept::Refused(why));
        }
        let mut inner = lock(&self.inner);
        if let Some(over) = inner.over {
            return Err(NotKept::Refused(over.to_owned()));
        }
        // Whoever gave up has dropped its end.
        inner.waiting.retain(|(_, waits)| !waits.is_closed());
        if inner.waiting.len() >= WAITING_MAX {
            return Err(NotKept::Refused(format!("{WAITING_MAX} wait for that already")));
        }
        let number = inner.outbox.take(state.into());
        if number <= inner.outbox.upto() {
            return Ok(None);
        }
        let (answer, answered) = oneshot::channel();
        inner.waiting.push((number, answer));
        drop(inner);
        self.news.notify_one();
        Ok(Some(answered))
    }

    /// Hands what is new to the log, for as long as it is polled.
    pub(super) async fn run(&self) -> Infallible {
        loop {
            self.flush().await;
            self.news.notified().await;
        }
    }

    /// The same, until nothing is left to be handed on.
    pub(super) async fn flush(&self) {
        loop {
            let Some((number, state)) = lock(&self.inner).next() else { return };
            let (name, epoch) = (self.name.clone(), self.epoch);
            let op = Op::Keep { name, epoch, number, state: state.into() };
            match ask(self.submit.as_ref(), &op).await {
                Ok(Said::Kept) => lock(&self.inner).kept(number),
                Ok(Said::Refused(why)) => {
                    tracing::warn!(singleton = self.name, %epoch, why, "no checkpoint");
                    lock(&self.inner).refused(number, &why);
                }
                // What was sent before may be kept, and its answer lost.
                Ok(Said::Over(_) | Said::Begun(_)) => self.close(),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Its time is over: nothing more is kept.
    pub(super) fn close(&self) {
        let mut inner = lock(&self.inner);
        inner.over = Some(OVER);
        // Dropped, they say that nobody knows.
        inner.waiting.clear();
    }
}

impl Inner {
    fn next(&self) -> Option<(u64, Bytes)> {
        self.outbox.next().filter(|_| self.over.is_none())
    }

    fn kept(&mut self, number: u64) {
        self.outbox.kept(number);
        let upto = self.outbox.upto();
        for (_, waits) in self.waiting.extract_if(.., |(number, _)| *number <= upto) {
            // Whoever does not wait any more has heard that it is not known.
            let _gone = waits.send(Ok(()));
        }
    }

    fn refused(&mut self, number: u64, why: &str) {
        self.outbox.refused(number);
        for (_, waits) in self.waiting.extract_if(.., |(waits, _)| *waits <= number) {
            let _gone = waits.send(Err(NotKept::Refused(why.to_owned())));
        }
    }
}

type Waits = oneshot::Receiver<Result<(), NotKept>>;

/// One command of the store. Whatever went wrong, it may be sent again.
async fn ask(submit: &dyn Submit, op: &Op) -> Result<Said, CallError> {
    let (answer, answered) = oneshot::channel();
    submit.submit(vec![Submission {
        actor: store_id(),
        function: CHANGE.id,
        args: encode(op).into(),
        deadline: DEADLINE,
        idempotency: None,
        done: Box::new(move |outcome| drop(answer.send(outcome))),
    }]);
    let stopped = |_| Outcome::Unknown("the node stopped".into());
    let (reply, _) = CallError::check(answered.await.unwrap_or_else(stopped))?;
    decode(&reply).map_err(|error| CallError::Failed(error.to_string()))
}

const OVER: &str = "its time as the primary is over";

/// A checkpoint is taken so often at most: each is a command of the log.
pub(super) const EVERY_MIN: Duration = Duration::from_millis(100);

/// Long enough for a leader to change; then it is sent again.
const DEADLINE: Duration = Duration::from_secs(1);

/// Between two tries: a log that is just changing its leader is soon there again.
const AGAIN: Duration = Duration::from_millis(10);

/// Below what callers wait by default, so that they hear that nobody knows.
const PATIENCE: Duration = Duration::from_secs(4);

/// As many messages as one reference lets wait.
const WAITING_MAX: usize = 4_096;

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, epoch) = (&self.name, self.epoch);
        f.debug_struct("Keeper").field("name", name).field("epoch", &epoch).finish_non_exhaustive()
    }
}

//! One client's calls: numbered, sent, and sent again elsewhere until they are answered.
//!
//! One request at a time, so that commands keep their order; what is asked meanwhile goes with the
//! next. A call is *in doubt* once a request with it may have arrived and was not answered for good:
//! from then on its outcome may be *unknown*, before it is *not applied*.

use std::time::Duration;

use actix_rt::time::{Instant, sleep};
use bytes::Bytes;
use tokio::sync::mpsc::Receiver;

use super::{ClientNode, ConnectError, Http, NoAnswer};
use crate::{
    replicated::{Consistency, Done, Inquiry, Outcome, Reason, Refusal, Submission},
    server::{
        config::NodeRole,
        http_guests::{Calls, Kind, Open, WireCall, WireEnd},
    },
};

/// What a program wants.
pub(super) enum Ask {
    Command(Submission),
    Query(Inquiry),
}

impl Ask {
    pub(super) fn into_done(self) -> Done {
        match self {
            Self::Command(command) => command.done,
            Self::Query(query) => query.done,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Command(command) => command.args.len(),
            Self::Query(query) => query.args.len(),
        }
    }
}

/// The client's thread.
pub(super) struct Engine {
    http: Http,
    nodes: Vec<ClientNode>,
    /// The node asked at present.
    at: usize,
    session: Option<u64>,
    nonce: u64,
    next_seq: u64,
    /// Why the last request brought nothing.
    last: String,
}

/// A call under way.
struct Under {
    /// A command in the session has the number 0 until it is sent.
    kind: Kind,
    actor: u64,
    function: u64,
    args: Bytes,
    until: Instant,
    in_doubt: bool,
    refusal: Option<Refusal>,
    done: Done,
}

impl Engine {
    /// An engine with a session.
    pub(super) async fn open(
        http: Http,
        nodes: Vec<ClientNode>,
        patience: Duration,
    ) -> Result<Self, ConnectError> {
        let mut nodes: Vec<_> =
            nodes.into_iter().filter(|node| node.role != NodeRole::Auxiliary).collect();
        // Mains answer without asking another node.
        nodes.sort_by_key(|node| node.role != NodeRole::Main);
        let (nonce, last) = (rand::random(), "the file names no main".to_owned());
        let mut engine = Self { http, nodes, at: 0, session: None, nonce, next_seq: 1, last };
        let until = Instant::now() + patience;
        while engine.session.is_none() {
            if Instant::now() >= until || engine.nodes.is_empty() {
                return Err(ConnectError::Nobody(engine.last));
            }
            if let Err(why) = engine.open_session(until - Instant::now()).await {
                engine.elsewhere(&why).await;
            }
        }
        Ok(engine)
    }

    /// Serves until nobody can ask any more.
    pub(super) async fn run(mut self, mut asks: Receiver<Ask>) {
        let mut held = None;
        loop {
            let first = match held.take() {
                Some(ask) => ask,
                None => match asks.recv().await {
                    Some(ask) => ask,
                    None => return,
                },
            };
            let mut bytes = first.size();
            let mut batch = vec![Under::new(first)];
            while batch.len() < BATCH_CALLS_MAX
                && let Ok(ask) = asks.try_recv()
            {
                bytes += ask.size();
                if bytes > BATCH_BYTES_MAX {
                    held = Some(ask);
                    break;
                }
                batch.push(Under::new(ask));
            }
            self.carry(batch).await;
        }
    }

    /// Carries all calls to their ends.
    async fn carry(&mut self, mut calls: Vec<Under>) {
        loop {
            let now = Instant::now();
            for late in calls.extract_if(.., |call| call.until <= now) {
                late.give_up(&self.last);
            }
            if calls.is_empty() {
                return;
            }
            if let Err(why) = self.attempt(&mut calls).await {
                self.elsewhere(&why).await;
            }
        }
    }

    /// Asks one node; what is not over afterwards stays in `calls`.
    async fn attempt(&mut self, calls: &mut Vec<Under>) -> Result<(), String> {
        let longest = calls.iter().map(Under::patience).max().unwrap_or_default();
        let in_session = calls.iter().any(|call| matches!(call.kind, Kind::Command(_)));
        if in_session && self.session.is_none() {
            self.open_session(longest).await?;
        }
        let request = self.request(calls);
        let ends: Vec<WireEnd> = match self.post("/calls", &request, longest).await {
            Ok(ends) => ends,
            Err(NoAnswer::NotSent(why)) => return Err(why),
            Err(NoAnswer::Lost(why)) => {
                calls.iter_mut().for_each(Under::doubt);
                return Err(why);
            }
        };
        if ends.len() != calls.len() {
            calls.iter_mut().for_each(Under::doubt);
            return Err("it answered something else than was asked".to_owned());
        }
        let mut elsewhere = Ok(());
        for (call, end) in std::mem::take(calls).into_iter().zip(ends) {
            if let Some((call, why)) = self.hear(call, end) {
                elsewhere = why.map_or(elsewhere, Err);
                calls.push(call);
            }
        }
        elsewhere
    }

    /// What an answer means for a call; gives it back when it is to be sent again, with the reason
    /// if another node should be asked.
    fn hear(&mut self, mut call: Under, end: WireEnd) -> Option<(Under, Option<String>)> {
        match Outcome::from(end) {
            Outcome::NotApplied(refusal)
                if matches!(refusal.reason, Reason::Unavailable | Reason::Full) =>
            {
                let why = refusal.text.clone();
                call.refusal = Some(refusal);
                Some((call, Some(why)))
            }
            Outcome::Unknown(why) => {
                call.doubt();
                Some((call, Some(why)))
            }
            Outcome::SessionExpired(_) if !call.in_doubt => {
                // It ended while nothing was open: the next one does as well.
                if call.kind != Kind::Command(0) {
                    call.kind = Kind::Command(0);
                    if self.session.take().is_some() {
                        (self.nonce, self.next_seq) = (rand::random(), 1);
                    }
                }
                Some((call, None))
            }
            end @ (Outcome::Applied { .. }
            | Outcome::NotApplied(_)
            | Outcome::Failed(_)
            | Outcome::SessionExpired(_)) => {
                (call.done)(end);
                None
            }
        }
    }

    /// The calls as one request; commands get their numbers with it.
    fn request(&mut self, calls: &mut [Under]) -> Calls {
        for call in &mut *calls {
            if call.kind == Kind::Command(0) {
                call.kind = Kind::Command(self.next_seq);
                self.next_seq += 1;
            }
        }
        let numbers = calls.iter().filter_map(|call| match call.kind {
            Kind::Command(seq) => Some(seq),
            Kind::Keyed(_) | Kind::Query { .. } => None,
        });
        let open = numbers.min().unwrap_or(self.next_seq);
        let wire = |call: &Under| WireCall {
            kind: call.kind.clone(),
            actor: call.actor,
            function: call.function,
            args: call.args.clone(),
            patience_ms: ms(call.patience()),
        };
        let session = self.session.unwrap_or_default();
        Calls { session, open, calls: calls.iter().map(wire).collect() }
    }

    async fn open_session(&mut self, patience: Duration) -> Result<(), String> {
        let patience = patience.min(ATTEMPT_MAX);
        let open = Open { nonce: self.nonce, patience_ms: ms(patience) };
        let end: WireEnd = match self.post("/sessions", &open, patience).await {
            Ok(end) => end,
            Err(NoAnswer::NotSent(why) | NoAnswer::Lost(why)) => return Err(why),
        };
        match Outcome::from(end) {
            Outcome::Applied { reply, .. } => {
                let number = rmp_serde::from_slice(&reply).map_err(|error| error.to_string())?;
                self.session = Some(number);
                Ok(())
            }
            Outcome::NotApplied(refusal) => Err(refusal.text),
            Outcome::Unknown(why) | Outcome::Failed(why) | Outcome::SessionExpired(why) => Err(why),
        }
    }

    async fn post<Q: serde::Serialize, A: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        question: &Q,
        patience: Duration,
    ) -> Result<A, NoAnswer> {
        let body = rmp_serde::to_vec(question).expect("plain data encodes");
        let node = &self.nodes[self.at];
        let answer = self.http.post_packed(&node.http, path, body.into(), patience).await?;
        if !answer.status.is_success() {
            // The request was refused as a whole: at the door, or as too large.
            return Err(NoAnswer::NotSent(format!("{} says: {}", node.name, answer.error_text())));
        }
        rmp_serde::from_slice(&answer.body)
            .map_err(|error| NoAnswer::Lost(format!("{} answers nonsense: {error}", node.name)))
    }

    /// The next node, after a pause.
    async fn elsewhere(&mut self, why: &str) {
        let node = &self.nodes[self.at];
        self.last = format!("{} at {}: {why}", node.name, node.http);
        self.at = (self.at + 1) % self.nodes.len();
        sleep(PAUSE).await;
    }
}

impl Under {
    fn new(ask: Ask) -> Self {
        let until = |deadline| Instant::now() + deadline;
        match ask {
            Ask::Command(Submission { actor, function, args, deadline, idempotency, done }) => {
                let kind = match idempotency.as_ref().and_then(|key| key.text()) {
                    Some(key) => Kind::Keyed(key.to_owned()),
                    None => Kind::Command(0),
                };
                Self::of(kind, (actor, function, args), until(deadline), done)
            }
            Ask::Query(Inquiry { actor, function, args, consistency, deadline, done }) => {
                let kind = match consistency {
                    Consistency::Linearizable => Kind::Query { local: false, bounded_ms: None },
                    Consistency::Local => Kind::Query { local: true, bounded_ms: None },
                    Consistency::Bounded(age) => {
                        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                        Kind::Query { local: false, bounded_ms: Some(age_ms) }
                    }
                };
                Self::of(kind, (actor, function, args), until(deadline), done)
            }
        }
    }

    fn of(kind: Kind, what: (u64, u64, Bytes), until: Instant, done: Done) -> Self {
        let (actor, function, args) = what;
        Self { kind, actor, function, args, until, in_doubt: false, refusal: None, done }
    }

    /// How long one node may take.
    fn patience(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now()).min(ATTEMPT_MAX)
    }

    fn doubt(&mut self) {
        self.in_doubt = !matches!(self.kind, Kind::Query { .. });
    }

    fn give_up(self, last: &str) {
        (self.done)(match (self.in_doubt, self.refusal) {
            (true, _) => {
                let why = "no answer in time; it may have been applied, or may yet be";
                Outcome::Unknown(format!("{why} ({last})"))
            }
            (false, Some(refusal)) => Outcome::NotApplied(refusal),
            (false, None) => {
                Outcome::NotApplied(format!("nobody served it in time ({last})").into())
            }
        });
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Calls of one request; well below the window of a session.
const BATCH_CALLS_MAX: usize = 512;

/// Bytes of their arguments, unless one call alone has more.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// One node gets this long: longer than a fail-over takes, short enough that a node that hangs costs
/// one attempt and not the call.
const ATTEMPT_MAX: Duration = Duration::from_secs(1);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

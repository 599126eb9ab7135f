//! The task behind a proxy: does what its [`Line`] decides.

use std::{collections::BTreeMap, future::poll_fn, pin::Pin, task::Poll, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use synod_runtime::{
    address::SendError,
    wire::name_hash,
    world::{Instant, network::Lane},
};
use tokio::sync::{mpsc, oneshot};

use super::target_of;
use crate::{
    election::line::{Landed, Line, Number, Place},
    server::elections::Elections,
};

/// A message on its way, and whom to tell what became of it.
pub(super) struct Envelope {
    pub(super) message: u64,
    pub(super) body: Vec<u8>,
    pub(super) deadline: Instant,
    pub(super) repeats: bool,
    /// None: nobody waits.
    pub(super) answer: Option<oneshot::Sender<Result<Bytes, SendError>>>,
}

/// See the module's documentation.
pub(super) struct Pump {
    elections: Elections,
    role: String,
    line: Line,
    /// Those that wait. Those that fly take theirs along.
    waiting: BTreeMap<Number, Envelope>,
    flights: FuturesUnordered<BoxFuture<'static, Flown>>,
    /// Calls a flight back.
    recalls: BTreeMap<Number, oneshot::Sender<()>>,
    looking: Option<BoxFuture<'static, Option<Place>>>,
    /// When to look around again, however much comes and goes.
    tick_at: Instant,
}

/// A flight that has ended.
struct Flown {
    number: Number,
    envelope: Envelope,
    /// None: it was called back, or nobody waits any more.
    answer: Option<Result<Bytes, SendError>>,
}

impl Pump {
    pub(super) fn new(elections: Elections, role: &str) -> Self {
        Self {
            elections,
            role: role.to_owned(),
            line: Line::default(),
            waiting: BTreeMap::new(),
            flights: FuturesUnordered::new(),
            recalls: BTreeMap::new(),
            looking: None,
            tick_at: Instant::default(),
        }
    }

    /// Runs until all proxies are gone and nothing is on its way.
    pub(super) async fn run(mut self, mut envelopes: mpsc::Receiver<Envelope>) {
        let mut open = true;
        while open || !self.line.is_idle() {
            self.launch().await;
            let (idle, left) = (self.line.is_idle(), self.tick_at.since(self.now()));
            tokio::select! {
                biased;
                Some(flown) = self.flights.next() => self.landed(flown),
                place = look(&mut self.looking) => self.found(place),
                envelope = envelopes.recv(), if open => match envelope {
                    Some(envelope) => self.join(envelope),
                    None => open = false,
                },
                () = tokio::time::sleep(left), if !idle => self.tick(),
            }
        }
    }

    fn now(&self) -> Instant {
        self.elections.now()
    }

    fn join(&mut self, envelope: Envelope) {
        match self.line.join(envelope.deadline, envelope.repeats) {
            Ok(number) => drop(self.waiting.insert(number, envelope)),
            Err(error) => self.tell(envelope, Err(error)),
        }
        if self.line.seeks() {
            self.seek();
        }
    }

    /// Sends what may go. Each is on its way before the next one is.
    async fn launch(&mut self) {
        while let Some((number, place, deadline)) = self.line.depart() {
            let Some(envelope) = self.waiting.remove(&number) else { continue };
            if envelope.answer.as_ref().is_some_and(oneshot::Sender::is_closed) {
                self.line.left(number);
                continue;
            }
            let (recall, recalled) = oneshot::channel();
            self.recalls.insert(number, recall);
            let left = deadline.since(self.now());
            let flight = self.fly(number, envelope, place, left, recalled);
            let mut flight: BoxFuture<'static, Flown> = Box::pin(flight);
            let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut flight).poll(cx))).await;
            match first {
                Poll::Ready(flown) => self.landed(flown),
                Poll::Pending => self.flights.push(flight),
            }
        }
    }

    /// One message, there and back.
    fn fly(
        &self,
        number: Number,
        mut envelope: Envelope,
        place: Place,
        left: Duration,
        recalled: oneshot::Receiver<()>,
    ) -> impl Future<Output = Flown> + Send + use<> + 'static {
        let node = self.elections.node().clone();
        let target = name_hash(&target_of(&self.role, place.epoch));
        async move {
            let (message, body) = (envelope.message, envelope.body.clone());
            let asked = node.ask(&place.node, target, message, Lane::User, body, left);
            let mut answer = envelope.answer.take();
            let left = async {
                match &mut answer {
                    Some(answer) => answer.closed().await,
                    None => std::future::pending().await,
                }
            };
            let landed = tokio::select! {
                biased;
                landed = asked => Some(landed),
                () = left => None,
                Ok(()) = recalled => None,
            };
            envelope.answer = answer;
            Flown { number, envelope, answer: landed }
        }
    }

    fn landed(&mut self, flown: Flown) {
        let Flown { number, envelope, answer } = flown;
        self.recalls.remove(&number);
        let Some(answer) = answer else {
            // Called back, unless nobody waits for it.
            if envelope.answer.as_ref().is_some_and(oneshot::Sender::is_closed) {
                self.line.left(number);
            } else {
                self.line.back(number);
                self.waiting.insert(number, envelope);
            }
            return;
        };
        let how = answer.as_ref().map(drop).map_err(Clone::clone);
        match self.line.landed(self.now(), number, how) {
            Landed::Again => drop(self.waiting.insert(number, envelope)),
            Landed::Over(Ok(())) => self.tell(envelope, answer),
            Landed::Over(Err(error)) => self.tell(envelope, Err(error)),
        }
    }

    fn tell(&self, envelope: Envelope, answer: Result<Bytes, SendError>) {
        match (envelope.answer, answer) {
            // Whoever asked may have given up in this moment.
            (Some(sender), answer) => drop(sender.send(answer)),
            (None, Ok(_)) => {}
            (None, Err(error)) => self.elections.node().dead_letter(&error),
        }
    }

    /// Who has it by now? Asked also while somebody has: its node may be stopped.
    fn tick(&mut self) {
        self.tick_at = self.now() + LOOK;
        for (number, error) in self.line.late(self.now()) {
            if let Some(envelope) = self.waiting.remove(&number) {
                self.tell(envelope, Err(error));
            }
        }
        self.seek();
    }

    fn seek(&mut self) {
        if self.looking.is_none() {
            let (elections, role) = (self.elections.clone(), self.role.clone());
            self.looking = Some(Box::pin(async move { locate(&elections, &role).await }));
        }
    }

    fn found(&mut self, place: Option<Place>) {
        self.looking = None;
        for number in place.map(|place| self.line.found(place)).unwrap_or_default() {
            // The flight gives its envelope back.
            if let Some(recall) = self.recalls.remove(&number) {
                let _ended_already = recall.send(());
            }
        }
    }
}

/// Where the holder acts, as this node has it, or else as the log says.
async fn locate(elections: &Elections, role: &str) -> Option<Place> {
    let holder = match elections.glance(role) {
        Some(holder) => holder,
        None => {
            // This node executes nothing, so it asks; not as often as it could look.
            tokio::time::sleep(ASK_EVERY).await;
            elections.query(role).await.ok().flatten()?.holder
        }
    }?;
    Some(Place { node: holder.client.node.parse().ok()?, epoch: holder.epoch })
}

async fn look(looking: &mut Option<BoxFuture<'static, Option<Place>>>) -> Option<Place> {
    match looking {
        Some(looking) => looking.await,
        None => std::future::pending().await,
    }
}

/// How often to look for a holder, and for late messages: well below what a takeover may take.
const LOOK: Duration = Duration::from_millis(10);

/// The same where each look is a read of the log.
const ASK_EVERY: Duration = Duration::from_millis(40);

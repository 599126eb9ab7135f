//! Clients of this node: who waits for which call.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustc_hash::FxHashMap;
use synod_runtime::{
    identity::NodeId,
    journal::Journal,
    telemetry::{Histogram, Metrics},
    world::{Clock, Instant},
};

use super::metrics;
use crate::{
    consensus::{
        home::Home,
        message::{
            ClientAnswer, End, HomeMessage, NewCommand, NewRead, NewWish, Read,
            Submit as NewCommands, Wish,
        },
        replica::{KEY_REUSED, SESSION_EXPIRED, keyed_args},
    },
    replicated::{
        Done, FENCE_REFUSED, Inquiry, Outcome, Position, Reason, Refusal, Submission, Submit,
    },
    role::{Inputs, RoleAddr},
};

/// The way into the log for everybody on this node.
pub(super) struct Clients {
    me: NodeId,
    journal: Journal,
    home: OnceLock<RoleAddr<Home>>,
    clock: OnceLock<Arc<dyn Clock>>,
    next: AtomicU64,
    waiting: Mutex<Calls>,
    seconds: Histogram,
}

/// The calls that wait for an answer, by ticket.
#[derive(Default)]
struct Calls {
    open: FxHashMap<u64, Waiting>,
    /// Why no more are taken: the node stops, or has stopped.
    over: Option<&'static str>,
}

struct Waiting {
    done: Done,
    since: Instant,
    command: bool,
}

impl Clients {
    pub(super) fn new(me: NodeId, journal: Journal, metrics: &Metrics) -> Self {
        Self {
            me,
            journal,
            home: OnceLock::new(),
            clock: OnceLock::new(),
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            seconds: metrics.histogram(&metrics::COMMAND_SECONDS, &[]),
        }
    }

    /// From now on calls are taken.
    pub(super) fn open(&self, home: RoleAddr<Home>, clock: Arc<dyn Clock>) {
        // Only the first counts: the home keeps its address when it is rebuilt.
        let _ = self.clock.set(clock);
        let _ = self.home.set(home);
    }

    /// Ends a call.
    pub(super) fn finish(&self, answer: ClientAnswer) {
        let Some(waiting) = lock(&self.waiting).open.remove(&answer.ticket) else { return };
        if waiting.command {
            self.seconds.observe(self.now().since(waiting.since));
        }
        (waiting.done)(outcome(answer.end));
    }

    /// The home was rebuilt and knows nothing of the calls before.
    pub(super) fn abandon(&self) {
        self.end_all("the home of sessions was rebuilt before the answer came");
    }

    /// The node has stopped: whoever still holds a handle learns it at once.
    pub(super) fn close(&self) {
        lock(&self.waiting).over = Some("this node has stopped");
        self.end_all("the node stopped before the answer came");
    }

    /// The node is about to stop: what is under way ends well, and whoever wants more goes to
    /// another node.
    pub(super) fn leave(&self) {
        lock(&self.waiting).over.get_or_insert("this node is stopping; ask another");
    }

    /// Whether somebody waits for an answer.
    pub(super) fn is_busy(&self) -> bool {
        !lock(&self.waiting).open.is_empty()
    }

    /// An operator's wish; `done` hears what became of it.
    pub(super) fn wish(&self, wish: Wish, patience: Duration, done: Done) {
        let Some(home) = self.home.get() else {
            return done(Outcome::NotApplied("this node is still starting".into()));
        };
        if let Some(ticket) = self.ticket(done, self.now(), false) {
            self.send(home, HomeMessage::NewWish(NewWish { ticket, wish, patience }));
        }
    }

    fn end_all(&self, why: &str) {
        // Unlocked again before anybody is told: who is told may ask again at once.
        let open = std::mem::take(&mut lock(&self.waiting).open);
        let mut open: Vec<_> = open.into_iter().collect();
        open.sort_unstable_by_key(|(ticket, _)| *ticket);
        for (_, waiting) in open {
            (waiting.done)(Outcome::Unknown(why.to_owned()));
        }
    }

    fn now(&self) -> Instant {
        self.clock.get().map_or_else(Instant::default, |clock| clock.now())
    }

    /// Notes who waits. None once the node has stopped; whoever asked was told so.
    fn ticket(&self, done: Done, since: Instant, command: bool) -> Option<u64> {
        let mut calls = lock(&self.waiting);
        if let Some(why) = calls.over {
            drop(calls);
            let refusal = Refusal::new(Reason::Unavailable, why);
            done(Outcome::NotApplied(refusal));
            return None;
        }
        let ticket = self.next.fetch_add(1, Relaxed);
        calls.open.insert(ticket, Waiting { done, since, command });
        Some(ticket)
    }

    fn send(&self, home: &RoleAddr<Home>, message: HomeMessage) {
        home.do_send(Inputs(vec![(self.me.clone(), message)]));
    }
}

/// Why a node refuses commands whose disk is full.
pub(super) fn no_room(node: &NodeId) -> String {
    format!("full: the disk with the journal of {} has no room", node.name)
}

impl Submit for Clients {
    fn submit(&self, batch: Vec<Submission>) {
        let full = self.journal.is_full();
        let Some(home) = self.home.get().filter(|_| !full) else {
            let refusal = if full {
                self.journal.flush(); // looks whether there is room again
                Refusal::new(Reason::Full, no_room(&self.me))
            } else {
                Refusal::new(Reason::Unavailable, "this node is still starting")
            };
            for submission in batch {
                (submission.done)(Outcome::NotApplied(refusal.clone()));
            }
            return;
        };
        let now = self.now();
        let commands: Vec<_> = batch
            .into_iter()
            .filter_map(|submission| {
                let (keyed, args) = match &submission.idempotency {
                    Some(key) => (true, keyed_args(key, &submission.args)),
                    None => (false, submission.args),
                };
                Some(NewCommand {
                    ticket: self.ticket(submission.done, now, true)?,
                    actor: submission.actor,
                    function: submission.function,
                    keyed,
                    args,
                    patience: submission.deadline,
                })
            })
            .collect();
        if !commands.is_empty() {
            self.send(home, HomeMessage::Submit(NewCommands { commands }));
        }
    }

    fn query(&self, batch: Vec<Inquiry>) {
        let Some(home) = self.home.get() else {
            for inquiry in batch {
                (inquiry.done)(Outcome::NotApplied("this node is still starting".into()));
            }
            return;
        };
        let now = self.now();
        let reads: Vec<_> = batch
            .into_iter()
            .filter_map(|inquiry| {
                Some(NewRead {
                    ticket: self.ticket(inquiry.done, now, false)?,
                    actor: inquiry.actor,
                    function: inquiry.function,
                    args: inquiry.args,
                    consistency: inquiry.consistency,
                    patience: inquiry.deadline.max(PATIENCE_MIN),
                })
            })
            .collect();
        if !reads.is_empty() {
            self.send(home, HomeMessage::Read(Read { reads }));
        }
    }
}

/// A read that nobody waits for is still looked at once.
const PATIENCE_MIN: Duration = Duration::from_millis(1);

fn outcome(end: End) -> Outcome {
    match end {
        End::Done(position, reply) => Outcome::Applied { reply, position: Position(position) },
        End::Failed(_, why) if why.starts_with(KEY_REUSED) => {
            Outcome::NotApplied(Refusal::new(Reason::KeyReused, why))
        }
        End::Failed(_, why) if why.starts_with(FENCE_REFUSED) => {
            Outcome::NotApplied(Refusal::new(Reason::Fenced, why))
        }
        End::Failed(_, why) if why.starts_with(SESSION_EXPIRED) => Outcome::SessionExpired(why),
        End::Failed(_, why) => Outcome::Failed(why),
        End::NotApplied(why) if why.starts_with("overloaded") => {
            Outcome::NotApplied(Refusal::new(Reason::Unavailable, why))
        }
        End::NotApplied(why) if why.starts_with("the command is larger") => {
            Outcome::NotApplied(Refusal::new(Reason::TooLarge, why))
        }
        End::NotApplied(why) => Outcome::NotApplied(why.into()),
        End::Unknown(why) => Outcome::Unknown(why),
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("me", &self.me).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

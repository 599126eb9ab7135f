//! The shell of a role: one generic actix actor around a pure [`Machine`].
//!
//! Messages come in by the batch, effects go out at the end of the turn, in this order: records
//! to the journal, what may be said at once to the other roles, and what depends on records when
//! the journal says that they are durable. A rebuilt role first gets back what survived; what
//! arrives meanwhile waits. There is nothing in here that knows a protocol.

use std::{collections::VecDeque, fmt, rc::Rc, sync::Arc, time::Duration};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, SpawnHandle};
use synod_runtime::{identity::NodeId, journal::JournalFailed, world::Instant};

use crate::{
    effects::{Effects, Letter, Offer, ShelfTask, Truncate},
    machine::{Machine, Now, Survived},
};

/// What a role uses of its node.
pub trait Surroundings<M: Machine>: 'static {
    /// A life of the role begins behind this address, the same in all its lives under one
    /// supervisor.
    fn started(&self, _addr: RoleAddr<M>) {}

    /// The time.
    fn now(&self) -> Now;

    /// Told at the end of a turn when it began: whoever takes long holds up all roles of its node.
    fn took(&self, _since: Now) {}

    /// Whether the disk is full: records are refused, but for those that its reserve is for.
    fn is_full(&self) -> bool {
        false
    }

    /// Looks whether a full disk has room again.
    fn look_for_room(&self) {}

    /// Puts messages on their way, to roles here and elsewhere.
    fn post(&self, letters: &mut Vec<Letter<M::Envelope>>);

    /// Makes records durable, then calls `done` (from any thread).
    fn append(&self, records: Vec<M::Record>, done: Done);

    /// Writes records along with others.
    fn append_lazily(&self, records: Vec<M::Record>);

    /// Lets the journal forget, then calls `done` (from any thread).
    fn truncate(&self, truncate: Truncate<M::Record>, done: Done);

    /// Writes or reads parts of snapshots, in order; the role is told by messages.
    fn shelf(&self, tasks: Vec<ShelfTask>);

    /// Gives back what survived (from any thread).
    fn recover(&self, done: Recovered<M>);

    /// The node cannot go on.
    fn fail(&self, why: &str);
}

/// Told whether records are durable.
pub type Done = Box<dyn FnOnce(Result<(), JournalFailed>) + Send>;

/// Told what survived.
pub type Recovered<M> =
    Box<dyn FnOnce(Arc<Survived<<M as Machine>::Record, <M as Machine>::Snapshot>>) + Send>;

/// Batches that may wait while a role is being rebuilt; more are dropped, as a link would: the
/// protocols ask again.
const EARLY_MAX: usize = 4_096;

/// How often a full disk is looked at while its roles have anything to do.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(100);

/// Nothing needs to be timed finer, and a deadline that does not move must not spin.
const TIMER_MIN: Duration = Duration::from_millis(1);

/// The actor around one machine.
pub struct Role<M: Machine> {
    machine: M,
    around: Rc<dyn Surroundings<M>>,
    /// Which life of this role this is: what was asked of the disk in an earlier one is not for
    /// this one.
    life: u64,
    out: Effects<M>,
    started: bool,
    early: VecDeque<(NodeId, M::Message)>,
    /// Said when the write of that number is durable.
    held: VecDeque<(u64, Vec<Letter<M::Envelope>>)>,
    writes: u64,
    durable: u64,
    turn_open: bool,
    /// The disk is full, as far as the machine was told; when to look again.
    full: Option<Instant>,
    timer: Option<(Instant, SpawnHandle)>,
}

impl<M: Machine> Role<M> {
    /// A role in its `life`-th life.
    pub fn new(machine: M, around: Rc<dyn Surroundings<M>>, life: u64) -> Self {
        Self {
            machine,
            around,
            life,
            out: Effects::default(),
            started: false,
            early: VecDeque::new(),
            held: VecDeque::new(),
            writes: 0,
            durable: 0,
            turn_open: false,
            full: None,
            timer: None,
        }
    }

    fn open_turn(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.turn_open, true) {
            ctx.notify(EndOfTurn);
        }
    }

    /// Tells the machine when the disk is full, or is so no more.
    fn look_for_room(&mut self, now: Now) {
        let full = self.around.is_full();
        if full != self.full.is_some() {
            self.machine.room(full);
        }
        if full && self.full.is_none_or(|again| now.at >= again) {
            self.around.look_for_room();
            self.full = Some(now.at + LOOK_FOR_ROOM);
        } else if !full {
            self.full = None;
        }
    }

    fn end_turn(&mut self, now: Now, ctx: &mut Context<Self>) {
        self.turn_open = false;
        self.machine.flush(now, &mut self.out);
        self.settle(ctx);
        self.arm(now, ctx);
        self.around.took(now);
    }

    /// Carries the effects out.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        if !self.out.lazy.is_empty() {
            self.around.append_lazily(std::mem::take(&mut self.out.lazy));
        }
        if !self.out.records.is_empty() {
            let done = self.done(ctx);
            self.around.append(std::mem::take(&mut self.out.records), done);
        }
        for Offer { records, kept, refused } in self.out.offers.drain(..) {
            let (life, me) = (self.life, ctx.address());
            let done: Done = Box::new(move |result| {
                let letter = match result {
                    Ok(()) => kept,
                    Err(JournalFailed::Full | JournalFailed::Overloaded { .. }) => refused,
                    // The node is stopping, or is told so by what it cannot do without.
                    Err(
                        JournalFailed::Closed
                        | JournalFailed::TooLarge { .. }
                        | JournalFailed::Disk(_),
                    ) => return,
                };
                me.do_send(Offered { life, letter });
            });
            self.around.append(records, done);
        }
        if let Some(truncate) = self.out.truncate.take() {
            let done = self.done(ctx);
            self.around.truncate(truncate, done);
        }
        if !self.out.held.is_empty() {
            if self.durable == self.writes {
                self.around.post(&mut self.out.held);
            } else {
                let letters = std::mem::take(&mut self.out.held);
                self.held.push_back((self.writes, letters));
            }
        }
        if !self.out.now.is_empty() {
            self.around.post(&mut self.out.now);
        }
        if !self.out.shelf.is_empty() {
            self.around.shelf(std::mem::take(&mut self.out.shelf));
        }
    }

    fn done(&mut self, ctx: &Context<Self>) -> Done {
        self.writes += 1;
        let (write, life, me) = (self.writes, self.life, ctx.address());
        Box::new(move |result| me.do_send(Written { life, write, result }))
    }

    /// One timer at a time, for the machine's next deadline.
    fn arm(&mut self, now: Now, ctx: &mut Context<Self>) {
        let Some(at) = self.machine.deadline() else { return };
        if let Some((armed, handle)) = self.timer {
            // A later deadline is looked at when the earlier timer fires.
            if armed <= at {
                return;
            }
            ctx.cancel_future(handle);
        }
        let wait = at.since(now.at).max(TIMER_MIN);
        let handle = ctx.notify_later(Timeout { life: self.life }, wait);
        self.timer = Some((now.at + wait, handle));
    }
}

impl<M: Machine> fmt::Debug for Role<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Role").field("life", &self.life).finish_non_exhaustive()
    }
}

impl<M: Machine> fmt::Debug for Inputs<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inputs({})", self.0.len())
    }
}

// Nothing in it is pinned.
impl<M: Machine> Unpin for Role<M> {}

impl<M: Machine> Actor for Role<M> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (me, life) = (ctx.address(), self.life);
        self.around.started(me.clone());
        self.around.recover(Box::new(move |survived| me.do_send(Rebuilt { life, survived })));
    }
}

/// Messages for a role, in order, each with its sender.
pub struct Inputs<M: Machine>(pub Vec<(NodeId, M::Message)>);

impl<M: Machine> Message for Inputs<M> {
    type Result = ();
}

impl<M: Machine> Handler<Inputs<M>> for Role<M> {
    type Result = ();

    fn handle(&mut self, inputs: Inputs<M>, ctx: &mut Self::Context) {
        if !self.started {
            let room = EARLY_MAX.saturating_sub(self.early.len());
            self.early.extend(inputs.0.into_iter().take(room));
            return;
        }
        let now = self.around.now();
        self.look_for_room(now);
        for (from, message) in inputs.0 {
            self.machine.message(now, &from, message, &mut self.out);
        }
        self.around.took(now);
        self.open_turn(ctx);
    }
}

/// Begins a new life: what the machine knew and did not write down is gone.
#[derive(Debug, Clone, Copy)]
pub struct Begin;

impl Message for Begin {
    type Result = ();
}

impl<M: Machine> Handler<Begin> for Role<M> {
    type Result = ();

    fn handle(&mut self, _begin: Begin, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// The mailbox is empty: the turn ends.
struct EndOfTurn;

impl Message for EndOfTurn {
    type Result = ();
}

impl<M: Machine> Handler<EndOfTurn> for Role<M> {
    type Result = ();

    fn handle(&mut self, _end: EndOfTurn, ctx: &mut Self::Context) {
        let now = self.around.now();
        self.end_turn(now, ctx);
    }
}

struct Timeout {
    life: u64,
}

impl Message for Timeout {
    type Result = ();
}

impl<M: Machine> Handler<Timeout> for Role<M> {
    type Result = ();

    fn handle(&mut self, timeout: Timeout, ctx: &mut Self::Context) {
        if timeout.life != self.life || !self.started {
            return;
        }
        self.timer = None;
        let now = self.around.now();
        self.look_for_room(now);
        if self.machine.deadline().is_some_and(|at| at <= now.at) {
            self.machine.timeout(now, &mut self.out);
            self.end_turn(now, ctx);
        } else {
            self.arm(now, ctx);
        }
    }
}

struct Rebuilt<M: Machine> {
    life: u64,
    survived: Arc<Survived<M::Record, M::Snapshot>>,
}

impl<M: Machine> Message for Rebuilt<M> {
    type Result = ();
}

impl<M: Machine> Handler<Rebuilt<M>> for Role<M> {
    type Result = ();

    fn handle(&mut self, rebuilt: Rebuilt<M>, ctx: &mut Self::Context) {
        if rebuilt.life != self.life || self.started {
            return;
        }
        self.started = true;
        let now = self.around.now();
        self.machine.start(now, &rebuilt.survived, &mut self.out);
        self.look_for_room(now);
        for (from, message) in std::mem::take(&mut self.early) {
            self.machine.message(now, &from, message, &mut self.out);
        }
        self.end_turn(now, ctx);
    }
}

struct Written {
    life: u64,
    write: u64,
    result: Result<(), JournalFailed>,
}

impl Message for Written {
    type Result = ();
}

impl<M: Machine> Handler<Written> for Role<M> {
    type Result = ();

    fn handle(&mut self, written: Written, ctx: &mut Self::Context) {
        if written.life != self.life {
            return;
        }
        match written.result {
            Ok(()) => {}
            // The machine believes what is not on disk: it is rebuilt from what is.
            Err(JournalFailed::Full | JournalFailed::Overloaded { .. }) => {
                tracing::warn!("the journal did not take a record; rebuilding the role");
                return ctx.stop();
            }
            Err(JournalFailed::Closed) => return,
            Err(why @ (JournalFailed::TooLarge { .. } | JournalFailed::Disk(_))) => {
                return self.around.fail(&why.to_string());
            }
        }
        self.durable = self.durable.max(written.write);
        while let Some((write, letters)) = self.held.front_mut()
            && *write <= self.durable
        {
            self.around.post(letters);
            self.held.pop_front();
        }
    }
}

/// What came of an offer.
struct Offered<E> {
    life: u64,
    letter: Letter<E>,
}

impl<E> Message for Offered<E> {
    type Result = ();
}

impl<M: Machine> Handler<Offered<M::Envelope>> for Role<M> {
    type Result = ();

    fn handle(&mut self, offered: Offered<M::Envelope>, _ctx: &mut Self::Context) {
        if offered.life == self.life {
            self.around.post(&mut vec![offered.letter]);
        }
    }
}

/// Where to send to a role from its node.
pub type RoleAddr<M> = Addr<Role<M>>;

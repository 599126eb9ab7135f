//! A state machine under the order of a group instead of the log.
//!
//! ```text
//!  Handle<A> ─ Submit ─ desk ─ carriers ─ letters ─► group: 1 2 3 4 … ─► bench: StateMachine
//!                         ▲                                               at every node
//!                         └────────────── replies, of this node's own ──────────┘
//! ```
//! - H1: a command is executed where its last letter has its number: once everywhere, or nowhere.
//!   Whoever did not hear of it in time is told *outcome unknown*, and nobody sends it once more.
//! - H2: *not applied* is said only of what was not sent.
//! - H3: a question is answered by this node's state machine after a letter was delivered that was
//!   sent after the question was asked: so after all that had been answered to anybody by then.
//! - H4: equal orders give equal states: agreed time is the highest that a letter's sender said,
//!   chance is what the sender drew, and a command at which the handler panics is left out by all.
//!
//! # Layout
//! - [`Hosted`]: the way in; `carrier`: what sends letters and waits for their numbers
//! - `waiting`: the desk between them; `letter`: commands in pieces that fit a message
//! - `bench`: the state machine as the group's application

mod bench;
mod carrier;
mod letter;
mod waiting;

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use synod_runtime::node::Node;

use self::{
    bench::{Bench, question},
    carrier::Carrier,
    waiting::{Call, Desk},
};
use super::{Inner, Joined, Multicast, MulticastError, lock};
use crate::{
    multicast::{
        application::Application,
        group::{Maximum, Measures, REPLACE_AFTER},
        message::Seq,
    },
    replicated::{
        ARGS_BYTES_MAX, Consistency, Function, Inquiry, Outcome, Position, Reason, Refusal,
        StateMachine, Submission, Submit, name_hash,
    },
    server::config::GroupsConfig,
};

/// The way to a state machine that a group orders, for the programs of one node: as commands and
/// queries go into the log. It works from any thread that tokio knows.
///
/// Commands are executed at least by the group's servers and by every node that uses this. A handler
/// sees the number of its command as its position, with gaps; no session; agreed time that moves with
/// commands only, and at the pace of the fastest clock. It hears of no configuration.
pub struct Hosted {
    multicast: Weak<Inner>,
    node: Node,
    group: String,
    actor: u64,
    functions: Vec<Function>,
    desk: Arc<Desk>,
}

impl Multicast {
    /// Lets the group `name` order a state machine, which `make` makes, at this node: say it at once
    /// after the start of every node, before any group is used there. Must be called on the node's
    /// arbiter. The group is made by its first use, by as many nodes at least as `servers` says; whoever
    /// comes before there are so many is told *not applied*.
    pub fn host(
        &self,
        name: &str,
        servers: usize,
        make: impl Fn() -> Box<dyn StateMachine> + Send + Sync + 'static,
    ) -> Arc<Hosted> {
        let machine = make();
        let desk = Arc::<Desk>::default();
        let hosted = Arc::new(Hosted {
            multicast: Arc::downgrade(&self.0),
            node: self.0.node.clone(),
            group: name.to_owned(),
            actor: name_hash(machine.name()),
            functions: machine.functions().to_vec(),
            desk: Arc::clone(&desk),
        });
        lock(&self.0.hosted).insert(name.to_owned(), servers);
        let bench = Arc::clone(&desk);
        let make = move || Box::new(Bench::new(make(), Arc::clone(&bench))) as Box<dyn Application>;
        self.follow(name, make);
        for number in 0..CARRIERS {
            let carrier = Carrier::new(Arc::clone(&hosted), number);
            self.0.node.task(carrier.run());
        }
        let (node, keeper) = (self.0.node.clone(), Keeper(desk));
        self.0.node.task(async move {
            loop {
                keeper.0.waited_for().await;
                tokio::time::sleep(EXPIRE_EVERY).await;
                keeper.0.expire(node.now());
            }
        });
        hosted
    }

    /// Whether a state machine follows the group.
    pub(super) fn is_hosted(&self, name: &str) -> bool {
        lock(&self.0.hosted).contains_key(name)
    }

    /// What a new group shall be like, and how many servers it must have.
    pub(super) fn wanted(&self, name: &str) -> (Measures, usize) {
        let config = self.0.measures.get_or_init(GroupsConfig::default);
        match lock(&self.0.hosted).get(name) {
            Some(least) => (config.named.get(name).copied().unwrap_or(MEASURES), *least),
            None => (*config.of(name), 1),
        }
    }
}

impl Hosted {
    /// The group at this node; made, if there is none.
    async fn joined(&self) -> Result<Joined, MulticastError> {
        let stopped = || MulticastError::Failed("not applied: the node stops".to_owned());
        let multicast = Multicast(self.multicast.upgrade().ok_or_else(stopped)?);
        let joined = multicast.group(&self.group).await?;
        if joined.group().application != self.group {
            let why = format!("group {} was made without its state machine", self.group);
            return Err(MulticastError::Failed(why));
        }
        Ok(joined)
    }

    /// Why it cannot be asked that.
    fn check(&self, actor: u64, id: u64, query: bool) -> Result<(), Refusal> {
        let unknown = |what: &str| Refusal::new(Reason::NoSuchActor, what.to_owned());
        if actor != self.actor {
            return Err(unknown("no such state machine is ordered by this group"));
        }
        // There are no versions to agree on here.
        let known = |one: &Function| one.id == id && one.query == query && one.since == 0;
        match self.functions.iter().any(known) {
            true => Ok(()),
            false => Err(unknown("the state machine has no such message")),
        }
    }

    fn refuse_command(&self, command: &Submission) -> Result<(), Refusal> {
        self.check(command.actor, command.function, false)?;
        if command.idempotency.is_some() {
            return Err(Refusal::from("commands to a group have no keys of their own"));
        }
        if command.args.len() > ARGS_BYTES_MAX {
            let text = format!("{} bytes are more than a command may have", command.args.len());
            return Err(Refusal::new(Reason::TooLarge, text));
        }
        Ok(())
    }

    /// Asks this node's own state as it is.
    fn peek(&self, inquiry: Inquiry) {
        let (weak, group) = (self.multicast.clone(), self.group.clone());
        self.node.task_anywhere(async move {
            let Inquiry { function, args, done, .. } = inquiry;
            let room = weak.upgrade().and_then(|inner| Multicast(inner).room(&group));
            let Some(room) = room else {
                return done(Outcome::NotApplied("this node does not follow the group yet".into()));
            };
            done(match room.ask(question(function, &args)).await {
                Ok((Seq(at), reply)) => Outcome::Applied { reply, position: Position(at) },
                Err(why) => Outcome::NotApplied(why.to_string().into()),
            });
        });
    }
}

impl Submit for Hosted {
    fn submit(&self, batch: Vec<Submission>) {
        let now = self.node.now();
        for command in batch {
            match self.refuse_command(&command) {
                Ok(()) => self.desk.put(now + command.deadline, Call::Command(command)),
                Err(refusal) => (command.done)(Outcome::NotApplied(refusal)),
            }
        }
    }

    fn query(&self, batch: Vec<Inquiry>) {
        let now = self.node.now();
        for inquiry in batch {
            match self.check(inquiry.actor, inquiry.function, true) {
                Ok(()) if inquiry.consistency == Consistency::Local => self.peek(inquiry),
                Ok(()) => self.desk.put(now + inquiry.deadline, Call::Question(inquiry)),
                Err(refusal) => (inquiry.done)(Outcome::NotApplied(refusal)),
            }
        }
    }
}

/// Tells everybody who waits when the node ends.
struct Keeper(Arc<Desk>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl fmt::Debug for Hosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosted").field("group", &self.group).finish_non_exhaustive()
    }
}

/// What a group is like that orders a state machine, where no table of a node file names it. Its
/// messages may all be as large as there may be: fewer are kept than of groups that carry lines.
const MEASURES: Measures = Measures {
    servers: 3,
    k_data: 2,
    k_commit: 2,
    k_checkpoint: 2,
    lifetime: 10_000,
    every: 1_000,
    keep: 500,
    replace_after: REPLACE_AFTER,
    maximum: Maximum::CommitServers,
};

/// Batches on their way at once: one that waits for its numbers holds up no other.
const CARRIERS: u64 = 4;

/// How exactly deadlines are kept.
const EXPIRE_EVERY: Duration = Duration::from_millis(20);

//! Groups at a node: publishing, subscribing, and the roles behind it.
//!
//! ```no_run
//! # use synod::server::multicast::{From, Multicast};
//! # async fn run(multicast: Multicast) -> Result<(), Box<dyn std::error::Error>> {
//! let news = multicast.group("news").await?; // made by its first use
//! let mut heard = news.subscribe(From::Now)?;
//! let mut press = news.publisher();
//! let number = press.publish("it rains").await?;
//! for entry in heard.next().await? {
//!     println!("{} says {:?}", entry.seq, entry.payload);
//! }
//! # drop(number);
//! # Ok(())
//! # }
//! ```
//!
//! Every node but an auxiliary can use every group. The first three that are there when a group is
//! made are its servers, mains first; the others are fed by one of these and deliver the same. Servers
//! are nodes in one incarnation: one that lost its disk is another node. One that is lost is replaced.
//!
//! # Layout
//! - [`Multicast`], [`Joined`]: the handle, and a group at this node
//! - [`Press`], [`Subscription`]: publishing and listening
//! - [`Multicast::follow`], [`Joined::ask`]: a state that follows a group, and questions to it
//! - [`Multicast::host`], [`Hosted`]: a state machine under the order of a group instead of the log
//! - `calls`: what roles were asked and have not answered
//! - `room`: the roles of one group; `shelf`: its newest messages, for subscribers
//! - `hall`: which groups there are; `steward`: this node's place in each;
//!   `feeder`: who feeds it where it serves nothing; `maximum`: its largest number, where a
//!   register or a file has it
//! - `http`: the way in for programs outside

mod calls;
mod feeder;
mod hall;
mod hosted;
pub(crate) mod http;
mod maximum;
mod press;
mod room;
mod shelf;
mod steward;

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use synod_runtime::{
    identity::{NodeId, NodeName},
    journal::Durability,
    node::Node,
    registry::Binding,
    watch,
};
use tokio::sync::{mpsc, oneshot};

pub(super) use self::hall::Ground;
use self::room::Room;
pub use self::{hosted::Hosted, press::Press, shelf::Collected};
use super::{board::Board, config::GroupsConfig, elections::Elections, registers::Registers};
use crate::{
    multicast::{
        application::{Application, BadQuestion, Make},
        group::{BadGroup, Group},
        message::{Data, Entry, Mid, Outcome, Seq},
    },
    replicated::{CallError, Submit},
};

/// A node's groups. Cloning is cheap; it works from any thread.
#[derive(Clone)]
pub struct Multicast(Arc<Inner>);

struct Inner {
    node: Node,
    me: NodeId,
    board: Arc<Board>,
    elections: Elections,
    submit: Arc<dyn Submit>,
    dir: PathBuf,
    durability: Durability,
    /// Only where roles are kept in registers.
    registers: Option<Registers>,
    rooms: Mutex<BTreeMap<String, Arc<Room>>>,
    wishes: mpsc::UnboundedSender<Wish>,
    binding: OnceLock<Binding>,
    measures: OnceLock<GroupsConfig>,
    applications: Mutex<BTreeMap<String, Make>>,
    /// Groups that a state machine follows, and how many servers they must have.
    hosted: Mutex<BTreeMap<String, usize>>,
}

/// A group that is wanted on this node.
struct Wish {
    name: String,
    /// Told when it is there; nobody: only if there is one of that name.
    done: Option<oneshot::Sender<Result<Arc<Room>, MulticastError>>>,
}

/// Why a group cannot be used. Nothing was published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MulticastError {
    /// There can be no such group.
    #[error(transparent)]
    Group(#[from] BadGroup),
    /// The log did not answer which groups there are.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It cannot be opened here.
    #[error("{0}")]
    Failed(String),
}

/// What is not known of a call's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallFailed {
    /// Too many publish here at this moment; nothing was sent.
    #[error("not applied: too many publish at this node")]
    Overloaded,
    /// It was sent, and nobody knows yet what became of it. The same messages may be sent again,
    /// here or elsewhere: each gets one number at most.
    #[error("outcome unknown: not known to be committed in time")]
    Unknown,
    /// It will never have a number.
    #[error("not applied: so many others were published meanwhile that its time is over")]
    Expired,
}

/// Why there is no answer. Questions change nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskFailed {
    /// Too many ask here at this moment.
    #[error("too many ask at this node")]
    Overloaded,
    /// It did not come in time: the node has not got so far, or rebuilds its state.
    #[error("no answer in time")]
    Late,
    /// The application does not understand it.
    #[error(transparent)]
    Bad(#[from] BadQuestion),
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the next message.
    Now,
    /// With the oldest that is kept.
    Checkpoint,
    /// With that number.
    Seq(Seq),
}

impl Multicast {
    /// Everybody who listens hears the same; made by its first use.
    ///
    /// # Errors
    /// [`MulticastError`].
    pub async fn group(&self, name: &str) -> Result<Joined, MulticastError> {
        if let Some(room) = self.room(name) {
            return Ok(Joined(room));
        }
        // A name that cannot be costs the log nothing.
        Group::new(name, vec![self.0.me.clone()]).check()?;
        let (done, opened) = oneshot::channel();
        let wish = Wish { name: name.to_owned(), done: Some(done) };
        let stopped = || MulticastError::Failed("not applied: the node stops".to_owned());
        self.0.wishes.send(wish).map_err(|_gone| stopped())?;
        opened.await.map_err(|_gone| stopped())?.map(Joined)
    }

    /// Groups that are made from here on have these measures. Only the first word counts.
    pub fn measure_new(&self, measures: GroupsConfig) {
        let _first = self.0.measures.set(measures);
    }

    /// Lets this node follow the group `name` with a state of its program's. Whoever makes the group
    /// makes it one with this application, for ever; nodes without it cannot use the group then. Say
    /// it at once after the start of the node, before any group is used there.
    pub fn follow(
        &self,
        name: &str,
        make: impl Fn() -> Box<dyn Application> + Send + Sync + 'static,
    ) {
        lock(&self.0.applications).insert(name.to_owned(), Arc::new(make));
    }

    /// How the groups that are used here stand, by name.
    pub fn status(&self) -> Vec<GroupStatus> {
        lock(&self.0.rooms).values().map(|room| GroupStatus::of(room, &self.0.node)).collect()
    }

    fn room(&self, name: &str) -> Option<Arc<Room>> {
        lock(&self.0.rooms).get(name).cloned()
    }

    /// Closes the journals.
    pub(super) fn close(&self) {
        lock(&self.0.rooms).values().for_each(|room| room.close());
    }
}

/// A group at this node. Cloning is cheap; it works from any thread.
#[derive(Clone)]
pub struct Joined(Arc<Room>);

impl Joined {
    /// Who serves it at this moment, and its measures.
    pub fn group(&self) -> Arc<Group> {
        self.0.group()
    }

    /// The largest number that this node knows committed: the stamp of what is sent next.
    pub fn largest(&self) -> Seq {
        self.0.largest()
    }

    /// All numbers up to here were delivered here.
    pub fn delivered(&self) -> Seq {
        self.0.shelf.last()
    }

    /// Waits until all that is committed now, as far as this node hears, was delivered here: not
    /// longer than a second and a half. Who just came to a group has nothing yet.
    pub async fn caught_up(&self) {
        for _ in 0..CATCH_UP_LOOKS {
            if self.0.hears() && self.delivered() >= self.largest() {
                return;
            }
            tokio::time::sleep(CATCH_UP_LOOK).await;
        }
    }

    /// Asks the application of this node, once it has followed the order up to `after`: the number
    /// of a message, for whoever wants to see what that did. Answers with the number up to which it
    /// had followed when it answered.
    ///
    /// # Errors
    /// [`AskFailed`].
    pub async fn ask(
        &self,
        question: impl Into<Bytes>,
        after: Seq,
    ) -> Result<(Seq, Bytes), AskFailed> {
        let mut news = self.0.shelf.watch();
        let reached = tokio::time::timeout(REACHED_WITHIN, news.wait_for(|last| *last >= after));
        if !reached.await.is_ok_and(|reached| reached.is_ok()) {
            return Err(AskFailed::Late);
        }
        self.0.ask(question.into()).await
    }

    /// The same, where question and answer travel in MessagePack.
    ///
    /// # Errors
    /// As there; [`AskFailed::Bad`] also when the answer is something else.
    pub async fn query<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        question: &Q,
        after: Seq,
    ) -> Result<(Seq, A), AskFailed> {
        let bad = |why: String| AskFailed::Bad(BadQuestion(why));
        let question = rmp_serde::to_vec(question).map_err(|error| bad(error.to_string()))?;
        let (at, answer) = self.ask(question, after).await?;
        let answer = rmp_serde::from_slice(&answer).map_err(|error| bad(error.to_string()))?;
        Ok((at, answer))
    }

    /// The oldest number that is kept here for subscribers.
    pub fn oldest(&self) -> Seq {
        self.0.shelf.oldest()
    }

    /// A new publisher.
    pub fn publisher(&self) -> Press {
        Press::new(self.clone())
    }

    /// Sends messages of any publishers, as they are, and waits until all of them have their
    /// places. For who keeps numbers and stamps itself; [`Joined::publisher`] does so for others.
    ///
    /// # Errors
    /// [`CallFailed`]: then send the same again, as often as you like.
    pub async fn send(
        &self,
        messages: Vec<Data>,
        patience: Duration,
    ) -> Result<Vec<(Mid, Outcome)>, CallFailed> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        self.0.publish(messages, patience).await
    }

    /// Listens.
    ///
    /// # Errors
    /// When the number to begin with is no longer kept.
    pub fn subscribe(&self, from: From) -> Result<Subscription, Collected> {
        let shelf = &self.0.shelf;
        let next = match from {
            From::Now => shelf.last().next(),
            From::Checkpoint => shelf.oldest(),
            From::Seq(seq) => seq.max(Seq(1)),
        };
        shelf.from(next)?;
        Ok(Subscription { room: Arc::clone(&self.0), next, news: shelf.watch() })
    }
}

/// Somebody who listens to a group. It costs the group nothing how slow it is: what it did not take
/// in time is collected.
pub struct Subscription {
    room: Arc<Room>,
    next: Seq,
    news: watch::Receiver<Seq>,
}

impl Subscription {
    /// The number it waits for.
    pub const fn next_number(&self) -> Seq {
        self.next
    }

    /// The next ones, in order and without a gap; waits until there is one.
    ///
    /// # Errors
    /// When it was too slow: the next one is no longer kept.
    pub async fn next(&mut self) -> Result<Vec<Entry>, Collected> {
        loop {
            self.news.mark_unchanged();
            let entries = self.room.shelf.from(self.next)?;
            if let Some(last) = entries.last() {
                self.next = last.seq.next();
                return Ok(entries);
            }
            if self.news.changed().await.is_err() {
                std::future::pending::<()>().await; // the node stopped
            }
        }
    }
}

/// How a group stands, as one node sees it.
#[derive(Debug, Clone, Serialize)]
pub struct GroupStatus {
    /// Its name.
    pub group: String,
    /// The node that orders it, as far as this node heard lately.
    pub sequencer: Option<NodeName>,
    /// In which epoch.
    pub epoch: u64,
    /// The largest number known committed.
    pub largest: u64,
    /// All numbers up to here were delivered here.
    pub delivered: u64,
    /// The oldest that is kept here for subscribers.
    pub oldest: u64,
    /// The checkpoint that is advertised.
    pub checkpoint: u64,
    /// Numbers given out and not committed, where this node orders it.
    pub open: u64,
    /// Its servers, without one that is being replaced.
    pub servers: Vec<NodeName>,
    /// How often these were changed.
    pub version: u64,
    /// Who is about to take the place of one that is lost.
    pub joining: Option<NodeName>,
    /// Whether this node is one of them, in this incarnation; else it is fed by one.
    pub serves: bool,
    /// Who feeds this node, where it serves nothing.
    pub fed_by: Option<NodeName>,
    /// So many nodes are fed by this one.
    pub feeds: usize,
    /// What it survives.
    pub survives: String,
    /// Questions of this node for the order of numbers it missed.
    pub order_queries: u64,
    /// Questions of this node for messages it missed.
    pub data_queries: u64,
}

impl GroupStatus {
    fn of(room: &Room, node: &Node) -> Self {
        let heard = room.heard();
        let report = room.report();
        let lives = |heard: &&room::Heard| node.now().since(heard.at) < Duration::from_secs(1);
        let gossip = heard.as_ref().map(|heard| &heard.gossip);
        let (order_queries, data_queries) = room.repairs();
        let orders = report.epoch.is_some();
        let group = room.group();
        let name_of = |server: &NodeId| server.name.clone();
        Self {
            group: room.name.clone(),
            sequencer: heard
                .as_ref()
                .filter(lives)
                .map(|heard| heard.gossip.sequencer.name.clone()),
            epoch: gossip.map_or(0, |gossip| gossip.epoch.0),
            largest: room.largest().0,
            delivered: room.shelf.last().0,
            oldest: room.shelf.oldest().0,
            checkpoint: gossip
                .and_then(|gossip| gossip.checkpoint.as_ref())
                .map_or(0, |advert| advert.seq.0),
            open: if orders { report.assigned.0 - report.committed.0 } else { 0 },
            servers: group.counted().map(name_of).collect(),
            version: group.version,
            joining: group.joining.as_ref().map(|joining| name_of(&joining.node)),
            serves: room.serves(),
            fed_by: room.feeder(),
            feeds: room.feeds(),
            survives: group.survives().to_string(),
            order_queries,
            data_queries,
        }
    }
}

/// A node that lags by more than that has other worries.
const REACHED_WITHIN: Duration = Duration::from_secs(5);

/// How often to look whether a node has caught up.
const CATCH_UP_LOOKS: u32 = 75;

/// Likewise.
const CATCH_UP_LOOK: Duration = Duration::from_millis(20);

/// The name the groups of a node are reached by.
fn target_of(node: &NodeName) -> String {
    format!("multicast@{node}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Multicast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multicast").field("node", &self.0.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joined").field("group", &self.0.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("next", &self.next).finish_non_exhaustive()
    }
}

//! Every start: agreeing on how the log begins, and on whether this process may take part.
//!
//! Nodes are listed by name, but vote by identity, and identities are made with the data
//! directories. A node with an empty directory neither promises nor votes. Either every listed
//! node answers that it is empty too; then the first-named main writes the genesis, a list of
//! identities, and hands it to all. Or somebody has a log already: then a node that is in its
//! genesis takes it over (it crashed in between and never voted), and any other waits to be
//! admitted as a newcomer. So a wiped disk never votes under its old identity. A node that put aside
//! what it remembered because it was damaged says that there is a log: all disks damaged at once make
//! a cluster that waits for people, and no new one.
//!
//! A process that finds a log asks first whether another one of its node was heard of that it must
//! not contradict ([`super::lives`]); its other roles start after that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    rc::Rc,
    time::Duration,
};

use synod_runtime::{
    identity::{Incarnation, NodeId, NodeName},
    world::Instant,
};

use super::{
    configuration::Configuration,
    lives::{Life, Lives, MOMENTS, Opinion},
    message::{Ask, Disowned, Empty, Entered, FounderMessage, Genesis, Message, NodeRole},
    record::{Image, Record},
};
use crate::{
    effects::{Effects, To},
    machine::{Machine, Now, Survived},
};

/// How often a node without a log asks around.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Mains say so often that they live…
const ALIVE_EVERY: Duration = Duration::from_millis(100);

/// …and auxiliaries say and hear it so often.
const AUXILIARY_ALIVE_EVERY: Duration = Duration::from_secs(1);

/// Whoever has not answered by then is not waited for: a node must be able to start alone.
const ENTRY_PATIENCE: Duration = Duration::from_millis(500);

/// See the module's documentation.
#[derive(Debug)]
pub struct Founder {
    me: NodeId,
    /// The first configuration by name, this node included unless it joins later.
    listed: BTreeMap<NodeName, NodeRole>,
    /// The highest cluster version that this node can execute.
    knows: u32,
    /// Who has no log either, and what it can execute.
    empty: BTreeMap<NodeName, (NodeId, u32)>,
    genesis: Option<Configuration>,
    /// Since when somebody says that there is a log who does not know how it began.
    exists: Option<Instant>,
    /// The other roles were started.
    settled: bool,
    ask_at: Instant,
    /// An earlier node of this name lost its memory: there is a log, and this one founds none.
    rejoins: bool,
    /// This process, where it can be told from others of this node.
    living: Option<Living>,
    /// It asks whether it may take part.
    entry: Option<Entry>,
    /// The processes of others.
    lives: Lives,
    alive_at: Instant,
    auxiliary_alive_at: Instant,
}

/// This process, as it tells others of itself.
pub struct Living {
    /// Starts with this data directory, this one included.
    pub starts: u64,
    /// Drawn by this process.
    pub nonce: u64,
    /// The journal ended torn at this start.
    pub torn: bool,
    /// How far the journal is durable.
    pub position: Rc<dyn Fn() -> u64>,
}

/// What was answered so far.
#[derive(Debug)]
struct Entry {
    since: Instant,
    answered: BTreeSet<NodeName>,
    /// An earlier process was heard moments ago.
    moments: bool,
}

impl Founder {
    /// The founder on `me`; `listed` is the first configuration.
    pub fn new(me: NodeId, listed: BTreeMap<NodeName, NodeRole>) -> Self {
        Self {
            me,
            listed,
            knows: 0,
            empty: BTreeMap::new(),
            genesis: None,
            exists: None,
            settled: false,
            ask_at: Instant::default(),
            rejoins: false,
            living: None,
            entry: None,
            lives: Lives::default(),
            alive_at: Instant::default(),
            auxiliary_alive_at: Instant::default(),
        }
    }

    /// On a node that can execute cluster versions up to `knows`.
    #[must_use]
    pub const fn knowing(mut self, knows: u32) -> Self {
        self.knows = knows;
        self
    }

    /// In a process that others can tell from another one of this node.
    #[must_use]
    pub fn living(mut self, living: Living) -> Self {
        self.living = Some(living);
        self
    }

    /// Whether it only may be let into a cluster that exists, though it remembers none.
    #[must_use]
    pub const fn rejoining(mut self, rejoins: bool) -> Self {
        self.rejoins = rejoins;
        self
    }

    fn others(&self) -> impl Iterator<Item = NodeId> {
        // Identities are what is asked for; messages go by name.
        let names = self.voters().filter(|name| **name != self.me.name);
        names.map(|name| NodeId::new(name.clone(), Incarnation(0)))
    }

    /// Those that have to agree.
    fn voters(&self) -> impl Iterator<Item = &NodeName> {
        self.listed.iter().filter(|(_, role)| **role != NodeRole::Member).map(|(name, _)| name)
    }

    fn found(&mut self, out: &mut Effects<Self>) {
        let first = self.listed.iter().find(|(_, role)| **role == NodeRole::Main);
        let mine = first.is_some_and(|(name, _)| *name == self.me.name);
        let known: BTreeSet<&NodeName> = self.empty.keys().chain([&self.me.name]).collect();
        let exists = self.settled || self.rejoins || self.exists.is_some();
        if exists || !mine || !self.voters().all(|name| known.contains(name)) {
            return;
        }
        let with = |role| {
            let names = self.listed.iter().filter(move |(_, listed)| **listed == role);
            let id = |name| self.empty.get(name).map_or_else(|| self.me.clone(), |e| e.0.clone());
            names.map(|(name, _)| id(name)).collect()
        };
        let members = self.listed.iter().filter(|(_, role)| **role == NodeRole::Member);
        let configuration =
            Configuration::founding(with(NodeRole::Main), with(NodeRole::Auxiliary))
                .with_members(members.map(|(name, _)| name.clone()).collect())
                .at_version(self.version());
        tracing::info!(mains = ?configuration.mains, auxiliaries = ?configuration.auxiliaries,
            "founding the cluster");
        self.settle(configuration.clone(), out);
        let others: Vec<NodeId> = self.others().collect();
        for other in others {
            let genesis = FounderMessage::Genesis(Genesis { configuration: configuration.clone() });
            out.after_all_before().then_send(To::Node(other), genesis);
        }
    }

    /// What every main can execute.
    fn version(&self) -> u32 {
        let main = |name: &NodeName| self.listed.get(name) == Some(&NodeRole::Main);
        let others = self.empty.iter().filter(|(name, _)| main(name)).map(|(_, (_, knows))| *knows);
        others.fold(self.knows, u32::min)
    }

    fn settle(&mut self, configuration: Configuration, out: &mut Effects<Self>) {
        self.settled = true;
        self.genesis = Some(configuration.clone());
        out.persist(Record::Genesis(configuration.clone()))
            .then_here(Message::Founded(Some(configuration)));
    }

    fn learn(&mut self, configuration: Configuration, out: &mut Effects<Self>) {
        if self.settled {
            return;
        }
        let listed = configuration.mains.iter().chain(&configuration.auxiliaries);
        if listed.into_iter().any(|node| *node == self.me) {
            return self.settle(configuration, out);
        }
        tracing::info!("the cluster exists; waiting to be admitted");
        self.settled = true;
        out.here(Message::Founded(None));
    }
}

impl Founder {
    fn life(&self) -> Option<Life> {
        let Living { starts, nonce, torn, position } = self.living.as_ref()?;
        Some(Life { starts: *starts, nonce: *nonce, torn: *torn, position: position() })
    }

    /// Asks whether this process may take part, and does once nobody is against it.
    fn enter(&mut self, now: Instant, out: &mut Effects<Self>) {
        let (Some(entry), Some(life)) = (&self.entry, self.life()) else { return };
        let waiting = self.others().filter(|other| !entry.answered.contains(&other.name));
        let silent: Vec<NodeId> = waiting.collect();
        let waited = now.since(entry.since);
        let surely_dead = !entry.moments || waited >= MOMENTS;
        if surely_dead && (silent.is_empty() || waited >= ENTRY_PATIENCE) {
            self.entry = None;
            return out.here(Message::Founded(self.genesis.clone()));
        }
        if now >= self.ask_at {
            self.ask_at = now + ASK_EVERY;
            // Those who answered may have heard of something since.
            let asked = if silent.is_empty() { self.others().collect() } else { silent };
            for other in asked {
                out.send(To::Node(other), FounderMessage::Enter(life));
            }
        }
    }

    fn entered(&mut self, from: &NodeId, answer: &Entered, out: &mut Effects<Self>) {
        let mine = self.living.as_ref().is_some_and(|living| living.nonce == answer.nonce);
        let Some(entry) = self.entry.as_mut().filter(|_| mine) else { return };
        match answer.opinion {
            Opinion::Bad(doubt) => out.here(Message::Unfit(doubt.told_by(from))),
            Opinion::Good { moments } => {
                entry.moments |= moments;
                entry.answered.insert(from.name.clone());
            }
        }
    }

    /// Says that this process takes part.
    fn live(&mut self, now: Instant, out: &mut Effects<Self>) {
        let Some(life) = self.life().filter(|_| self.settled && self.entry.is_none()) else {
            return;
        };
        let (mains, auxiliaries) = (now >= self.alive_at, now >= self.auxiliary_alive_at);
        let role = |name: &NodeName| self.listed.get(name).copied().unwrap_or(NodeRole::Main);
        let slow = role(&self.me.name) == NodeRole::Auxiliary;
        for other in self.others() {
            let slow = slow || role(&other.name) == NodeRole::Auxiliary;
            let due = if slow { auxiliaries } else { mains };
            if due {
                out.send(To::Node(other), FounderMessage::Alive(life));
            }
        }
        if mains {
            self.alive_at = now + if slow { AUXILIARY_ALIVE_EVERY } else { ALIVE_EVERY };
        }
        if auxiliaries {
            self.auxiliary_alive_at = now + AUXILIARY_ALIVE_EVERY;
        }
    }
}

impl fmt::Debug for Living {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Living(start {}, {:016x})", self.starts, self.nonce)
    }
}

impl Machine for Founder {
    type Message = FounderMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = Image;

    fn start(&mut self, now: Now, survived: &Survived<Record, Image>, out: &mut Effects<Self>) {
        self.ask_at = now.at;
        let genesis = survived.records.iter().find_map(|record| match record {
            Record::Genesis(genesis) => Some(genesis.clone()),
            Record::Promise(_)
            | Record::Vote(_)
            | Record::Chosen(_)
            | Record::Mark(_)
            | Record::Trimmed(_)
            | Record::Floor(..)
            | Record::Torn
            | Record::Mended => None,
        });
        self.genesis = genesis.clone();
        // A torn end alone is no memory: nothing was promised before the beginning was durable.
        let torn = |record: &Record| matches!(record, Record::Torn | Record::Mended);
        let knows = survived.snapshot.is_some() || !survived.records.iter().all(torn);
        if knows {
            self.settled = true;
            if self.living.is_none() {
                return out.here(Message::Founded(genesis));
            }
            let (answered, moments) = (BTreeSet::new(), false);
            self.entry = Some(Entry { since: now.at, answered, moments });
        }
        self.found(out);
    }

    fn message(
        &mut self,
        now: Now,
        from: &NodeId,
        message: FounderMessage,
        out: &mut Effects<Self>,
    ) {
        let to = To::Node(from.clone());
        match message {
            FounderMessage::Ask(_) => match &self.genesis {
                Some(genesis) => {
                    let configuration = genesis.clone();
                    let genesis = FounderMessage::Genesis(Genesis { configuration });
                    out.after_all_before().then_send(to, genesis);
                }
                // There is a log, of whose beginning it was no part, or no longer knows it: enough to
                // say so. Those who were may all have been removed.
                None if self.rejoins || self.settled => {
                    let configuration = Configuration::default();
                    out.send(to, FounderMessage::Genesis(Genesis { configuration }));
                }
                None => out.send(to, FounderMessage::Empty(Empty { knows: self.knows })),
            },
            FounderMessage::Empty(Empty { knows }) => {
                self.empty.insert(from.name.clone(), (from.clone(), knows));
                self.found(out);
            }
            FounderMessage::Genesis(genesis) if genesis.configuration.mains.is_empty() => {
                self.exists.get_or_insert(now.at);
            }
            FounderMessage::Genesis(genesis) => self.learn(genesis.configuration, out),
            FounderMessage::Enter(life) => {
                let opinion = self.lives.asked(now.at, from, life);
                out.send(to, FounderMessage::from(Entered { nonce: life.nonce, opinion }));
            }
            FounderMessage::Alive(life) => {
                if let Some(doubt) = self.lives.heard(now.at, from, life) {
                    out.send(to, FounderMessage::from(Disowned { nonce: life.nonce, doubt }));
                }
            }
            FounderMessage::Entered(answer) => self.entered(from, &answer, out),
            FounderMessage::Disowned(Disowned { nonce, doubt }) => {
                if self.living.as_ref().is_some_and(|living| living.nonce == nonce) {
                    out.here(Message::Unfit(doubt.told_by(from)));
                }
            }
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        // Until then those who know how it began may say so: this node may have been part of that.
        if self.exists.is_some_and(|since| now.at >= since + ENTRY_PATIENCE) {
            self.learn(Configuration::default(), out);
        }
        if !self.settled && now.at >= self.ask_at {
            self.ask_at = now.at + ASK_EVERY;
            let others: Vec<NodeId> = self.others().collect();
            for other in others {
                out.send(To::Node(other), FounderMessage::Ask(Ask {}));
            }
        }
        self.enter(now.at, out);
        self.live(now.at, out);
    }

    fn timeout(&mut self, _now: Now, _out: &mut Effects<Self>) {
        // Asking is done in `flush`, which follows.
    }

    fn deadline(&self) -> Option<Instant> {
        let asks = !self.settled || self.entry.is_some();
        let lives = self.living.is_some();
        let alive = self.alive_at.min(self.auxiliary_alive_at);
        match asks {
            true => Some(self.ask_at),
            false => lives.then_some(alive),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name.parse().unwrap(), Incarnation(u64::from(name.as_bytes()[0])))
    }

    fn at(millis: u64) -> Now {
        Now { at: Instant::from_nanos(millis * 1_000_000), wall_ms: millis }
    }

    /// One whose file lists a, d and e as mains, without a log.
    fn empty(name: &str) -> Founder {
        let listed = ["a", "d", "e"].map(|name| (node(name).name, NodeRole::Main));
        let mut founder = Founder::new(node(name), listed.into_iter().collect());
        let survived = Survived { records: vec![], snapshot: None };
        founder.start(at(0), &survived, &mut Effects::default());
        founder
    }

    fn tell(founder: &mut Founder, now: Now, from: &str, message: FounderMessage) -> Vec<Message> {
        let mut out = Effects::default();
        founder.message(now, &node(from), message, &mut out);
        founder.flush(now, &mut out);
        out.now.into_iter().chain(out.held).map(|letter| letter.message).collect()
    }

    fn genesis(mains: &[&str]) -> FounderMessage {
        let mains = mains.iter().map(|name| node(name)).collect();
        let configuration = Configuration { mains, ..Configuration::default() };
        FounderMessage::Genesis(Genesis { configuration })
    }

    fn began(said: &[Message]) -> bool {
        said.iter().any(|message| matches!(message, Message::Founded(_)))
    }

    /// Goal: whoever is added last is let in although all who founded the cluster were removed.
    #[test]
    fn one_that_was_added_itself_says_that_there_is_a_log() {
        let mut joined = empty("d");
        assert!(began(&tell(&mut joined, at(1), "a", genesis(&["a"]))));
        let said = tell(&mut joined, at(2), "e", FounderMessage::Ask(Ask {}));
        let told = said.into_iter().find_map(|message| match message {
            Message::Founder(told @ FounderMessage::Genesis(_)) => Some(told),
            _ => None,
        });
        let told = told.expect("it knows that there is one");
        let mut last = empty("e");
        assert!(!began(&tell(&mut last, at(3), "d", told.clone())));
        let said = tell(&mut last, at(503), "d", told);
        assert!(said.iter().any(|message| matches!(message, Message::Founded(None))));
    }

    /// Goal: its word neither lets a second cluster be founded nor keeps one that belongs to the
    /// beginning from its place there.
    #[test]
    fn its_word_founds_nothing_and_hides_no_beginning() {
        let mut first = empty("a");
        tell(&mut first, at(1), "d", genesis(&[]));
        for other in ["d", "e"] {
            let empty = FounderMessage::Empty(Empty { knows: 0 });
            assert!(!began(&tell(&mut first, at(2), other, empty)));
        }
        let said = tell(&mut first, at(3), "e", genesis(&["a", "e"]));
        assert!(said.iter().any(|message| matches!(message, Message::Founded(Some(_)))));
    }
}

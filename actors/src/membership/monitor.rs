//! The monitor: watches the others, asks for a second opinion, has the log decide, and passes every
//! view on to the manager monitor.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use synod_runtime::{
    identity::{NodeId, NodeName},
    world::Instant,
};

use super::{
    detector::{Detector, Trust},
    message::{Ask, Heard, Kind, MonitorMessage, Op, Opinion, Place, Progress, State, View, Word},
};
use crate::{
    effects::{Effects, To},
    machine::{Machine, Now, Survived},
};

/// Below which silence nothing is thought of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// Mains and members.
    pub node: Duration,
    /// Auxiliaries, which say little.
    pub auxiliary: Duration,
}

/// See the [module](super).
#[derive(Debug)]
pub struct Monitor {
    me: NodeId,
    pauses: Pauses,
    view: Option<View>,
    peers: BTreeMap<NodeName, Peer>,
    halted: bool,
    halted_said: Option<Instant>,
    /// As was said last.
    returning: BTreeSet<NodeName>,
    due: Instant,
}

/// What is known of another node.
#[derive(Debug)]
struct Peer {
    /// Who of that name was heard last.
    id: Option<NodeId>,
    kind: Kind,
    detector: Detector,
    progress: Progress,
    /// When first and when last it executed more without having more durable; nothing durable came
    /// between.
    stuck: Option<(Instant, Instant)>,
    /// Heard without a break since.
    steady: Option<Instant>,
    /// How often it was seen to go down, lately.
    falls: u32,
    up_since: Option<Instant>,
    case: Option<Case>,
    /// When a verdict upon it was last asked for.
    proposed: Option<Instant>,
}

/// A suspicion that is looked into.
#[derive(Debug)]
struct Case {
    /// Who was asked last, and when.
    asked: Option<(NodeName, Instant)>,
    /// Who had no opinion, or gave none in time.
    silent: Vec<NodeName>,
    /// Somebody hears it: nobody is asked before.
    rests: Instant,
}

impl Case {
    /// One in which nobody is asked before.
    const fn resting(until: Instant) -> Self {
        Self { asked: None, silent: Vec::new(), rests: until }
    }
}

impl Peer {
    fn new(kind: Kind, pause: Duration, now: Instant) -> Self {
        Self {
            id: None,
            kind,
            detector: Detector::new(pause, now),
            progress: Progress::default(),
            stuck: None,
            steady: None,
            falls: 0,
            up_since: None,
            case: None,
            proposed: None,
        }
    }

    fn heard(&mut self, now: Instant, pause: Duration, heard: &Heard) {
        if self.id.as_ref() != Some(&heard.node) {
            // Another of that name, or the first: what was known is not about it.
            let Self { kind, falls, up_since, .. } = *self;
            *self = Self { falls, up_since, ..Self::new(kind, pause, now) };
            self.id = Some(heard.node.clone());
        }
        if self.detector.trust(now) > Trust::Fine || self.steady.is_none() {
            self.steady = Some(now);
        }
        self.detector.heard(now);
        if let Some(progress) = heard.progress {
            if progress.durable > self.progress.durable || progress.durable >= progress.executed {
                self.stuck = None;
            } else if progress.executed > self.progress.executed {
                // The last step of an idle log may well lie in memory: one more says nothing.
                self.stuck = Some((self.stuck.map_or(now, |(first, _)| first), now));
            }
            self.progress = progress;
        }
    }

    /// What is to be thought of it.
    fn trust(&self, now: Instant, pause: Duration) -> Trust {
        let silence = self.detector.trust(now);
        let stuck = self.stuck.filter(|_| when_on!(ProgressCounts));
        let stuck = match stuck.map(|(first, last)| last.since(first)) {
            Some(long) if long >= STUCK_PAUSES * pause => Trust::Gone, // V4
            Some(long) if long >= pause => Trust::Late,
            _ => Trust::Fine,
        };
        silence.max(stuck)
    }
}

impl Monitor {
    /// The monitor of that node.
    pub fn new(me: NodeId, pauses: Pauses) -> Self {
        Self {
            me,
            pauses,
            view: None,
            peers: BTreeMap::new(),
            halted: false,
            halted_said: None,
            returning: BTreeSet::new(),
            due: Instant::default(),
        }
    }

    /// Nodes that are down by the view and are heard again.
    fn returning(&self, now: Instant, view: &View) -> BTreeSet<NodeName> {
        let is_back = |name: &NodeName, peer: &Peer| {
            view.nodes.get(name).is_some_and(|place| place.state == State::Down)
                && peer.detector.was_heard()
                && peer.trust(now, self.pause(peer.kind)) == Trust::Fine
        };
        let back = self.peers.iter().filter(|(name, peer)| is_back(name, peer));
        back.map(|(name, _)| name.clone()).collect()
    }

    const fn pause(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Main | Kind::Member => self.pauses.node,
            Kind::Auxiliary => self.pauses.auxiliary,
        }
    }

    fn decided(&mut self, now: Instant, view: View, out: &mut Effects<Self>) {
        let before = self.view.take();
        if before.as_ref() == Some(&view) {
            self.view = before;
            return;
        }
        self.peers.retain(|name, _| view.nodes.contains_key(name));
        for (name, place) in view.nodes.iter().filter(|(name, _)| **name != self.me.name) {
            let pause = self.pause(place.kind);
            let peer = self.peers.entry(name.clone());
            let peer = peer.or_insert_with(|| Peer::new(place.kind, pause, now));
            if peer.kind != place.kind {
                // It has another rhythm from now on.
                (peer.kind, peer.detector) = (place.kind, Detector::new(pause, now));
            }
            let was_up = before.as_ref().is_some_and(|before| before.is_up(name));
            let is_up = place.state == State::Up;
            match (was_up, is_up) {
                (true, false) => {
                    peer.falls = (peer.falls + 1).min(FALLS_MAX);
                    (peer.steady, peer.up_since) = (None, None);
                }
                (false, true) => peer.up_since = Some(now),
                (true, true) | (false, false) => {}
            }
            (peer.case, peer.proposed) = (None, None); // what was asked was asked in another view
        }
        self.halted_said = None;
        out.here(Word::Alert(view.clone())); // V6
        self.view = Some(view);
    }

    /// Looks at everybody.
    fn look(&mut self, now: Instant, out: &mut Effects<Self>) {
        let Some(view) = self.view.clone() else { return };
        let mut helpers = self.helpers(now, &view);
        let hears_all = view.nodes.get(&self.me.name).is_some_and(|me| me.kind == Kind::Main);
        // Those without a vote need not hear of one another.
        let concerns = |place: &Place| hears_all || place.kind == Kind::Main;
        for (name, place) in view.nodes.iter().filter(|(_, place)| concerns(place)) {
            let pause = self.pause(place.kind);
            let Some(peer) = self.peers.get_mut(name) else { continue };
            if peer.up_since.is_some_and(|since| now.since(since) >= FORGIVEN_PAUSES * pause) {
                peer.falls = 0;
            }
            let trust = peer.trust(now, pause);
            match place.state {
                State::Up if trust == Trust::Gone => {
                    self.accuse(now, name, &view, &helpers, out);
                    // Not everybody is asked about everybody by everyone.
                    if !helpers.is_empty() {
                        helpers.rotate_left(1);
                    }
                }
                State::Up => peer.case = None,
                State::Down if trust == Trust::Fine && peer.detector.was_heard() => {
                    let steady = peer.steady.is_some_and(|since| {
                        now.since(since) >= patience(pause, peer.falls) // V7
                    });
                    if let Some(node) = peer.id.clone().filter(|_| steady) {
                        self.propose(now, node, State::Up, Vec::new(), &view, out);
                    }
                }
                State::Down | State::Halted => {}
            }
        }
        self.look_at_myself(now, &view, out);
        let returning = self.returning(now, &view);
        if returning != self.returning {
            self.returning.clone_from(&returning);
            out.here(Word::Returning(returning));
        }
    }

    /// Who can be asked: mains first, who hear everybody.
    fn helpers(&self, now: Instant, view: &View) -> Vec<NodeName> {
        let fine = |name: &NodeName| {
            self.peers.get(name).is_some_and(|peer| {
                peer.detector.was_heard() && peer.trust(now, self.pause(peer.kind)) == Trust::Fine
            })
        };
        let mut all: Vec<_> = view.serving().filter(|(name, _)| fine(name)).collect();
        all.sort_by_key(|(name, place)| (place.kind, (*name).clone()));
        all.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// Looks into a suspicion: asks one node after the other, until one has an opinion.
    fn accuse(
        &mut self,
        now: Instant,
        name: &NodeName,
        view: &View,
        helpers: &[NodeName],
        out: &mut Effects<Self>,
    ) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let place = view.nodes[name];
        if place.kind == Kind::Auxiliary && !peer.detector.was_heard() {
            return; // it may have nothing to say to this node at all
        }
        let case = peer.case.get_or_insert_with(|| Case::resting(now));
        if now < case.rests {
            return;
        }
        if let Some((asked, at)) = case.asked.clone() {
            if now.since(at) < self.pauses.node {
                return;
            }
            case.silent.push(asked);
            case.asked = None;
        }
        let next = helpers.iter().find(|helper| *helper != name && !case.silent.contains(helper));
        if when_on!(SecondOpinion)
            && let Some(helper) = next
        {
            case.asked = Some((helper.clone(), now));
            let ask = Ask { view: view.id, about: name.clone() };
            let to = self.peers.get(helper).and_then(|peer| peer.id.clone());
            let Some(to) = to else { return };
            out.send(To::Node(to), Word::Monitor(MonitorMessage::Ask(ask)));
            return;
        }
        // Nobody else can say, and nobody else should: while another main is up, who hears everybody,
        // its word is waited for. A main that votes is left to the vote of the others.
        let other = |(node, at): (&NodeName, &Place)| {
            at.kind == Kind::Main && node != name && *node != self.me.name
        };
        let alone = !view.serving().any(other) && place.kind != Kind::Main;
        *case = Case::resting(now + self.pauses.node);
        let id = peer
            .id
            .clone()
            .or_else(|| Some(NodeId::new(name.clone(), place.incarnation.unwrap_or_default())));
        if let Some(id) = id.filter(|_| alone || !when_on!(SecondOpinion)) {
            self.propose(now, id, State::Down, Vec::new(), view, out);
        }
    }

    fn opinion(&mut self, now: Instant, from: &NodeId, said: &Opinion, out: &mut Effects<Self>) {
        let Some(view) = self.view.clone().filter(|view| view.id == said.view) else { return };
        let Some(peer) = self.peers.get_mut(&said.about) else { return };
        let Some(case) = &mut peer.case else { return };
        if case.asked.as_ref().is_none_or(|(asked, _)| *asked != from.name) {
            return;
        }
        match said.well {
            // V3. It is asked again as long as the suspicion lasts.
            Some(true) => *case = Case::resting(now + self.pauses.node),
            Some(false) => {
                *case = Case::resting(now + AGAIN_PAUSES * self.pauses.node);
                let place = view.nodes[&said.about];
                let id = peer.id.clone().unwrap_or_else(|| {
                    NodeId::new(said.about.clone(), place.incarnation.unwrap_or_default())
                });
                self.propose(now, id, State::Down, vec![from.name.clone()], &view, out);
            }
            None => {
                let asked = case.asked.take();
                case.silent.extend(asked.map(|(name, _)| name));
            }
        }
    }

    fn ask(&self, now: Instant, from: &NodeId, asked: &Ask, out: &mut Effects<Self>) {
        if self.view.as_ref().is_none_or(|view| view.id != asked.view) {
            return;
        }
        let peer = self.peers.get(&asked.about).filter(|peer| peer.detector.was_heard());
        let well = match peer {
            _ if asked.about == self.me.name => Some(!self.halted),
            Some(peer) => Some(peer.trust(now, self.pause(peer.kind)) < Trust::Gone),
            None => None,
        };
        let said = Opinion { view: asked.view, about: asked.about.clone(), well };
        out.send(To::Node(from.clone()), Word::Monitor(MonitorMessage::Opinion(said)));
    }

    /// Says so when this node's own state cannot be trusted, or can be again.
    fn look_at_myself(&mut self, now: Instant, view: &View, out: &mut Effects<Self>) {
        let Some(place) = view.nodes.get(&self.me.name) else { return };
        let (state, wrong) = match (self.halted, place.state) {
            (true, State::Up) => (State::Halted, true),
            (false, State::Halted) => (State::Up, true),
            _ => (State::Up, false),
        };
        let due =
            self.halted_said.is_none_or(|at| now.since(at) >= AGAIN_PAUSES * self.pauses.node);
        if wrong && due {
            self.halted_said = Some(now);
            let (node, by) = (self.me.clone(), vec![self.me.name.clone()]);
            out.here(Word::Propose(Op { view: view.id, node, state, by }));
        }
    }

    fn propose(
        &mut self,
        now: Instant,
        node: NodeId,
        state: State,
        second: Vec<NodeName>,
        view: &View,
        out: &mut Effects<Self>,
    ) {
        let Some(peer) = self.peers.get_mut(&node.name) else { return };
        let again = AGAIN_PAUSES * self.pauses.node;
        if peer.proposed.is_some_and(|at| now.since(at) < again) {
            return;
        }
        peer.proposed = Some(now);
        let by = [self.me.name.clone()].into_iter().chain(second).collect();
        out.here(Word::Propose(Op { view: view.id, node, state, by }));
    }
}

/// How long who fell that often must be heard without a break.
fn patience(pause: Duration, falls: u32) -> Duration {
    match when_on!(FallsCount) {
        true => pause * (1 << falls.min(FALLS_MAX)),
        false => pause,
    }
}

/// Falls that count: the patience doubles with each, to half a minute at pauses of a second.
const FALLS_MAX: u32 = 5;

/// Up for so many pauses, earlier falls are forgiven.
const FORGIVEN_PAUSES: u32 = 300;

/// Without headway for so many pauses, a node is not well.
const STUCK_PAUSES: u32 = 5;

/// What the log did not decide is asked for again after so many pauses.
const AGAIN_PAUSES: u32 = 2;

/// Looks per pause.
const LOOKS: u32 = 10;

impl Machine for Monitor {
    type Message = MonitorMessage;
    type Envelope = Word;
    type Record = ();
    type Snapshot = ();

    fn start(&mut self, now: Now, _survived: &Survived<(), ()>, _out: &mut Effects<Self>) {
        self.due = now.at + self.pauses.node / LOOKS;
    }

    fn message(
        &mut self,
        now: Now,
        from: &NodeId,
        message: MonitorMessage,
        out: &mut Effects<Self>,
    ) {
        // What only this node may tell itself is not taken from others.
        let mine = *from == self.me;
        match message {
            MonitorMessage::Heard(heard) if mine => {
                if let Some(peer) = self.peers.get(&heard.node.name) {
                    let pause = self.pause(peer.kind);
                    let peer = self.peers.get_mut(&heard.node.name);
                    peer.into_iter().for_each(|peer| peer.heard(now.at, pause, &heard));
                }
            }
            MonitorMessage::Decided(view) if mine => self.decided(now.at, view, out),
            MonitorMessage::Halted(halted) if mine => self.halted = halted,
            MonitorMessage::Ask(asked) => self.ask(now.at, from, &asked, out),
            MonitorMessage::Opinion(said) => self.opinion(now.at, from, &said, out),
            MonitorMessage::Heard(_) | MonitorMessage::Decided(_) | MonitorMessage::Halted(_) => {}
        }
    }

    fn flush(&mut self, _now: Now, _out: &mut Effects<Self>) {}

    fn timeout(&mut self, now: Now, out: &mut Effects<Self>) {
        self.due = now.at + self.pauses.node / LOOKS;
        self.look(now.at, out);
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.due)
    }
}

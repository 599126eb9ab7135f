//! The roles of a seat by name: which messages are for whom, and how they arrive.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use synod_runtime::{
    identity::{NodeId, NodeName},
    node::Node,
    registry::{Binding, Deliver},
    supervision::Policy,
    telemetry::Counter,
    wire::{Frame, name_hash},
    world::network::Lane,
};

use super::{Site, lock};
use crate::{
    consensus::{
        acceptor::Acceptor,
        auxiliary::Auxiliary,
        founder::Founder,
        home::Home,
        learner::Learner,
        message::{
            AuxiliaryMessage, FounderMessage, LearnerMessage, Message, NodeRole, Peer,
            ProposerMessage,
        },
        proposer::Proposer,
        record::{Image, Record},
        replica::Replica,
    },
    machine::Machine,
    role::{Inputs, RoleAddr},
    server::{membership::Views, metrics},
};

/// Message number of a sign of life in a frame; everything else is a protocol message.
const BEAT: u64 = 1;
const PROTOCOL: u64 = 2;

/// Names of the roles, by number.
pub(in crate::server) const ROLES: [&str; 7] =
    ["acceptor", "auxiliary", "proposer", "learner", "replica", "home", "founder"];

/// The name a role is reached by.
pub(in crate::server) fn role_name(role: &str, seat: &NodeName) -> String {
    format!("consensus/{role}@{seat}")
}

/// A role that can live in a seat.
pub(in crate::server) trait Resident:
    Machine<Envelope = Message, Record = Record, Snapshot = Image> + Sized
{
    /// Its name.
    const ROLE: &'static str;

    /// Its messages among all.
    fn pick(message: Message) -> Option<Self::Message>;

    /// Its place in the seat.
    fn slot(roles: &mut Roles) -> &mut Slot<Self>;

    /// One of its lives begins, and the seat knows how the log begins.
    fn began(_site: &Rc<Site>, _addr: &RoleAddr<Self>) {}
}

macro_rules! residents {
    ($($kind:ident $slot:ident $name:literal $(, began $began:path)?;)*) => {
        /// The roles of a seat, as far as they were started.
        #[derive(Default)]
        pub(in crate::server) struct Roles {
            $($slot: Slot<$kind>,)*
        }

        $(impl Resident for $kind {
            const ROLE: &'static str = $name;

            fn pick(message: Message) -> Option<Self::Message> {
                if let Message::$kind(message) = message { Some(message) } else { None }
            }

            fn slot(roles: &mut Roles) -> &mut Slot<Self> {
                &mut roles.$slot
            }

            $(fn began(site: &Rc<Site>, addr: &RoleAddr<Self>) {
                $began(site, addr);
            })?
        })*
    };
}

residents! {
    Acceptor acceptor "acceptor";
    Auxiliary auxiliary "auxiliary", began introduce;
    Proposer proposer "proposer", began proposer_began;
    Learner learner "learner";
    Replica replica "replica";
    Home home "home", began open_clients;
    Founder founder "founder";
}

/// Where one role of a seat is, once it was started.
pub(in crate::server) struct Slot<M: Machine> {
    pub(super) addr: Option<RoleAddr<M>>,
    pub(super) binding: Option<Binding>,
    /// What the seat's other roles said before it was.
    early: Vec<M::Message>,
}

/// Words kept for a role that was not started yet. The roles of a seat start together, and each
/// says a few words then.
const EARLY_MAX: usize = 256;

impl<M: Machine> Default for Slot<M> {
    fn default() -> Self {
        Self { addr: None, binding: None, early: Vec::new() }
    }
}

impl<M: Machine> Slot<M> {
    /// Hands it a message; one of its own seat is kept if it was not started yet.
    pub(super) fn hand(&mut self, me: &NodeId, from: &NodeId, message: M::Message) {
        match &self.addr {
            Some(addr) => addr.do_send(Inputs(vec![(from.clone(), message)])),
            None if from == me && self.early.len() < EARLY_MAX => self.early.push(message),
            None => {}
        }
    }

    /// It was started.
    pub(super) fn fill(&mut self, me: &NodeId, addr: RoleAddr<M>, binding: Option<Binding>) {
        let early = self.early.drain(..).map(|message| (me.clone(), message)).collect::<Vec<_>>();
        if !early.is_empty() {
            addr.do_send(Inputs(early));
        }
        (self.addr, self.binding) = (Some(addr), binding);
    }
}

/// A role is needed again soon, however often it fails: on a full disk a promise may still be asked
/// of an acceptor whose votes the journal refuses.
pub(in crate::server) fn role_policy() -> Policy {
    Policy { backoff_max: Duration::from_millis(250), ..Policy::default() }
}

/// A proposer hears whom it may talk to, and so do the proposers of the seats beside it.
fn proposer_began(site: &Rc<Site>, proposer: &RoleAddr<Proposer>) {
    *lock(&site.proposer) = Some(proposer.clone());
    let linked = site.node.peers_up().into_iter().filter_map(|peer| {
        let role = NodeRole::named(&peer.role)?;
        Some(Peer { node: peer.id, role, up: true })
    });
    let beside = site.beside().into_iter().map(|other| other.as_peer());
    let me = site.me.clone();
    let news = linked
        .chain(beside)
        .chain(site.passives_found())
        .map(|peer| (me.clone(), ProposerMessage::Peer(peer)));
    proposer.do_send(Inputs(news.collect()));
    introduce(site, proposer);
}

/// The seats beside this one hear that it can be talked to.
fn introduce<M: Machine>(site: &Rc<Site>, _addr: &RoleAddr<M>) {
    for other in site.beside() {
        if let Some(proposer) = lock(&other.proposer).as_ref() {
            let peer = ProposerMessage::Peer(site.as_peer());
            proposer.do_send(Inputs(vec![(other.me.clone(), peer)]));
        }
    }
}

fn open_clients(site: &Rc<Site>, home: &RoleAddr<Home>) {
    site.clients.open(home.clone(), std::sync::Arc::clone(site.node.clock()));
}

/// The role, lane and kind of a message that goes to another node; none for what stays here.
fn classify(message: &Message) -> (Option<usize>, Lane, u64) {
    match message {
        Message::Acceptor(_) => (Some(0), Lane::Consensus, PROTOCOL),
        Message::Auxiliary(AuxiliaryMessage::Heartbeat(_)) => (Some(1), Lane::Control, BEAT),
        Message::Auxiliary(_) => (Some(1), Lane::Consensus, PROTOCOL),
        Message::Proposer(ProposerMessage::Heartbeat(_) | ProposerMessage::Standing(_)) => {
            (Some(2), Lane::Control, BEAT)
        }
        Message::Proposer(_) => (Some(2), Lane::Consensus, PROTOCOL),
        Message::Learner(LearnerMessage::Entries(_)) => (Some(3), Lane::Bulk, PROTOCOL),
        Message::Learner(_) => (Some(3), Lane::Consensus, PROTOCOL),
        Message::Replica(_) => (Some(4), Lane::Bulk, PROTOCOL),
        Message::Home(_) => (Some(5), Lane::Consensus, PROTOCOL),
        Message::Founder(FounderMessage::Alive(_)) => (Some(6), Lane::Control, BEAT),
        Message::Founder(_) => (Some(6), Lane::Control, PROTOCOL),
        Message::Founded(_) | Message::Unfit(_) | Message::Client(_) | Message::Report(_) => {
            (None, Lane::Control, PROTOCOL)
        }
    }
}

/// The numbers of the roles of seats, computed once.
#[derive(Default)]
pub(in crate::server) struct Targets(BTreeMap<NodeName, [u64; ROLES.len()]>);

impl Targets {
    /// Tells a role of `seat`, which lives on `to`. What stays at home by its kind is not sent.
    ///
    /// # Errors
    /// Nothing was sent.
    pub(in crate::server) fn tell(
        &mut self,
        node: &Node,
        to: &NodeName,
        seat: &NodeName,
        message: &Message,
    ) -> Result<(), synod_runtime::address::SendError> {
        let (role, lane, kind) = classify(message);
        let Some(role) = role else { return Ok(()) };
        let body = rmp_serde::to_vec(message).expect("messages for the wire encode");
        if !self.0.contains_key(seat) {
            self.0.insert(seat.clone(), ROLES.map(|role| name_hash(&role_name(role, seat))));
        }
        node.tell_hashed(to, self.0[seat][role], kind, lane, &body)
    }
}

/// Frames of other nodes for one role.
pub(super) struct Route<M: Resident> {
    addr: RoleAddr<M>,
    messages: Counter,
    beats: Counter,
    views: Views,
}

impl<M: Resident> Route<M> {
    pub(super) fn new(node: &Node, views: &Views, addr: RoleAddr<M>) -> Self {
        let count = |label| node.metrics().counter(&metrics::MESSAGES, &[("role", label)]);
        // What an auxiliary is asked for is an acceptor's work.
        let label = if M::ROLE == "auxiliary" { "acceptor" } else { M::ROLE };
        let (messages, beats) = (count(label), count("heartbeat"));
        Self { addr, messages, beats, views: views.clone() }
    }
}

impl<M: Resident> Deliver for Route<M> {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        let mut inputs = Vec::with_capacity(batch.len());
        for frame in batch {
            let is_beat = frame.header.message == BEAT;
            if is_beat {
                self.beats.increment();
            } else {
                self.messages.increment();
            }
            let message = rmp_serde::from_slice::<Message>(&frame.body).ok();
            if let Some(beat) = message.as_ref().filter(|_| is_beat) {
                self.views.heard(from, beat);
            }
            match message.and_then(M::pick) {
                Some(message) => inputs.push((from.clone(), message)),
                None => {
                    tracing::warn!(%from, role = M::ROLE, "a message that cannot be read");
                    let error = synod_runtime::address::SendError::Codec;
                    node.dead_letter(&error);
                }
            }
        }
        self.addr.do_send(Inputs(inputs));
    }

    fn type_name(&self) -> &'static str {
        M::ROLE
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}

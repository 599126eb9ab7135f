//! How connections begin and end: the handshake's three packets, and hanging up.

use std::{net::SocketAddr, sync::Arc};

use super::{
    Connection, Content, End, EndState, Net, Parcel, Port, State, Way,
    connection::{id_of, parse},
    ip_of,
};
use crate::{
    identity::NodeName,
    sim::{life::Life, queue::lock},
    world::network::{ConnectionId, NetworkEvent},
};

/// One try to reach a peer.
#[derive(Clone)]
pub(super) struct Dial {
    net: Arc<Net>,
    from: Arc<Port>,
    peer: NodeName,
    address: String,
    /// When it began, in true time.
    began: u64,
    /// How many first packets were sent.
    packets: usize,
}

impl Dial {
    pub(super) fn start(net: &Arc<Net>, from: &Arc<Port>, peer: &NodeName, address: &str) {
        let dial = Self {
            net: Arc::clone(net),
            from: Arc::clone(from),
            peer: peer.clone(),
            address: address.to_owned(),
            began: net.queue.now(),
            packets: 0,
        };
        let life = from.life.clone();
        // Even the first packet leaves by an event: a dial from inside a sink must not call it.
        net.queue.after(0, Some(&life), move || dial.first_packet());
    }

    /// Sends the first packet (again), or gives up.
    fn first_packet(mut self) {
        let life = self.from.life.clone();
        if !self.from.is_open() {
            return;
        }
        let again_at = RESEND_NANOS.get(self.packets).map(|pause| self.began + pause);
        self.packets += 1;
        let net = Arc::clone(&self.net);
        let mut state = lock(&net.state);
        let Some(again_at) = again_at else {
            drop(state);
            return self.fail("timed out: no answer");
        };
        let target = state.resolve(&self.address);
        let to = target.as_ref().map(|port| port.life.index());
        let Some(latency) = to.and_then(|to| state.packet(&net, life.index(), to)) else {
            drop(state);
            net.queue.at(again_at, Some(&life), move || self.first_packet());
            return;
        };
        drop(state);
        net.queue.after(latency, Some(&life), move || self.arrived(again_at));
    }

    /// The first packet is at the peer's machine.
    fn arrived(self, again_at: u64) {
        let net = Arc::clone(&self.net);
        let life = self.from.life.clone();
        let mut state = lock(&net.state);
        let target = state.resolve(&self.address);
        let target = target.filter(|port| port.is_open() && !port.life.paused());
        let back = target.and_then(|port| {
            state.packet(&net, port.life.index(), life.index()).map(|latency| (port, latency))
        });
        drop(state);
        match back {
            Some((port, latency)) => {
                net.queue.after(latency, Some(&life), move || self.answered(&port, again_at));
            }
            None => net.queue.at(again_at, Some(&life), move || self.first_packet()),
        }
    }

    /// The peer's answer is here: this side has a connection, the other when it hears the third.
    fn answered(self, target: &Arc<Port>, again_at: u64) {
        if !self.from.is_open() {
            return;
        }
        if target.cluster != self.from.cluster {
            let (theirs, ours) = (&target.cluster, &self.from.cluster);
            return self.fail(&format!("its certificate is of cluster {theirs}, not {ours}"));
        }
        if target.name != self.peer {
            return self.fail(&format!("its certificate names {}", target.name));
        }
        let net = Arc::clone(&self.net);
        let life = self.from.life.clone();
        if !target.is_open() {
            return net.queue.at(again_at, Some(&life), move || self.first_packet());
        }
        let number = net.connect(&self.from, target);
        net.note(&life, "up", &[number]);
        let event = NetworkEvent::Up {
            connection: id_of(number, 0),
            peer: target.name.clone(),
            dialled: true,
        };
        self.from.tell(event);
    }

    fn fail(&self, reason: &str) {
        self.net.note(&self.from.life, "dial failed", &[]);
        self.from.tell(NetworkEvent::DialFailed {
            peer: self.peer.clone(),
            reason: format!("{}: {reason}", self.address),
        });
    }
}

impl Net {
    /// Makes a connection that is open at the dialler's end; the other end opens when the
    /// handshake's third packet arrives, which goes before everything else.
    fn connect(self: &Arc<Self>, from: &Arc<Port>, to: &Arc<Port>) -> u64 {
        let now = self.queue.now();
        let number = {
            let mut state = lock(&self.state);
            state.connections_made += 1;
            let number = state.connections_made;
            let ends = [End::new(from, EndState::Open, now), End::new(to, EndState::AwaitsUp, now)];
            let ways = [Way::default(), Way::default()];
            state.connections.insert(number, Connection { ends, ways });
            number
        };
        self.transmit(number, 0, Parcel::ordered(Content::Up));
        self.schedule_keep_alive(number);
        number
    }

    /// Ends a connection for `port`, and for its peer as soon as that hears of it.
    pub(super) fn hang_up(self: &Arc<Self>, port: &Arc<Port>, id: ConnectionId, reason: &str) {
        let (number, side) = parse(id);
        let open = lock(&self.state).connections.get(&number).is_some_and(|connection| {
            let end = &connection.ends[side];
            Arc::ptr_eq(&end.port, port) && end.state == EndState::Open
        });
        if open {
            self.send(number, side, Parcel::ordered(Content::Close(reason.to_owned())));
            self.close_end(number, side, reason);
        }
    }

    /// The open connections of an endpoint.
    pub(super) fn connections_of(&self, port: &Arc<Port>) -> Vec<ConnectionId> {
        let state = lock(&self.state);
        let mut ids = Vec::new();
        for (number, connection) in &state.connections {
            for (side, end) in connection.ends.iter().enumerate() {
                if Arc::ptr_eq(&end.port, port) && end.state == EndState::Open {
                    ids.push(id_of(*number, side));
                }
            }
        }
        ids
    }

    pub(super) fn note(&self, life: &Life, what: &str, numbers: &[u64]) {
        self.trace.note(self.queue.now(), life.name().as_str(), what, numbers, &[]);
    }
}

impl State {
    /// The endpoint that `address` means: `NODE:port`, a node's own address, or the very address
    /// a node asked to listen on.
    fn resolve(&self, address: &str) -> Option<Arc<Port>> {
        let (host, port) = address.rsplit_once(':')?;
        let named = host.parse().ok().and_then(|name: NodeName| self.machines.get(&name));
        if let Some(machine) = named {
            let at = SocketAddr::new(ip_of(machine), port.parse().ok()?);
            return self.ports.get(&at).cloned();
        }
        let at: SocketAddr = address.parse().ok()?;
        let asked = || self.ports.values().find(|port| port.asked == at);
        self.ports.get(&at).or_else(asked).cloned()
    }

    /// The latency of one bare packet, if it gets through.
    fn packet(&mut self, net: &Net, from: u32, to: u32) -> Option<u64> {
        let (general, now) = (self.weather, net.queue.now());
        let path = self.path(net.seed, from, to);
        path.passes(general).then(|| path.latency(now, general))
    }
}

/// When a handshake's first packet is sent again, after the first: as probe timeouts grow. After
/// the last of them the dial has failed.
const RESEND_NANOS: [u64; 4] = [300_000_000, 900_000_000, 1_500_000_000, 2_000_000_000];

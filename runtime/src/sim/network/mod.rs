//! The simulated network: what QUIC would do, with faults, out of one seed.
//!
//! A connection behaves like one of QUIC. Cut paths delay: what is under way is sent again, with
//! growing pauses, and arrives in order after the cut is mended. Whoever hears nothing for
//! [`IDLE_TIMEOUT`] is told `Down`, each side by itself; a crashed node tells nobody, and writes
//! to it vanish. On top of that, [`Weather`] loses, doubles and reorders single writes, which QUIC
//! would not: protocols must not lean on a connection's promises.

mod connection;
mod dial;
mod endpoint;
mod path;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use connection::{Connection, Content, End, EndState, Parcel, Port, Way, id_of};
pub(super) use endpoint::SimNetwork;
use path::Path;
pub use path::{Traffic, Weather};
use rand::RngExt;

use super::{
    entropy::{derive, happens, up_to},
    life::{Life, Machine},
    queue::{Event, Queue, lock, nanos},
    trace::Trace,
};
use crate::{
    identity::NodeName,
    wire::without_traces,
    world::network::{ConnectionId, Lane, NetworkEvent},
};

/// Whoever hears nothing for this long gives a connection up, as the real network does.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a node listens that asked for any free port.
pub const PORT_DEFAULT: u16 = 7400;

/// Bytes that a lane takes before it says `Full`, as the real network does.
pub const LANE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// The largest datagram: what surely fits a packet.
pub const DATAGRAM_BYTES_MAX: usize = 1200;

/// The network between all nodes of a simulation.
pub(super) struct Net {
    seed: u64,
    queue: Arc<Queue>,
    trace: Arc<Trace>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    weather: Weather,
    /// The weather when nothing is wrong.
    climate: Weather,
    machines: BTreeMap<NodeName, Arc<Machine>>,
    ports: BTreeMap<SocketAddr, Arc<Port>>,
    connections: BTreeMap<u64, Connection>,
    connections_made: u64,
    paths: BTreeMap<(u32, u32), Path>,
}

impl Net {
    pub(super) fn new(seed: u64, queue: Arc<Queue>, trace: Arc<Trace>) -> Self {
        Self { seed, queue, trace, state: Mutex::default() }
    }

    pub(super) fn add(&self, machine: &Arc<Machine>) {
        lock(&self.state).machines.insert(machine.name.clone(), Arc::clone(machine));
    }

    /// Changes the path `from` → `to`.
    fn with_path<R>(&self, from: &Machine, to: &Machine, f: impl FnOnce(&mut Path) -> R) -> R {
        f(lock(&self.state).path(self.seed, from.index, to.index))
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        lock(&self.state).weather = weather;
    }

    pub(super) fn set_climate(&self, climate: Weather) {
        let mut state = lock(&self.state);
        (state.climate, state.weather) = (climate, climate);
    }

    pub(super) fn climate(&self) -> Weather {
        lock(&self.state).climate
    }

    /// Back to the weather there is when nothing is wrong.
    pub(super) fn calm(&self) {
        let mut state = lock(&self.state);
        state.weather = state.climate;
    }

    pub(super) fn set_path_weather(&self, from: &Machine, to: &Machine, weather: Weather) {
        self.with_path(from, to, |path| path.weather = Some(weather));
    }

    pub(super) fn set_cut(&self, from: &Machine, to: &Machine, cut: bool) {
        self.with_path(from, to, |path| path.cut = cut);
    }

    pub(super) fn clog(&self, from: &Machine, to: &Machine, extra: Duration, lasting: Duration) {
        let until = self.queue.now().saturating_add(nanos(lasting));
        self.with_path(from, to, |path| path.clog(extra, until));
    }

    /// Mends all cuts and clogs; the weather stays.
    pub(super) fn heal(&self) {
        lock(&self.state).paths.values_mut().for_each(Path::heal);
    }

    /// What went on a lane, or with `None` as datagrams.
    pub(super) fn traffic(&self, from: &Machine, to: &Machine, lane: Option<Lane>) -> Traffic {
        self.with_path(from, to, |path| path.traffic[lane.map_or(DATAGRAMS, |l| l as usize)])
    }

    /// Breaks every connection between two nodes; both sides hear `Down` soon.
    pub(super) fn break_between(self: &Arc<Self>, one: &Machine, other: &Machine) {
        let broken: Vec<u64> = {
            let state = lock(&self.state);
            let between = |c: &Connection| {
                let ends = [c.ends[0].port.life.index(), c.ends[1].port.life.index()];
                ends == [one.index, other.index] || ends == [other.index, one.index]
            };
            state.connections.iter().filter(|(_, c)| between(c)).map(|(n, _)| *n).collect()
        };
        for number in broken {
            self.break_up(number, "connection reset");
        }
    }

    /// Forgets the endpoints of a life that is over. Its peers are not told.
    pub(super) fn purge(&self, life: &Life) {
        let gone: Vec<Arc<Port>> = {
            let mut state = lock(&self.state);
            let of_life =
                |p: &Port| p.life.index() == life.index() && p.life.number() <= life.number();
            let ended: Vec<_> = state.ports.extract_if(.., |_, port| of_life(port)).collect();
            ended.into_iter().map(|(_, port)| port).collect()
        };
        for port in gone {
            port.close();
        }
    }

    /// Lets go of everything, at the end of a run.
    pub(super) fn close(&self) {
        let old = std::mem::take(&mut *lock(&self.state));
        for port in old.ports.values() {
            port.close();
        }
    }

    /// Sends a parcel away from end `side`; while that node is paused, when it resumes.
    fn send(self: &Arc<Self>, number: u64, side: usize, parcel: Parcel) {
        let sender = {
            let state = lock(&self.state);
            let Some(connection) = state.connections.get(&number) else { return };
            connection.ends[side].port.life.clone()
        };
        if sender.paused() {
            let net = Arc::clone(self);
            sender.hold(Event::held(&sender, move || net.transmit(number, side, parcel)));
        } else {
            self.transmit(number, side, parcel);
        }
    }

    /// Puts a parcel on its way, past the weather.
    fn transmit(self: &Arc<Self>, number: u64, side: usize, parcel: Parcel) {
        let now = self.queue.now();
        let mut state = lock(&self.state);
        let Some((from, to)) = state.route(number, side) else { return };
        let general = state.weather;
        let path = state.path(self.seed, from.index(), to.index());
        let weather = path.weather(general);
        let lane = parcel.what.lane();
        if lane.is_some() && happens(&mut path.rng, weather.loss) {
            let lane = lane.unwrap_or(DATAGRAMS);
            path.traffic[lane].lost += 1;
            self.trace.note(now, from.name().as_str(), "lose", &[number, lane as u64], &[]);
            if let Some(connection) = state.connections.get_mut(&number) {
                connection.ways[side].delivered(&parcel);
            }
            drop(state);
            if lane == Lane::Control as usize {
                self.break_up(number, "connection reset");
            }
            return;
        }
        let Some(mut arrival) = path.arrival(now, general, &parcel.what) else {
            path.traffic[DATAGRAMS].lost += 1;
            return;
        };
        let faulty = lane.is_some_and(|lane| lane != Lane::Control as usize);
        let late = faulty && happens(&mut path.rng, weather.reorder);
        let twice = faulty && happens(&mut path.rng, weather.duplication);
        if late {
            arrival += up_to(&mut path.rng, OVERTAKEN_NANOS_MAX);
        }
        let again = twice.then(|| arrival + up_to(&mut path.rng, OVERTAKEN_NANOS_MAX));
        let Some(connection) = state.connections.get_mut(&number) else { return };
        let datagram = matches!(parcel.what, Content::Datagram(_));
        let parcel = Parcel { unordered: late || datagram, ..parcel };
        arrival = connection.ways[side].arrival(arrival, &parcel);
        drop(state);
        if let Some(again) = again {
            let copy = Parcel { unordered: true, copy: true, ..parcel.clone() };
            self.schedule_arrival(again.max(arrival), &to, number, side, copy);
        }
        self.schedule_arrival(arrival, &to, number, side, parcel);
    }

    fn schedule_arrival(
        self: &Arc<Self>,
        at: u64,
        to: &Life,
        number: u64,
        side: usize,
        parcel: Parcel,
    ) {
        let net = Arc::clone(self);
        self.queue.at(at, Some(to), move || net.arrive(number, side, parcel));
    }

    /// A parcel from end `side` comes to the other end, unless the path is cut.
    fn arrive(self: &Arc<Self>, number: u64, side: usize, parcel: Parcel) {
        let mut state = lock(&self.state);
        let Some((from, to)) = state.route(number, side) else { return };
        let cut = state.path(self.seed, from.index(), to.index()).cut;
        let Some(connection) = state.connections.get_mut(&number) else { return };
        let way = &mut connection.ways[side];
        if cut && matches!(parcel.what, Content::Datagram(_)) {
            return;
        }
        if cut || (!way.stalled.is_empty() && !parcel.unordered) {
            way.stalled.push_back(parcel);
            if way.stalled.len() == 1 {
                way.retry = RETRY_NANOS_MIN;
                let net = Arc::clone(self);
                self.queue.after(RETRY_NANOS_MIN, Some(&to), move || net.retry(number, side));
            }
            return;
        }
        drop(state);
        self.deliver(number, side, &parcel);
    }

    /// Tries again what a cut held up.
    fn retry(self: &Arc<Self>, number: u64, side: usize) {
        let mut state = lock(&self.state);
        let Some((from, to)) = state.route(number, side) else { return };
        let cut = state.path(self.seed, from.index(), to.index()).cut;
        let Some(connection) = state.connections.get_mut(&number) else { return };
        let way = &mut connection.ways[side];
        if cut {
            way.retry = (way.retry * 2).min(RETRY_NANOS_MAX);
            let net = Arc::clone(self);
            self.queue.after(way.retry, Some(&to), move || net.retry(number, side));
            return;
        }
        let parcels = std::mem::take(&mut way.stalled);
        drop(state);
        for parcel in parcels {
            self.deliver(number, side, &parcel);
        }
    }

    /// Hands a parcel to the end it was for.
    fn deliver(self: &Arc<Self>, number: u64, side: usize, parcel: &Parcel) {
        let now = self.queue.now();
        let mut state = lock(&self.state);
        let Some((from, to)) = state.route(number, side) else { return };
        let Some(connection) = state.connections.get_mut(&number) else { return };
        connection.ways[side].delivered(parcel);
        let sender = connection.ends[side].port.name.clone();
        let end = &mut connection.ends[1 - side];
        end.heard = now;
        match (&parcel.what, end.state) {
            (Content::Up, EndState::AwaitsUp) => end.state = EndState::Open,
            (Content::Close(_), EndState::Open) => end.state = EndState::Closed,
            (Content::Chunk(..) | Content::Datagram(_), EndState::Open) => {}
            (_, EndState::Open | EndState::AwaitsUp | EndState::Closed) => return,
        }
        let port = Arc::clone(&end.port);
        if connection.ends.iter().all(|end| end.state == EndState::Closed) {
            state.connections.remove(&number);
        }
        let path = state.path(self.seed, from.index(), to.index());
        let cut_at = parcel.what.lane().map(|lane| {
            path.traffic[lane].delivered += 1;
            // Streams keep no borders: readers must cope with any cut.
            if path.rng.random::<u8>() < 16 { path.rng.random::<u32>() } else { 0 }
        });
        drop(state);
        let (what, bytes) = parcel.what.describe();
        // Whether anybody follows what happens must not show in what happens.
        let bytes = without_traces(bytes);
        self.trace.note(now, to.name().as_str(), what, &[number, side as u64], &bytes);
        let connection = id_of(number, 1 - side);
        for event in parcel.what.events(connection, &sender, cut_at.unwrap_or(0)) {
            port.tell(event);
        }
    }

    /// Ends a connection for whoever still has it; both hear of it within a latency.
    fn break_up(self: &Arc<Self>, number: u64, reason: &str) {
        for side in 0..2 {
            self.close_end(number, side, reason);
        }
    }

    /// One end is over; its sink hears `Down` as the next event.
    fn close_end(self: &Arc<Self>, number: u64, side: usize, reason: &str) {
        let mut state = lock(&self.state);
        let Some(connection) = state.connections.get_mut(&number) else { return };
        let end = &mut connection.ends[side];
        let was = std::mem::replace(&mut end.state, EndState::Closed);
        let port = Arc::clone(&end.port);
        if connection.ends.iter().all(|end| end.state == EndState::Closed) {
            state.connections.remove(&number);
        }
        drop(state);
        if was != EndState::Open {
            return; // it was never told of the connection, or knows already
        }
        let life = port.life.clone();
        let now = self.queue.now();
        self.trace.note(now, life.name().as_str(), "down", &[number], reason.as_bytes());
        let event =
            NetworkEvent::Down { connection: id_of(number, side), reason: reason.to_owned() };
        self.queue.after(0, Some(&life), move || port.tell(event));
    }

    /// Once a while each end looks whether it heard from the other: life signs are not sent one by
    /// one, they are read off the state of nodes and paths.
    fn keep_alive(self: &Arc<Self>, number: u64) {
        let now = self.queue.now();
        let mut silent = Vec::new();
        {
            let mut state = lock(&self.state);
            for side in 0..2 {
                let Some((from, to)) = state.route(number, 1 - side) else { return };
                let cut = state.path(self.seed, from.index(), to.index()).cut;
                let Some(connection) = state.connections.get_mut(&number) else { return };
                let answers = connection.ends[1 - side].answers();
                let end = &mut connection.ends[side];
                if answers && !cut {
                    end.heard = now;
                }
                if !end.port.is_open() || now - end.heard >= nanos(IDLE_TIMEOUT) {
                    silent.push(side);
                }
            }
        }
        for side in silent {
            self.close_end(number, side, "timed out: nothing heard for 5 s");
        }
        self.schedule_keep_alive(number);
    }

    fn schedule_keep_alive(self: &Arc<Self>, number: u64) {
        let net = Arc::clone(self);
        self.queue.after(nanos(IDLE_TIMEOUT) / 5, None, move || net.keep_alive(number));
    }
}

impl State {
    /// The path between two machines, made when first used, with a random stream of its own.
    fn path(&mut self, seed: u64, from: u32, to: u32) -> &mut Path {
        let ends = [u64::from(from), u64::from(to)];
        self.paths
            .entry((from, to))
            .or_insert_with(|| Path::new(derive(seed, &["network"], &ends), from == to))
    }

    /// Whose lives a connection's direction joins: from end `side` to the other.
    fn route(&self, number: u64, side: usize) -> Option<(Life, Life)> {
        let ends = &self.connections.get(&number)?.ends;
        Some((ends[side].port.life.clone(), ends[1 - side].port.life.clone()))
    }
}

impl Way {
    /// When a parcel that travels until `arrival` is there: after those before it on its lane.
    fn arrival(&mut self, arrival: u64, parcel: &Parcel) -> u64 {
        let arrival = arrival.max(self.floor);
        match (&parcel.what, parcel.unordered) {
            (Content::Up, _) => {
                self.floor = arrival + 1;
                arrival
            }
            (Content::Chunk(lane, _), false) => {
                let last = &mut self.last[*lane as usize];
                *last = arrival.max(*last + 1);
                *last
            }
            // Closing is no flush: only what was said on the control lane surely comes first.
            (Content::Close(_), _) => arrival.max(self.last[Lane::Control as usize] + 1),
            (Content::Chunk(..), true) | (Content::Datagram(_), _) => arrival,
        }
    }

    /// A parcel no longer fills its lane's queue.
    fn delivered(&mut self, parcel: &Parcel) {
        if let (Content::Chunk(lane, bytes), false) = (&parcel.what, parcel.copy) {
            self.queued[*lane as usize] -= bytes.len() as u64;
        }
    }
}

impl Content {
    /// Where its traffic is counted and faults strike; nothing for the connection's own packets.
    fn lane(&self) -> Option<usize> {
        match self {
            Self::Chunk(lane, _) => Some(*lane as usize),
            Self::Datagram(_) => Some(DATAGRAMS),
            Self::Up | Self::Close(_) => None,
        }
    }

    /// For the trace.
    fn describe(&self) -> (&'static str, &[u8]) {
        match self {
            Self::Up => ("accept", &[]),
            Self::Chunk(_, bytes) => ("chunk", bytes),
            Self::Datagram(bytes) => ("datagram", bytes),
            Self::Close(reason) => ("closed", reason.as_bytes()),
        }
    }

    /// What the receiver's sink is told; a chunk in two pieces if `cut_at` is not 0.
    fn events(&self, connection: ConnectionId, from: &NodeName, cut_at: u32) -> Vec<NetworkEvent> {
        match self {
            Self::Up => {
                vec![NetworkEvent::Up { connection, peer: from.clone(), dialled: false }]
            }
            Self::Chunk(lane, bytes) => {
                let at = cut_at as usize % bytes.len().max(1);
                let pieces = [bytes.slice(..at), bytes.slice(at..)];
                let told = pieces.into_iter().filter(|piece| !piece.is_empty());
                told.map(|bytes| NetworkEvent::Chunk { connection, lane: *lane, bytes }).collect()
            }
            Self::Datagram(bytes) => {
                vec![NetworkEvent::Datagram { connection, bytes: bytes.clone() }]
            }
            Self::Close(reason) => vec![NetworkEvent::Down {
                connection,
                reason: format!("closed by {from}: {reason}"),
            }],
        }
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("Net").field("connections", &state.connections.len()).finish()
    }
}

/// The fixed address of a machine.
pub(super) fn ip_of(machine: &Machine) -> IpAddr {
    let [_, high, middle, low] = (machine.index + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, high, middle, low))
}

/// Where datagrams are counted, after the lanes.
const DATAGRAMS: usize = 4;
/// How late a duplicate or an overtaken write may be: some round trips.
const OVERTAKEN_NANOS_MAX: u64 = 20_000_000;
/// First pause before what a cut held up is sent again, as a transport's probe timeout.
const RETRY_NANOS_MIN: u64 = 50_000_000;
/// Longest such pause.
const RETRY_NANOS_MAX: u64 = 1_000_000_000;

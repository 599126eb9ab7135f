//! The replica's whole state as bytes, and back.
//!
//! ```text
//! magic u64 | head len u32, head (MessagePack, a named map) | records | 0 u32 | actors | 0 u16
//! records: sessions and keys, see `memory`; in the head before the third form
//! actor: name len u16, name | parts of its state: { len u32 > 0, bytes } | 0 u32
//! ```
//! It can be written and read part by part: nobody needs to hold all of it.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};

use super::{
    Replica, State,
    execute::too_old_for,
    guests::Guests,
    keys::Keys,
    memory::{Memory, Remembered},
    sessions::Sessions,
    takeover::Taking,
    unpacker::{Piece, Unpacker},
};
use crate::{
    consensus::configuration::History,
    replicated::{StateMachine, is_in_force, name_hash},
};

/// The form of a snapshot; a higher one is of a newer build.
pub(super) const VERSION: u16 = 3;

pub(super) const MAGIC: [u8; 8] = *b"synodst\x02";

/// The replicated actors, by the hash of their names.
pub(super) type Actors = BTreeMap<u64, Box<dyn StateMachine>>;

/// A snapshot's content. Named fields, so that later versions may add some.
#[derive(Debug, Serialize, Deserialize)]
pub struct StateImage {
    pub(super) version: u16,
    /// What was executed and who votes.
    pub history: History,
    /// Commands executed.
    pub position: u64,
    /// Agreed time in milliseconds.
    pub time_ms: u64,
    /// Chain over commands and replies.
    pub digest: u64,
    #[serde(default, skip_serializing)]
    sessions: Sessions,
    #[serde(default, skip_serializing)]
    pub(super) keys: Keys,
    #[serde(default, skip_serializing)]
    guests: Guests,
    #[serde(default)]
    taking: Option<Taking>,
    /// Name and state of every replicated actor. Behind the head but for the first version, of which
    /// this was a field.
    pub(super) actors: Vec<(String, Bytes)>,
}

impl StateImage {
    /// Reads a snapshot.
    ///
    /// # Errors
    /// A text for people when this build cannot read it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut unpacker = Unpacker::default();
        unpacker.push(Bytes::copy_from_slice(bytes));
        let mut image = None;
        let mut actors: Vec<(String, Vec<u8>)> = Vec::new();
        while let Some(piece) = unpacker.next()? {
            match piece {
                Piece::Head(head) => image = Some(*head),
                Piece::Record(record) => image.as_mut().ok_or(CUT)?.remember(*record),
                Piece::Actor(name) => actors.push((name, Vec::new())),
                Piece::Part(part) => {
                    let last = actors.last_mut().expect("a part follows its actor");
                    last.1.extend_from_slice(&part);
                }
                Piece::ActorEnd => {}
            }
        }
        unpacker.end()?;
        let mut image: Self = image.ok_or(CUT)?;
        image.actors.extend(actors.into_iter().map(|(name, bytes)| (name, bytes.into())));
        Ok(image)
    }

    /// Reads the head of a snapshot, without the actors.
    ///
    /// # Errors
    /// A text for people when this build cannot read it.
    pub(crate) fn head(bytes: &Bytes) -> Result<Self, String> {
        let mut unpacker = Unpacker::default();
        unpacker.push(bytes.clone());
        match unpacker.next()? {
            Some(Piece::Head(head)) => Ok(*head),
            Some(_) | None => Err(CUT.to_owned()),
        }
    }

    fn remember(&mut self, record: Remembered) {
        match record {
            Remembered::Session(number, session) => self.sessions.put(number, session),
            Remembered::Guest(number, guest) => self.guests.put(number, guest),
            Remembered::Keys(run) => self.keys.put(run),
        }
    }

    /// Its bytes.
    pub(crate) fn encode(self) -> Bytes {
        let mut memory = Memory::of(&self.sessions, &self.guests, &self.keys);
        let (mut out, actors) = self.into_head();
        while memory.next(&mut out) {}
        for (name, bytes) in actors {
            begin_actor(&mut out, &name);
            put_parts(&mut out, &bytes);
            out.put_u32_le(0);
        }
        out.put_u16_le(0);
        out.into()
    }

    /// The same state, after which positions go on from `position`.
    pub(crate) fn continued_at(self, position: u64) -> Self {
        Self { position, ..self }
    }

    /// Every replicated actor, with the bytes of its state.
    pub(crate) fn actors(&self) -> impl Iterator<Item = (&str, usize)> {
        self.actors.iter().map(|(name, bytes)| (name.as_str(), bytes.len()))
    }

    fn into_head(mut self) -> (Vec<u8>, Vec<(String, Bytes)>) {
        let actors = std::mem::take(&mut self.actors);
        self.version = VERSION;
        let head = rmp_serde::to_vec_named(&self).expect("plain data encodes");
        let mut out = MAGIC.to_vec();
        out.put_u32_le(u32::try_from(head.len()).expect("replies are bounded"));
        out.extend_from_slice(&head);
        (out, actors)
    }
}

fn begin_actor(out: &mut Vec<u8>, name: &str) {
    out.put_u16_le(u16::try_from(name.len()).expect("names are short"));
    out.extend_from_slice(name.as_bytes());
}

fn put_parts(out: &mut Vec<u8>, bytes: &[u8]) {
    for part in bytes.chunks(PART_BYTES_MAX) {
        put_part(out, part);
    }
}

fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    if !part.is_empty() {
        out.put_u32_le(u32::try_from(part.len()).expect("a part is small"));
        out.extend_from_slice(part);
    }
}

/// Far below what its length is written in.
const PART_BYTES_MAX: usize = 1 << 30;

pub(super) const CUT: &str = "it is cut short";

/// A state on its way out.
pub(super) struct Parts {
    head: Option<Vec<u8>>,
    memory: Option<Memory>,
    actors: VecDeque<Leaving>,
    ended: bool,
}

struct Leaving {
    id: u64,
    name: String,
    begun: bool,
    /// The whole state of an actor that does not hand it out in parts.
    whole: Option<Bytes>,
}

impl Parts {
    /// Appends about `bytes` of the state; whether there is more.
    pub(super) fn next(&mut self, actors: &mut Actors, bytes: usize, out: &mut Vec<u8>) -> bool {
        out.append(&mut self.head.take().unwrap_or_default());
        while out.len() < bytes
            && let Some(memory) = &mut self.memory
        {
            if !memory.next(out) {
                self.memory = None;
            }
        }
        while out.len() < bytes
            && let Some(leaving) = self.actors.front_mut()
        {
            if !std::mem::replace(&mut leaving.begun, true) {
                begin_actor(out, &leaving.name);
            }
            let room = bytes.saturating_sub(out.len()).max(1);
            let more = match &mut leaving.whole {
                Some(whole) => {
                    put_part(out, &whole.split_to(room.min(whole.len())));
                    !whole.is_empty()
                }
                None => {
                    let at = out.len();
                    out.put_u32_le(0);
                    let actor = actors.get_mut(&leaving.id).and_then(|actor| actor.in_parts());
                    let more = actor.is_some_and(|actor| actor.frozen_part(room, out));
                    let len = out.len() - at - 4;
                    let len = u32::try_from(len).expect("a part is small");
                    // An empty part would be taken for the end.
                    match len {
                        0 => out.truncate(at),
                        _ => out[at..at + 4].copy_from_slice(&len.to_le_bytes()),
                    }
                    more
                }
            };
            if !more {
                out.put_u32_le(0);
                self.actors.pop_front();
            }
        }
        if self.actors.is_empty() && !std::mem::replace(&mut self.ended, true) {
            out.put_u16_le(0);
        }
        !self.ended
    }
}

/// A state on its way in: actors of its own, until all of it came.
pub(super) struct Install {
    unpacker: Unpacker,
    head: Option<StateImage>,
    actors: Actors,
    /// The actor whose parts come; the state is collected if it takes none in parts.
    current: Option<(u64, Vec<u8>)>,
    /// It is of a cluster version that this build does not know.
    pub(super) too_old: bool,
}

impl Install {
    /// Into these actors, which are new.
    pub(super) fn new(actors: Actors) -> Self {
        Self { unpacker: Unpacker::default(), head: None, actors, current: None, too_old: false }
    }

    /// More of the state.
    ///
    /// # Errors
    /// A text for people; the rest is of no use.
    pub(super) fn take(&mut self, bytes: Bytes) -> Result<(), String> {
        self.unpacker.push(bytes);
        while let Some(piece) = self.unpacker.next()? {
            match piece {
                Piece::Head(mut head) => {
                    if let Some(why) = too_old_for(&self.actors, &head.history) {
                        self.too_old = true;
                        return Err(why);
                    }
                    for (name, bytes) in std::mem::take(&mut head.actors) {
                        self.begin(&name)?;
                        self.part(&bytes)?;
                        self.actor_end()?;
                    }
                    self.head = Some(*head);
                }
                Piece::Record(record) => self.head.as_mut().ok_or(CUT)?.remember(*record),
                Piece::Actor(name) => self.begin(&name)?,
                Piece::Part(part) => self.part(&part)?,
                Piece::ActorEnd => self.actor_end()?,
            }
        }
        Ok(())
    }

    /// The state that came.
    ///
    /// # Errors
    /// A text for people when it was not all.
    pub(super) fn end(self) -> Result<(StateImage, Actors), String> {
        self.unpacker.end()?;
        Ok((self.head.ok_or(CUT)?, self.actors))
    }

    fn begin(&mut self, name: &str) -> Result<(), String> {
        let id = name_hash(name);
        if !self.actors.contains_key(&id) {
            return Err(format!("it holds actor {name}, which this build does not have"));
        }
        self.current = Some((id, Vec::new()));
        Ok(())
    }

    fn part(&mut self, part: &[u8]) -> Result<(), String> {
        let Some((id, collected)) = &mut self.current else { return Ok(()) };
        let Some(actor) = self.actors.get_mut(id) else { return Ok(()) };
        match actor.in_parts() {
            Some(actor) => actor.restore_part(part).map_err(|error| error.to_string()),
            None => {
                collected.extend_from_slice(part);
                Ok(())
            }
        }
    }

    fn actor_end(&mut self) -> Result<(), String> {
        let Some((id, collected)) = self.current.take() else { return Ok(()) };
        let Some(actor) = self.actors.get_mut(&id) else { return Ok(()) };
        let ended = match actor.in_parts() {
            Some(actor) => actor.restore_end(),
            None => actor.restore(&collected),
        };
        ended.map_err(|error| error.to_string())
    }
}

impl Replica {
    /// The present state, all at once: for small ones, and for those no command waits for.
    pub(crate) fn image(&self) -> Bytes {
        let version = self.state.history.newest().map_or(0, |newest| newest.version);
        let states = self.machines.values();
        let states = states.filter(|machine| is_in_force(machine.as_ref(), version));
        let states = states.map(|machine| (machine.name().to_owned(), machine.snapshot().into()));
        StateImage { actors: states.collect(), ..self.head() }.encode()
    }

    /// The present state, to be handed out while commands go on.
    pub(super) fn freeze(&mut self) -> Parts {
        let State { sessions, guests, keys, .. } = &self.state;
        let memory = Some(Memory::of(sessions, guests, keys));
        let (head, _) = self.bare_head().into_head();
        // What no command can have changed yet, older builds need not have.
        let version = self.state.history.newest().map_or(0, |newest| newest.version);
        let actors = self.machines.iter_mut();
        let actors = actors.filter(|(_, machine)| is_in_force(machine.as_ref(), version));
        let actors = actors.map(|(id, machine)| {
            let name = machine.name().to_owned();
            let whole = match machine.in_parts() {
                Some(actor) => {
                    actor.freeze();
                    None
                }
                None => Some(Bytes::from(machine.snapshot())),
            };
            Leaving { id: *id, name, begun: false, whole }
        });
        Parts { head: Some(head), memory, actors: actors.collect(), ended: false }
    }

    /// All but the actors.
    fn head(&self) -> StateImage {
        let State { sessions, keys, guests, .. } = self.state.clone();
        StateImage { sessions, keys, guests, ..self.bare_head() }
    }

    /// Nor what makes commands execute exactly once.
    fn bare_head(&self) -> StateImage {
        let State { history, position, time_ms, digest, taking, .. } = &self.state;
        StateImage {
            version: VERSION,
            history: history.clone(),
            position: *position,
            time_ms: *time_ms,
            digest: *digest,
            sessions: Sessions::default(),
            keys: Keys::default(),
            guests: Guests::default(),
            taking: taking.clone(),
            actors: Vec::new(),
        }
    }

    /// Replaces the state by one that came in whole.
    pub(super) fn install(&mut self, image: StateImage, machines: Actors) {
        self.machines = machines;
        let StateImage {
            history, position, time_ms, digest, sessions, keys, guests, taking, ..
        } = image;
        self.state = State { history, position, time_ms, digest, sessions, keys, guests, taking };
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::SnapshotForgetsSessions) {
            self.state.sessions = Sessions::default();
        }
        self.log_bytes = 0;
        self.tell_roster();
    }
}

//! One caller's side: reads, judges, replaces, and only then answers.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use synod_runtime::{
    identity::{Incarnation, NodeId, NodeName},
    world::Instant,
};

use super::{DEAD_AFTER, SharedObject};
use crate::{
    consensus::{
        auxiliary::{Auxiliary, Memory},
        ballot::Step,
        configuration::Configuration,
        lives::Opinion,
        message::{
            AuxiliaryMessage, Empty, Entered, FounderMessage, Genesis, Message, ProbeAnswer,
            ProposerMessage,
        },
    },
    effects::{Effects, Letter, To},
    machine::{Machine as _, Now},
};

/// What an object holds.
#[derive(Debug, Serialize, Deserialize)]
struct Object {
    /// Who this auxiliary is.
    id: NodeId,
    memory: Memory,
}

/// A question to the auxiliary, as a node addresses it.
pub(super) struct Question {
    /// Whom the asker means.
    pub(super) to: NodeId,
    pub(super) message: Message,
}

/// What one turn came to.
#[derive(Debug)]
pub(super) struct Answers {
    /// Who answers.
    pub(super) id: NodeId,
    /// For the roles of this node.
    pub(super) messages: Vec<Message>,
}

/// See the module's documentation.
pub(super) struct Caller {
    /// The main whose roles ask.
    me: NodeId,
    name: NodeName,
    object: Arc<dyn SharedObject>,
    /// The identity and the first version of the object, should this caller be the one to make it.
    fresh: (Incarnation, u64),
    beats: u64,
    /// The last beat of each other main, and when it was first seen.
    seen: BTreeMap<NodeName, (u64, Instant)>,
}

impl Caller {
    pub(super) fn new(
        me: NodeId,
        name: NodeName,
        object: Arc<dyn SharedObject>,
        fresh: (Incarnation, u64),
    ) -> Self {
        Self { me, name, object, fresh, beats: 0, seen: BTreeMap::new() }
    }

    /// Leaves a beat and looks at those of the others. Answers who the auxiliary is.
    pub(super) fn beat(&mut self, now: Now) -> io::Result<NodeId> {
        self.beats += 1;
        self.object.beat(&self.me.name, self.beats)?;
        let object = match self.open()? {
            (_, Some(object)) => object,
            (_, None) => {
                let id = NodeId::new(self.name.clone(), self.fresh.0);
                let memory = Auxiliary::new(id.clone(), Duration::ZERO).memory();
                let object = Object { id, memory };
                // Another may be faster; then it is what that one made.
                if self.object.swap(0, self.fresh.1, &encode(&object))? {
                    object
                } else {
                    self.open()?.1.ok_or(io::ErrorKind::NotFound)?
                }
            }
        };
        for main in object.memory.configuration.iter().flat_map(|c| &c.mains) {
            let beat = self.object.last_beat(&main.name)?;
            let known = self.seen.get(&main.name);
            if known.is_none_or(|(known, _)| *known != beat) {
                self.seen.insert(main.name.clone(), (beat, now.at));
            }
        }
        Ok(object.id)
    }

    /// Puts these questions, in order, and answers what came of them.
    pub(super) fn ask(&self, now: Now, questions: &[Question]) -> io::Result<Answers> {
        for _ in 0..SWAPS_MAX {
            let (version, Some(object)) = self.open()? else {
                return Err(io::ErrorKind::NotFound.into()); // the next beat makes it
            };
            let (id, before) = (object.id.clone(), encode(&object));
            let (after, messages) = self.judge(now, object, questions);
            let after = encode(&after);
            // Versions of one object rise; an answer that changes nothing needs none.
            let settled =
                after == before || self.object.swap(version, version.wrapping_add(1), &after)?;
            if settled {
                return Ok(Answers { id, messages });
            }
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "others were faster again and again"))
    }

    fn open(&self) -> io::Result<(u64, Option<Object>)> {
        let (version, bytes) = self.object.load()?;
        if version == 0 {
            return Ok((0, None));
        }
        let damaged = |e: rmp_serde::decode::Error| {
            let why = format!(
                "the memory of auxiliary {} is damaged ({e}): remove the object, and it comes \
                 back as a new node",
                self.name
            );
            io::Error::new(io::ErrorKind::InvalidData, why)
        };
        Ok((version, Some(rmp_serde::from_slice(&bytes).map_err(damaged)?)))
    }

    /// What the rules make of the memory and the questions.
    fn judge(&self, now: Now, object: Object, questions: &[Question]) -> (Object, Vec<Message>) {
        let Object { id, mut memory } = object;
        let mut said = Vec::new();
        let meant = questions
            .iter()
            .filter(|asked| [id.incarnation, Incarnation(0)].contains(&asked.to.incarnation));
        for asked in meant.clone() {
            if let Message::Founder(message) = &asked.message {
                said.extend(found(&id, &mut memory.configuration, memory.floor, message));
            }
        }
        let mut machine =
            Auxiliary::new(id.clone(), Duration::ZERO).within(BYTES_MAX).remembering(memory);
        let mut out = Effects::default();
        for asked in meant {
            if let Message::Auxiliary(message) = &asked.message {
                machine.message(now, &self.me, message.clone(), &mut out);
            }
        }
        machine.flush(now, &mut out);
        self.look(now, &mut machine, &mut out);
        let letters = out.now.into_iter().chain(out.held);
        said.extend(letters.filter(|letter| self.is_mine(letter)).map(|letter| letter.message));
        (Object { id, memory: machine.memory() }, said)
    }

    /// Answers the probes by the beats that were seen.
    fn look(&self, now: Now, machine: &mut Auxiliary, out: &mut Effects<Auxiliary>) {
        let probes: Vec<(NodeId, u64)> = out
            .now
            .iter()
            .filter_map(|letter| match (&letter.to, &letter.message) {
                (To::Node(node), Message::Proposer(ProposerMessage::Probe(probe))) => {
                    Some((node.clone(), probe.nonce))
                }
                _not_a_probe => None,
            })
            .collect();
        for (node, nonce) in probes {
            // Not looked at for long enough to say that it is dead.
            let lives =
                self.seen.get(&node.name).is_none_or(|(_, at)| now.at.since(*at) < DEAD_AFTER);
            if lives {
                let answer = AuxiliaryMessage::ProbeAnswer(ProbeAnswer { nonce });
                machine.message(now, &node, answer, out);
            }
        }
        machine.timeout(now, out);
    }

    /// Whether this is an answer to the asker; all else is the caller's own business.
    fn is_mine(&self, letter: &Letter<Message>) -> bool {
        let probe = matches!(&letter.message, Message::Proposer(ProposerMessage::Probe(_)));
        letter.to == To::Node(self.me.clone()) && !probe
    }
}

/// How the log begins and who takes part, in an auxiliary's words: it is asked, and it is told.
fn found(
    id: &NodeId,
    known: &mut Option<Configuration>,
    floor: Step,
    message: &FounderMessage,
) -> Option<Message> {
    match message {
        FounderMessage::Ask(_) => Some(Message::Founder(match known {
            // Only what mains can execute counts.
            None => FounderMessage::Empty(Empty { knows: 0 }),
            Some(genesis) if genesis.epoch == 0 && floor <= Step(1) => {
                FounderMessage::Genesis(Genesis { configuration: genesis.clone() })
            }
            // The beginning is forgotten: enough to say that there was one.
            Some(_) => FounderMessage::Genesis(Genesis { configuration: Configuration::default() }),
        })),
        FounderMessage::Genesis(genesis) => {
            let lists_it = genesis.configuration.auxiliaries.contains(id);
            if known.is_none() && lists_it {
                *known = Some(genesis.configuration.clone());
            }
            None
        }
        // It remembers no processes, so nothing is known to it against this one.
        FounderMessage::Enter(life) => Some(Message::Founder(FounderMessage::Entered(Entered {
            nonce: life.nonce,
            opinion: Opinion::Good { moments: false },
        }))),
        FounderMessage::Empty(_)
        | FounderMessage::Entered(_)
        | FounderMessage::Alive(_)
        | FounderMessage::Disowned(_) => None,
    }
}

fn encode(object: &Object) -> Vec<u8> {
    rmp_serde::to_vec_named(object).expect("plain data encodes")
}

/// Mains are few, and the loser of a race has only to read again.
const SWAPS_MAX: u32 = 8;

/// Votes beyond this are refused: the object is written as a whole each time.
const BYTES_MAX: usize = 1024 * 1024;

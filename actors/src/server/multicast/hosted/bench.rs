//! The state machine of a group at one node, as the group's application.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::{
    letter::{Letter, Pieces},
    waiting::{Desk, Waiting},
};
use crate::{
    multicast::{
        application::{Application, BadCheckpoint, BadQuestion},
        message::{Entry, Publisher, Seq},
    },
    replicated::{ApplyError, Moment, Outcome, Position, SessionId, StateMachine, Turn},
};

/// Executes commands where their last letters stand in the order, and tells those of this node who
/// wait for that.
pub(super) struct Bench {
    machine: Box<dyn StateMachine>,
    desk: Arc<Desk>,
    /// Where it is, and agreed time: the highest that any sender's clock said.
    now: Moment,
    pieces: Pieces,
}

/// What precedes the machine's own snapshot in a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    position: Position,
    time_ms: u64,
    pieces: Pieces,
}

impl Bench {
    /// With a fresh machine.
    pub(super) fn new(machine: Box<dyn StateMachine>, desk: Arc<Desk>) -> Self {
        Self { machine, desk, now: Moment::default(), pieces: Pieces::default() }
    }

    /// What a message does; nothing: it is no command, or not yet a whole one.
    ///
    /// # Errors
    /// With what the handler panicked.
    fn read(
        &mut self,
        at: Seq,
        publisher: Publisher,
        payload: &[u8],
    ) -> Result<Option<Outcome>, Box<dyn Any + Send>> {
        let Some(letter) = Letter::read(payload) else { return Ok(None) };
        self.now.time_ms = self.now.time_ms.max(letter.time_ms);
        if letter.of == 0 {
            return Ok(None);
        }
        let (function, seed) = (letter.function, letter.seed);
        match self.pieces.put(at, publisher, letter) {
            Some(args) => self.execute(function, &args, seed).map(Some),
            None => Ok(None),
        }
    }

    fn execute(
        &mut self,
        function: u64,
        args: &[u8],
        seed: u64,
    ) -> Result<Outcome, Box<dyn Any + Send>> {
        let position = self.now.position;
        if self.desk.is_left_out(Seq(position.0)) {
            return Ok(self.panicked());
        }
        let mut turn = Turn::new(self.now, SessionId(0), seed, 0);
        let machine = &mut self.machine;
        let applied = catch_unwind(AssertUnwindSafe(|| machine.apply(function, args, &mut turn)));
        match applied {
            Ok(Ok(reply)) => Ok(Outcome::Applied { reply: reply.into(), position }),
            Ok(Err(why @ ApplyError::BadArguments(_))) => Ok(Outcome::Failed(why.to_string())),
            // Whoever sent it executes it. Going on without would be another state than theirs.
            Ok(Err(why @ ApplyError::UnknownFunction { .. })) => {
                panic!("{} at position {position}: {why}; a newer build sent it", machine.name())
            }
            Err(panic) => {
                // What the handler left half done is thrown away with all of this; everybody else
                // does the same there.
                self.desk.leave_out(Seq(position.0));
                Err(panic)
            }
        }
    }

    fn panicked(&self) -> Outcome {
        let (name, position) = (self.machine.name(), self.now.position);
        Outcome::Failed(format!("{name} panicked at position {position}"))
    }

    fn answer(&self, waiting: Waiting, outcome: Option<Outcome>) {
        let Waiting { done, inquiries, .. } = waiting;
        if let Some(done) = done {
            done(outcome.unwrap_or_else(|| {
                Outcome::Failed("a piece of it had no place in the order: it had no effect".into())
            }));
        }
        for inquiry in inquiries {
            let outcome = self.look(inquiry.function, &inquiry.args);
            (inquiry.done)(outcome);
        }
    }

    fn look(&self, function: u64, args: &[u8]) -> Outcome {
        let look = || self.machine.query(function, args, &self.now);
        match catch_unwind(AssertUnwindSafe(look)) {
            Ok(Ok(reply)) => Outcome::Applied { reply: reply.into(), position: self.now.position },
            Ok(Err(why)) => Outcome::Failed(why.to_string()),
            Err(_) => Outcome::Failed(format!("{} panicked in a query", self.machine.name())),
        }
    }
}

impl Application for Bench {
    fn deliver(&mut self, entry: &Entry) {
        self.now.position = Position(entry.seq.0);
        let Some(mid) = entry.pair.mid else { return };
        let read = self.read(entry.seq, mid.publisher, &entry.payload);
        let waiting = self.desk.take(mid).unwrap_or_default();
        match read {
            Ok(outcome) => self.answer(waiting, outcome),
            Err(panic) => {
                let Waiting { done, inquiries, .. } = waiting;
                done.into_iter().for_each(|done| done(self.panicked()));
                Waiting { inquiries, ..Waiting::default() }.refuse("the state is being rebuilt");
                resume_unwind(panic);
            }
        }
    }

    fn checkpoint(&mut self) -> Vec<Bytes> {
        let pieces = std::mem::take(&mut self.pieces);
        let Moment { position, time_ms } = self.now;
        let head = Head { position, time_ms, pieces };
        let written = rmp_serde::to_vec(&head).expect("plain data encodes");
        self.pieces = head.pieces;
        let mut all = BytesMut::new();
        all.extend_from_slice(FORM);
        all.extend_from_slice(&(written.len() as u64).to_le_bytes());
        all.extend_from_slice(&written);
        all.extend_from_slice(&self.machine.snapshot());
        let mut all = all.freeze();
        let mut blocks = Vec::new();
        while !all.is_empty() {
            blocks.push(all.split_to(all.len().min(BLOCK_BYTES)));
        }
        blocks
    }

    fn restore(&mut self, blocks: &[Bytes]) -> Result<(), BadCheckpoint> {
        let bad = |why: &str| BadCheckpoint(why.to_owned());
        let all = blocks.concat();
        let rest = all.strip_prefix(FORM).ok_or_else(|| bad("not of a state machine"))?;
        let (len, rest) = rest.split_first_chunk().ok_or_else(|| bad("it breaks off"))?;
        let len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(usize::MAX);
        let (head, state) = rest.split_at_checked(len).ok_or_else(|| bad("it breaks off"))?;
        let head: Head = rmp_serde::from_slice(head).map_err(|why| bad(&why.to_string()))?;
        self.machine.restore(state).map_err(|why| bad(&why.to_string()))?;
        let Head { position, time_ms, pieces } = head;
        (self.now, self.pieces) = (Moment { position, time_ms }, pieces);
        Ok(())
    }

    /// The question is a number of a function and its arguments.
    fn query(&self, question: &[u8]) -> Result<Vec<u8>, BadQuestion> {
        let (function, args) =
            question.split_first_chunk().ok_or_else(|| BadQuestion("it breaks off".to_owned()))?;
        match self.look(u64::from_le_bytes(*function), args) {
            Outcome::Applied { reply, .. } => Ok(reply.to_vec()),
            Outcome::Failed(why) => Err(BadQuestion(why)),
            Outcome::NotApplied(_) | Outcome::Unknown(_) | Outcome::SessionExpired(_) => {
                Err(BadQuestion("it was not asked".to_owned()))
            }
        }
    }
}

/// A question to [`Bench::query`](Application::query).
pub(super) fn question(function: u64, args: &[u8]) -> Bytes {
    [&function.to_le_bytes()[..], args].concat().into()
}

/// Begins every checkpoint.
const FORM: &[u8] = b"synod-state-1:";

/// Of a checkpoint: several fit one answer to who fetches it.
const BLOCK_BYTES: usize = 256 << 10;

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").field("machine", &self.machine.name()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
